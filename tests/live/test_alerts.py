"""What is said of portions, squares, views and maps, and that it is said once."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cryogan.errors import InputError
from cryogan.live import kinds
from cryogan.live.alerts import Alerts, of_map, of_portion, of_squares, of_views, require_command
from cryogan.live.folder import LiveFolder, write_json
from cryogan.live.records import Records, Tally

GOOD: dict[str, Any] = {
    "particles": 1000,
    "judged": 500,
    "share": 0.95,
    "share_of_sample": 0.97,
    "defocus_z": 1.0,
    "defocus_gain": 0.01,
    "defocus_offset_A": 1000.0,
    "snr": 0.30,
    "snr_of_sample": 0.32,
}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, None),
        ({"share": 0.5}, "bad-portion"),
        ({"share": 0.75, "judged": 20}, None),  # of so few, chance
        ({"defocus_z": 8.0, "defocus_gain": 0.2}, "defocus-wrong"),
        ({"defocus_z": 8.0}, None),
        ({"snr": 0.1}, "snr-fell"),
        ({"snr": 0.0, "snr_of_sample": 0.04}, None),  # too little to compare
    ],
)
def test_what_is_said_of_a_portion(change: dict[str, Any], code: str | None) -> None:
    assert [finding.code for finding in of_portion(GOOD | change)] == ([] if code is None else [code])


def test_a_bad_square_stands_out() -> None:
    squares = {f"GridSquare_{i}": Tally(200, 190.0) for i in range(4)} | {"GridSquare_9": Tally(200, 60.0)}
    found = of_squares(squares)
    assert list(found) == ["GridSquare_9"]
    assert "30%" in found["GridSquare_9"].sentence
    assert of_squares({"GridSquare_9": Tally(200, 60.0)}) == {}  # there is nothing to compare it with


def views(missing: float) -> dict[str, Any]:
    return {"missing": missing, "missing_about": [0.0, 0.0, 1.0], "missing_within": 33.0}


def test_missing_views_are_said_and_mended() -> None:
    said = of_views(views(0.2), 2000, None)
    assert said is not None
    assert said.code == kinds.VIEWS_MISSING.code
    assert "35 degrees" in said.sentence
    assert of_views(views(0.2), 2000, said.code) is None
    mended = of_views(views(0.01), 2000, said.code)
    assert mended is not None
    assert mended.code == kinds.VIEWS_MENDED.code
    assert of_views(views(0.01), 2000, None) is None
    assert of_views(views(0.2), 100, None) is None


def record(number: int, verdict: str | None, held_out: float | None = 9.0) -> dict[str, Any]:
    text = {"sentence": str(verdict), "verdict_A": held_out, "failed": "no reason"}
    return {"number": number, "verdict": verdict, **text}


def test_a_verdict_that_turns_is_said_with_both_sentences(tmp_path: Path) -> None:
    folder = LiveFolder(tmp_path)
    folder.make()
    for number, verdict in ((1, "resolved"), (2, None), (3, "mismatch"), (4, "mismatch")):
        write_json(folder.map_record(number), record(number, verdict, None))
    codes = {number: [finding.code for finding in of_map(Records(folder), number, None)] for number in (1, 2, 3, 4)}
    assert codes == {1: [], 2: ["map-failed"], 3: ["verdict-turned"], 4: []}
    write_json(folder.map_record(5), record(5, "resolved", 6.9))
    codes = [finding.code for finding in of_map(Records(folder), 5, 7.0)]
    assert codes == ["verdict-mended", "enough"]


def test_an_alert_is_said_once_kept_and_sent(tmp_path: Path) -> None:
    folder, sent = LiveFolder(tmp_path), tmp_path / "sent.txt"
    alerts = Alerts(folder, f"sh -c 'echo \"$1\" >> {sent}' -")
    finding = kinds.INPUT_AWAY(path="/data")
    assert alerts.say(finding, 1.0)
    assert not alerts.say(finding, 2.0)
    again = Alerts(folder)
    assert not again.say(finding, 3.0)
    assert again.say(finding, 3.0, about="another time")
    assert [json.loads(line)["time"] for line in folder.alerts.read_text().splitlines()] == [1.0, 3.0]
    end = time.monotonic() + 60
    while alerts.runs:
        assert time.monotonic() < end
        time.sleep(0.05)
        alerts.reap(2.0)
    assert sent.read_text() == f"{finding.sentence}\n"


@pytest.mark.parametrize("command", ["no-such-program --now", "echo 'open"])
def test_a_command_that_cannot_be_run_is_refused(command: str) -> None:
    with pytest.raises(InputError, match="--on-alert"):
        require_command(command)
