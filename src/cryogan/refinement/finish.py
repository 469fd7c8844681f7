"""What is done with a run after its maps are written."""

from typing import NamedTuple

from rich.console import Console

from cryogan.config import Settings
from cryogan.refinement.verdict import judge_run
from cryogan.run.folder import RunFolder
from cryogan.run.log import RunLog
from cryogan.run.plan import Plan
from cryogan.run.postprocess import Result
from cryogan.run.reconstruct import make_again
from cryogan.run.report import write_report
from cryogan.run.symmetry import find_symmetry_of_run, is_looked_for
from cryogan.run.verdict import Verdict


class Finished(NamedTuple):
    """A run with all that belongs to it.

    Attributes:
        result: What came out in the end.
        verdict: On it; None: there is none.
    """

    result: Result
    verdict: Verdict | None


def finish(result: Result, settings: Settings, console: Console | None = None, *, alone: bool = True) -> Finished:
    """Judge a run of picked particles, unless --no-verdict; suggest a symmetry if it has none; write its report anew.

    A half map that alone is wrong is made again before, up to --retries times.

    Args:
        result: Result of the run.
        settings: Settings of the run.
        console: Where it is printed; default: standard error.
        alone: Whether the run's processes are of this machine, and not those of a job.
    """
    if not settings.verdict or settings.kind != "particles":
        return Finished(result, None)
    verdict = _judge(result, console)
    folder = RunFolder(result.folder)
    while verdict.wrong_half is not None and alone and max(Plan.read(folder.path).tries) <= settings.retries:
        log = RunLog(folder, console or Console(stderr=True))
        log.say(f"Half {verdict.wrong_half} is made again, with other random numbers.")
        result = make_again(folder.path, verdict.wrong_half, console)
        verdict = _judge(result, console)
    plan = Plan.read(folder.path)
    if is_looked_for(plan):
        log = RunLog(folder, console or Console(stderr=True))
        log.report(find_symmetry_of_run(folder).findings)
    write_report(folder, plan, result)
    return Finished(result, verdict)


def _judge(result: Result, console: Console | None) -> Verdict:
    other_hand = result.alignment.correlation_other_hand
    return judge_run(result.folder, correlation_other_hand=other_hand, console=console)
