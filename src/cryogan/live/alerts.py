"""What a user is alerted to: one sentence each, said once, kept in a file, and given to a command of the user's."""

import json
import shlex
import shutil
import subprocess
from contextlib import suppress
from typing import Any

import numpy as np

from cryogan.errors import Finding, InputError
from cryogan.live import kinds
from cryogan.live.folder import LiveFolder
from cryogan.live.records import Record, Records, Tally
from cryogan.live.schedule import SUPPORTED

SURELY = 5.0  # standard deviations of chance, from which a difference is said
FEWER, LEAST_OF_SQUARE = 0.3, 30  # by which the share of a portion or a square is less; particles of a square
MISSING, MENDED, LEAST_VIEWS = 0.05, 0.02, 300  # share of directions; particles that show views
DEFOCUS_GAIN = 0.05  # of what showing the map gains, that another defocus does beyond what it does for the map's own
SNR_SHARE, LEAST_SNR = 0.5, 0.05
LARGEST_TILT = 40.0  # degrees that stages bear
COMMAND_SECONDS = 60.0


class Alerts:
    """The alerts of a collection.

    Args:
        folder: our folder.
        command: program with arguments, to which the sentence is added; None: none is run.
    """

    def __init__(self, folder: LiveFolder, command: str | None = None) -> None:
        self._file = folder.alerts
        self._command = shlex.split(command) if command else []
        self._running: list[tuple[float, subprocess.Popen[bytes]]] = []
        self.said: list[Record] = []
        with suppress(FileNotFoundError):
            for line in self._file.read_text().splitlines():
                with suppress(ValueError):  # cut off: the disk was full, or the process was killed
                    self.said.append(json.loads(line))

    def say(self, finding: Finding, now: float, about: object = "") -> bool:
        """Say something once for what it is about; return whether it was said now."""
        if any((one["code"], one["about"]) == (finding.code, str(about)) for one in self.said):
            return False
        alert = {
            "time": now,
            "code": finding.code,
            "severity": finding.severity,
            "about": str(about),
            "sentence": finding.sentence,
        }
        self.said.append(alert)
        self._send(finding.sentence, now)
        with self._file.open("a") as file:
            file.write(json.dumps(alert) + "\n")
        return True

    def last_of(self, *codes: str) -> str | None:
        """Return the code that was said last, of some; None: none was."""
        return next((one["code"] for one in reversed(self.said) if one["code"] in codes), None)

    def _send(self, sentence: str, now: float) -> None:
        if not self._command:
            return
        with suppress(OSError):  # checked at the start; it may be gone by now
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._running.append((now, subprocess.Popen([*self._command, sentence], **quiet)))  # type: ignore[call-overload]

    @property
    def runs(self) -> bool:
        """Whether a command still runs."""
        return bool(self._running)

    def reap(self, now: float) -> None:
        """End commands that take too long, and forget those that have ended."""
        for began, process in self._running:
            if process.poll() is None and now - began > COMMAND_SECONDS:
                process.kill()
        self._running = [(began, process) for began, process in self._running if process.poll() is None]


def require_command(command: str | None) -> None:
    """Refuse a command that is not there.

    Raises:
        InputError: it cannot be found, or its quotes do not match.
    """
    try:
        words = shlex.split(command) if command else []
    except ValueError as error:
        raise InputError(f"--on-alert {command}: {error}. Close the quotes.") from None
    if words and shutil.which(words[0]) is None:
        raise InputError(f"--on-alert: there is no program {words[0]}. Give one that can be run.")


def of_portion(record: Record) -> list[Finding]:
    """Return what is to be said of a portion that was judged."""
    count, findings = record["judged"], []
    chance = 0.5 / max(count, 1) ** 0.5
    if record["defocus_z"] > SURELY and record["defocus_gain"] > DEFOCUS_GAIN:
        gain, offset = record["defocus_gain"], record["defocus_offset_A"]
        findings.append(kinds.DEFOCUS(count=record["particles"], gain=gain, offset=offset))
    elif record["share"] < record["share_of_sample"] - max(FEWER, SURELY * chance):
        findings.append(
            kinds.BAD_PORTION(count=record["particles"], share=record["share"], usual=record["share_of_sample"])
        )
    usual = record["snr_of_sample"]
    if usual > LEAST_SNR and record["snr"] < SNR_SHARE * usual:
        findings.append(kinds.SNR_FELL(count=record["particles"], share=record["snr"] / usual))
    return findings


def of_squares(squares: dict[str, Tally]) -> dict[str, Finding]:
    """Return what is to be said of grid squares, by their names."""
    found, all_of = {}, list(squares.items())
    for name, tally in all_of:
        others = [other for square, other in all_of if square != name]
        elsewhere = Tally(sum(other.count for other in others), sum(other.weight for other in others))
        chance = 0.5 / max(tally.count, 1) ** 0.5
        if min(tally.count, elsewhere.count) < LEAST_OF_SQUARE:
            continue
        if tally.share < elsewhere.share - max(FEWER, SURELY * chance):
            found[name] = kinds.BAD_SQUARE(square=name, share=tally.share, usual=elsewhere.share)
    return found


def of_views(record: Record, particles: int, last: str | None) -> Finding | None:
    """Return what is to be said of the views of all particles.

    Args:
        record: of the last portion that was judged.
        particles: number of particles.
        last: code of what was said of views last.
    """
    if particles < LEAST_VIEWS:
        return None
    missing = record["missing"]
    if last == kinds.VIEWS_MISSING.code:
        return kinds.VIEWS_MENDED(share=missing) if missing < MENDED else None
    if missing < MISSING:
        return None
    x, y, z = record["missing_about"]
    rot, tilt = np.degrees(np.arctan2(y, x)), np.degrees(np.arccos(np.clip(z, -1, 1)))
    stage = 5 * round(min(max(record["missing_within"], 10.0), LARGEST_TILT) / 5)
    return kinds.VIEWS_MISSING(share=missing, about=f"rot {rot:.0f}, tilt {tilt:.0f} degrees", tilt=stage)


def of_map(records: Records, number: int, target: float | None) -> list[Finding]:
    """Return what is to be said of a map that was made, or failed."""
    record, findings = records.maps[number], []
    if record["verdict"] is None:
        return [kinds.MAP_FAILED(number=number, reason=record["failed"])]
    before = [one for one in map(records.maps.get, sorted(records.maps)) if one and one["number"] < number]
    earlier: dict[str, Any] | None = next((one for one in reversed(before) if one["verdict"] is not None), None)
    supported = record["verdict"] in SUPPORTED
    if earlier is not None and (earlier["verdict"] in SUPPORTED) != supported:
        kind = kinds.VERDICT_MENDED if supported else kinds.VERDICT_TURNED
        findings.append(kind(before=earlier["sentence"], now=record["sentence"]))
    if target is not None and record["verdict_A"] is not None and record["verdict_A"] <= target:
        findings.append(kinds.ENOUGH(resolution=record["verdict_A"], target=target))
    return findings
