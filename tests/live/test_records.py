"""What is kept of portions and maps in memory."""

from pathlib import Path
from typing import Any

import pytest

from cryogan.live.folder import LiveFolder, write_json
from cryogan.live.records import Records
from cryogan.live.status import status_of


def write_portion(folder: LiveFolder, number: int, arrived: float, particles: int = 100, **judged: Any) -> None:
    folder.portion_star(number).touch()
    write_json(folder.portion_record(number), {"arrived": arrived, "particles": particles, "stacks": {}, **judged})


def judgement(share: float, square: str) -> dict[str, Any]:
    views = {"missing": 0.0, "missing_about": [0, 0, 1], "missing_within": 0.0}
    numbers = {"defocus_A": 1e4, "defocus_range_A": [9e3, 2e4], "snr": 0.3}
    micrographs = {f"{square}/a.mrc": [60, 60 * share, square], f"{square}/b.mrc": [40, 40 * share, square]}
    lists = {"views": [1.0], "all_views": [1.0], "coverage": [1.0]}
    return {"map": 1, "share": share, "micrographs": micrographs, **numbers, **views, **lists}


@pytest.fixture
def folder(tmp_path: Path) -> LiveFolder:
    folder = LiveFolder(tmp_path)
    folder.make()
    return folder


def test_tallies_count_each_portion_once(folder: LiveFolder) -> None:
    write_portion(folder, 1, 0.0, **judgement(0.9, "GridSquare_1"))
    write_portion(folder, 2, 0.0, **judgement(0.3, "GridSquare_2"))
    records = Records(folder)
    records.read_portion(2)
    assert records.squares["GridSquare_2"].count == 100
    assert records.squares["GridSquare_2"].share == pytest.approx(0.3)
    assert len(records.micrographs) == 4
    assert [number for number, record in records.portions.items() if "coverage" in record] == [2]


def test_the_rate_is_that_of_the_last_hour(folder: LiveFolder) -> None:
    for number, arrived in enumerate((0.0, 3000.0, 7000.0, 7100.0), start=1):
        write_portion(folder, number, arrived)
    records = Records(folder)
    assert records.per_hour(7200.0) == 200
    assert records.per_hour(20000.0) == 0


def test_the_page_has_what_was_recorded(folder: LiveFolder) -> None:
    write_portion(folder, 1, 10.0, **judgement(0.9, "GridSquare_1"))
    write_portion(folder, 2, 20.0)
    course = {"began": 0.0, "particles": 100, "start": "zero", "last": None, "cpu_seconds": 1.0, "reslog": None}
    numbers = {"held_out_A": 9.0, "half_maps_A": 8.0, "verdict": "resolved", "sentence": "Resolved to 9.0 A."}
    write_json(folder.map_record(1), {"number": 1, "last_portion": 1, **course, **numbers})
    records = Records(folder)
    assert list(records.to_judge()) == [2]
    shown = status_of(records, 1500, None, [{"sentence": "a"}, {"sentence": "b"}], 200, 30.0, state="following")
    assert shown["verdict"] == "Resolved to 9.0 A."
    assert shown["supported"]
    assert [one["sentence"] for one in shown["alerts"]] == ["b", "a"]
    assert shown["squares"] == [{"name": "GridSquare_1", "count": 100, "share": 0.9}]
    assert [one["share"] for one in shown["portions"]] == [0.9, None]
    assert shown["enough"].startswith("When there is enough cannot be said")
