"""The page of a collection in a real browser."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from playwright.sync_api import Page, expect

from cryogan.files import locked
from cryogan.live.folder import LiveFolder, write_json
from cryogan.models.phantom import phantom
from cryogan.particles import write_volume
from cryogan.watch.live import WatchedLive
from cryogan.watch.run import WatchedRun
from pages import NARROW, WIDE, Open, Server, picture, serving

Serve = Callable[..., Server]
LIVE_MS = 5000  # within which the page has to show what is new
NOW = 1.9e9
COVERAGE = [0.1 if index < 100 else 1.0 for index in range(768)]  # the first are about z


def status(particles: int = 3000) -> dict[str, Any]:
    course = [
        {"number": n, "particles": count, "verdict": "resolved", "held_out_A": 12.0 - n, "half_maps_A": 11.0 - n}
        for n, count in ((1, 1500), (2, 1900), (3, 3000))
    ]
    portion = {"particles": 300, "share": 0.9, "defocus_A": 12000, "defocus_range_A": [9000, 16000], "snr": 0.2}
    sentence = "Of the particles of GridSquare_7, 20% carry weight; 91% do elsewhere. Leave that square."
    return {
        "state": "following",
        "title": "particles.star",
        "task": "map 4 is made, from map 3",
        "now": NOW,
        "particles": particles,
        "first": 1500,
        "waiting": 12,
        "per_hour": 4000,
        "last_arrival": NOW,
        "verdict": "Resolved to 9.0 A (half maps agree to 8.0 A, held-out particles support it to 9.0 A).",
        "supported": True,
        "changed": "Map 3, from map 2: +1100 particles; half maps 9.0 A before, 8.0 A now.",
        "enough": "Enough for 7 A at about 17:40 (17:10 to 18:30), with some 6200 particles.",
        "target": 7.0,
        "course": course,
        "portions": [portion | {"arrived": NOW - 3600 + 360 * n} for n in range(10)]
        + [{"arrived": NOW, "particles": 9}],
        "squares": [{"name": "GridSquare_7", "count": 240, "share": 0.2}],
        "micrographs": [{"name": "GridSquare_7/mic3.mrc", "count": 30, "share": 0.1}],
        "views": {"coverage": COVERAGE, "missing": 0.13, "missing_about": [0, 0, 1], "missing_within": 30.0},
        "alerts": [{"time": NOW, "code": "bad-square", "severity": "warning", "sentence": sentence}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> LiveFolder:
    folder = LiveFolder(tmp_path / "live")
    folder.make()
    folder.record.write_text(tomli_w.dumps({"path": "particles.star"}))
    for number in (1, 2, 3):
        write_json(folder.map_record(number), {"number": number})
    for number in (2, 3):  # the first is thinned out
        run = folder.map_run(number)
        run.path.mkdir()
        for path in run.half_maps:
            write_volume(path, phantom(32, 4.0, number), 4.0)
    write_json(folder.status, status())
    return folder


@pytest.fixture
def served() -> Iterator[Serve]:
    """Serves folders until the pages are closed: named before `opened` in a test, it ends after it."""
    with ExitStack() as stack:
        yield lambda path, *options: stack.enter_context(serving(path, *options))


def shown(page: Page) -> None:
    expect(page.locator("#levels")).to_contain_text("density")


@pytest.mark.parametrize("viewport", [NARROW, WIDE], ids=["narrow", "wide"])
def test_the_page_answers_the_three_questions(
    folder: LiveFolder, served: Serve, opened: Open, viewport: dict[str, int]
) -> None:
    with locked(folder.lock, wait=False):
        page = opened(served(folder.path), viewport)
        shown(page)
        expect(page.locator("#state")).to_have_text("following")
        expect(page.locator("#task")).to_have_text("map 4 is made, from map 3")
        expect(page.locator("#facts")).to_contain_text("3000 particles, 4000 in an hour, 12 wait")
        expect(page.locator("#verdict")).to_contain_text("Resolved to 9.0 A")
        expect(page.locator("#views")).to_contain_text("No: 13 %")
        expect(page.locator("#enough")).to_contain_text("17:40")
        expect(page.locator("#alerts")).to_contain_text("GridSquare_7, 20%")
        expect(page.locator("#squares")).to_contain_text("GridSquare_724020 %")
        expect(page.locator("#when")).to_have_text("map 3, 3000 particles")
        assert "token" not in page.url
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        for chart, points in (("resolution", 3), ("share", 10), ("defocus", 10), ("snr", 10), ("count", 11)):
            _, first, *_ = page.evaluate(f"document.getElementById('{chart}').plot.data")
            assert sum(value is not None for value in first) == points
        page.locator("#sphere").scroll_into_view_if_needed()
        middle = "getContext('2d').getImageData(canvas.width / 2, canvas.height / 2 - 3, 1, 1).data"
        red, green, _, _ = page.evaluate(
            f"(() => {{ const canvas = document.getElementById('sphere'); return [...canvas.{middle}]; }})()"
        )
        assert red > 150 > 50 > green  # hardly covered
        assert picture(page, "#sphere").std() > 0.05


def test_the_page_follows_and_stops(folder: LiveFolder, served: Serve, opened: Open) -> None:
    with locked(folder.lock, wait=False):
        page = opened(served(folder.path))
        shown(page)
        before = picture(page, "#slice1z")
        page.locator("#time").fill("0")
        expect(page.locator("#when")).to_have_text("map 2, 1900 particles")
        page.wait_for_timeout(500)
        assert np.abs(picture(page, "#slice1z") - before).max() > 0.1
        write_json(folder.status, status(3333))
        expect(page.locator("#facts")).to_contain_text("3333 particles", timeout=LIVE_MS)
        page.locator("#stop").click()
        expect(page.locator("#stop")).to_be_disabled()
        for _ in range(100):
            if folder.stop_request.exists():
                break
            page.wait_for_timeout(100)
        assert folder.stop_request.exists()
    expect(page.locator("#state")).to_have_text("stopped")
    expect(page.locator("#note")).to_contain_text("The same command goes on")


def test_a_folder_that_has_just_begun(tmp_path: Path, served: Serve, opened: Open) -> None:
    folder = LiveFolder(tmp_path / "live")
    folder.make()
    folder.record.write_text(tomli_w.dumps({"path": "particles.star"}))
    with locked(folder.lock, wait=False):
        page = opened(served(folder.path, "--prefix", "/node/a/1"))
        expect(page.locator("#state")).to_have_text("starting")
        expect(page.locator("#nomaps")).to_be_visible()
        expect(page.locator("#views")).to_contain_text("Not known yet")


def test_both_kinds_of_page_are_watched_alike() -> None:
    public = {name for name in dir(WatchedRun) if not name.startswith("_")} - {"inside"}
    assert public <= {name for name in dir(WatchedLive) if not name.startswith("_")}
