"""Messages of a run, on the user's console and, with the time, in its log."""

from collections.abc import Iterable
from datetime import datetime

from rich.console import Console

from cryogan.errors import Finding
from cryogan.run.folder import RunFolder


class RunLog:
    """Log of a run, which also prints to the user's console.

    Args:
        folder: folder of the run, whose log is written.
        console: console of the user.
    """

    def __init__(self, folder: RunFolder, console: Console) -> None:
        self._file, self.console = folder.log, console
        self.findings: list[Finding] = []

    def say(self, text: str) -> None:
        """Tell the user, and keep it in the log."""
        self.console.print(text, highlight=False, soft_wrap=True)
        self.note(text)

    def note(self, text: str) -> None:
        """Keep a text in the log alone."""
        with self._file.open("a") as file:
            file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")

    def report(self, findings: Iterable[Finding]) -> None:
        """Tell the user findings, and keep them for the run's result."""
        for finding in findings:
            self.findings.append(finding)
            self.say(finding.sentence)
