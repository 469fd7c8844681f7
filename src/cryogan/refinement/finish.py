"""What is done with a run after its maps are written."""

from rich.console import Console

from cryogan.config import Settings
from cryogan.refinement.verdict import judge_run
from cryogan.run.folder import RunFolder
from cryogan.run.log import RunLog
from cryogan.run.plan import Plan
from cryogan.run.postprocess import Result
from cryogan.run.report import write_report
from cryogan.run.symmetry import find_symmetry_of_run, is_looked_for
from cryogan.run.verdict import Verdict


def finish(result: Result, settings: Settings, console: Console | None = None) -> Verdict | None:
    """Judge a run of picked particles, unless --no-verdict; suggest a symmetry if it has none; write its report anew.

    Args:
        result: Result of the run.
        settings: Settings of the run.
        console: Where it is printed; default: standard error.

    Returns:
        The verdict; None: there is none.
    """
    if not settings.verdict or settings.kind != "particles":
        return None
    other_hand = result.alignment.correlation_other_hand
    verdict = judge_run(result.folder, correlation_other_hand=other_hand, console=console)
    folder, plan = RunFolder(result.folder), Plan.read(result.folder)
    if is_looked_for(plan):
        log = RunLog(folder, console or Console(stderr=True))
        log.report(find_symmetry_of_run(folder).findings)
    write_report(folder, plan, result)
    return verdict
