"""The page of a run: in a real browser, under load, and against those who ask for more than it shows."""

import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tomli_w
from matplotlib.image import imread
from playwright.sync_api import Page, expect
from rich.console import Console

from cryogan.cli import main
from cryogan.config import resolve
from cryogan.particles import read_volume, write_volume
from cryogan.refinement.refine import find_poses
from cryogan.run.folder import RunFolder
from cryogan.run.reconstruct import reconstruct
from cryogan.watch.run import WatchedRun, read_bytes
from pages import NARROW, WIDE, Open, Server, picture, serving
from processes import cryogan, free_port

SETTINGS: dict[str, object] = {
    "symmetry": "D2",
    "max_shift": 4.0,
    "seed": 3,
    "threads": 1,
    "starts": 1,
    "orientations": 800,
    "search_steps": 10,
    "search_batch": 50,
    "marching_steps": 1,
    "marching_images": 200,
}
STEPS = 10 + 4
CLIENTS = 50
APACHE_MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http")
LIVE_MS = 2000  # within which the page has to show what is new


@pytest.fixture(scope="module")
def finished(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("watched") / "run"
    inputs = particles / "particles.star", out, resolve("default", None, SETTINGS)
    reconstruct(*inputs, noise=particles / "noise.star", console=Console(file=io.StringIO()))
    return out


@pytest.fixture(scope="module")
def server(finished: Path) -> Iterator[Server]:
    with serving(finished) as one:
        yield one


def with_maps(page: Page) -> Page:
    expect(page.locator("#levels")).to_contain_text("density")
    return page


def test_the_page_shows_a_finished_run(server: Server, opened: Open) -> None:
    page = with_maps(opened(server))
    expect(page.locator("#state")).to_have_text("finished")
    expect(page.locator("#stop")).to_be_disabled()
    expect(page.locator("#step1")).to_have_text(f"{STEPS} of {STEPS} steps")
    expect(page.locator("#fsctext")).to_contain_text("mask-corrected")
    expect(page.locator("#log")).to_contain_text("Half maps agree to")
    expect(page.locator("#when")).to_have_text("final half maps")
    assert "token" not in page.url
    for chart in ("critic_gap", "map_change", "signal_scale", "noise_scale"):
        _, *halves = page.evaluate(f"document.getElementById('{chart}').plot.data")
        assert [sum(value is not None for value in half) for half in halves] == [STEPS, STEPS]
    frequency, *curves = page.evaluate("document.getElementById('fsc').plot.data")
    assert [len(curve) for curve in curves] == [len(frequency)] * 4
    for image in ("gallery", "power_spectra"):
        assert page.evaluate(f"document.getElementById('{image}').decode().then(() => true)")


def test_view_distribution_where_there_are_poses(server: Server, opened: Open) -> None:
    page = opened(server)
    expect(page.locator("#noviews")).to_contain_text("No poses yet")
    assert page.locator("#views").is_hidden()
    find_poses(server.run, console=Console(file=io.StringIO()))
    expect(page.locator("#views")).to_be_visible()
    expect(page.locator("#noviews")).to_have_text("")


def test_isosurfaces_are_drawn_and_follow_the_level(server: Server, opened: Open) -> None:
    page = with_maps(opened(server))
    shares = []
    for level in ("15", "50", "110"):
        page.locator("#level").fill(level)
        shares.append([(picture(page, f"#surface{half}") < 0.9).mean() for half in (1, 2)])
    for low, middle, high in zip(*shares, strict=True):
        assert low > middle > high > 0.005
    still = picture(page, "#surface1")
    assert still[still < 0.9].std() > 0.03  # shaded, not a flat blot
    np.testing.assert_array_equal(picture(page, "#surface1"), still)  # prefers-reduced-motion
    page.locator("#turn").check()
    page.wait_for_timeout(300)
    page.locator("#turn").uncheck()
    assert np.abs(picture(page, "#surface1") - still).max() > 0.1


def test_slices_follow_the_time(server: Server, opened: Open) -> None:
    page = with_maps(opened(server))
    canvases = [f"#slice{half}{axis}" for half in (1, 2) for axis in "zyx"]
    late = [picture(page, canvas) for canvas in canvases]
    page.locator("#time").fill("0")
    expect(page.locator("#when")).to_contain_text("step")
    for canvas, before in zip(canvases, late, strict=True):
        now = picture(page, canvas)
        assert now.std() > 0.05
        assert np.abs(now - before).max() > 0.1


def test_slices_are_those_of_the_map(server: Server, opened: Open) -> None:
    page = with_maps(opened(server))
    volume, _ = read_volume(server.run / "half2_map_unfil.mrc")
    middle = len(volume) // 2
    sections = {"z": volume[middle], "y": volume[:, middle], "x": volume[:, :, middle]}
    for axis, section in sections.items():
        image = "getContext('2d').getImageData(0, 0, 32, 32).data"
        shown = page.evaluate(f"Array.from(document.getElementById('slice2{axis}').{image})")
        grey = np.array(shown).reshape(32, 32, 4)[::-1, :, 0]  # the first row is drawn at the bottom
        assert np.corrcoef(grey.ravel(), section.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("chart", ["critic_gap", "map_change", "signal_scale", "noise_scale"])
def test_charts_are_drawn_in_the_colours_of_the_halves(chart: str, server: Server, opened: Open) -> None:
    page = with_maps(opened(server))
    page.locator(f"#{chart}").scroll_into_view_if_needed()
    shown = imread(io.BytesIO(page.locator(f"#{chart} .u-wrap").screenshot()))[..., :3]
    # Dark blue and orange, next to no other colour; a flat line is as long as the plot is wide.
    saturated = shown.max(-1) - shown.min(-1) > 0.3
    assert (saturated & (shown[..., 2] > shown[..., 0])).sum() > 100
    assert (saturated & (shown[..., 0] > shown[..., 2])).sum() > 50


def test_charts_follow_the_width_of_the_window(server: Server, opened: Open) -> None:
    page = with_maps(opened(server))
    charts = "[...document.querySelectorAll('.u-wrap')].map((chart) => chart.clientWidth)"
    assert min(page.evaluate(charts)) > NARROW["width"]
    page.set_viewport_size(NARROW)
    waited = 0
    while max(page.evaluate(charts)) >= NARROW["width"]:  # the page's policy forbids wait_for_function
        page.wait_for_timeout(100)
        waited += 1
        assert waited < 300
    widths = page.evaluate(charts)
    assert len(widths) == 5
    assert min(widths) > 0.8 * NARROW["width"]
    # The legend, of several lines where it must, is within its chart.
    below = """[...document.querySelectorAll(".chart")].map((chart) =>
        chart.getBoundingClientRect().bottom - chart.querySelector(".u-legend").getBoundingClientRect().bottom)"""
    assert min(page.evaluate(below)) > -1


@pytest.mark.parametrize("viewport", [NARROW, WIDE], ids=["narrow", "wide"])
def test_nothing_sticks_out(server: Server, opened: Open, viewport: dict[str, int]) -> None:
    page = with_maps(opened(server, viewport))
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    outside = """[...document.querySelectorAll("body *")].filter(
        (each) => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest("svg")).map((each) => each.id)"""
    assert page.evaluate(outside) == []


def luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_the_halves_are_told_apart_in_grey(server: Server, opened: Open) -> None:
    page = with_maps(opened(server))
    series = "document.getElementById('critic_gap').plot.series.slice(1)"
    lines = page.evaluate(f"{series}.map((line) => ({{ color: line.stroke(), dash: line.dash }}))")
    first, second = (luminance(line["color"]) for line in lines)
    assert (second + 0.05) / (first + 0.05) > 2
    assert 1.05 / (second + 0.05) > 3  # and from the paper
    assert lines[0]["dash"] != lines[1]["dash"]
    surfaces = [picture(page, f"#surface{half}") for half in (1, 2)]
    dark, light = (float(np.median(surface[surface < 0.9])) for surface in surfaces)
    assert (light + 0.05) / (dark + 0.05) > 1.25


def test_news_is_on_the_page_in_time(server: Server, opened: Open) -> None:
    before = (server.run / "progress.jsonl").read_text()
    page = opened(server)
    expect(page.locator("#step1")).to_contain_text(f"{STEPS} of")
    server.append(1, STEPS - 1)
    expect(page.locator("#step1")).to_contain_text(f"{STEPS - 1} of", timeout=LIVE_MS)
    (server.run / "progress.jsonl").write_text(before)  # shorter: read anew
    expect(page.locator("#step1")).to_contain_text(f"{STEPS} of", timeout=LIVE_MS)


def events(response: HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def test_fifty_clients_get_every_line(server: Server) -> None:
    before = (server.run / "progress.jsonl").read_text()
    known = len(before.splitlines())
    ready = threading.Barrier(CLIENTS + 1)
    got: list[list[dict[str, Any]]] = [[] for _ in range(CLIENTS)]

    def client(records: list[dict[str, Any]]) -> None:
        with server.ask("/events") as response:
            for event in events(response):
                assert event["first"] == len(records)  # none twice, none left out
                records += event["records"]
                if len(records) == known:
                    ready.wait(60)
                if len(records) == known + 20:
                    break

    threads = [threading.Thread(target=client, args=(records,), daemon=True) for records in got]
    for thread in threads:
        thread.start()
    ready.wait(60)
    for step in range(20):
        server.append(1 + step % 2, 1 + step // 2)
    for thread in threads:
        thread.join(60)
    wanted = [json.loads(line) for line in (server.run / "progress.jsonl").read_text().splitlines()]
    assert len(wanted) == known + 20
    assert all(records == wanted for records in got)
    assert server.status("/") == 200
    (server.run / "progress.jsonl").write_text(before)


@pytest.mark.parametrize(
    "path",
    [
        "/run.toml",
        "/half1.pt",
        "/../run.toml",
        "/..%2frun.toml",
        "/static/..%2ffolder.py",
        "/static/folder.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/figures/../run.toml",
        "/figures/..%2f..%2frun.toml",
        "/figures/%2e%2e%2frun.toml",
        "/figures/..%5crun.toml",
        "/figures/fsc",
        "/figures/gallery.png",
        "/maps/1/..%2f..%2fmap",
        "/maps/1/%2fetc%2fpasswd",
        "/maps/3/final",
        "/maps/0/final",
        "/maps/-1/final",
        "/maps/1/000000",
    ],
)
def test_only_known_names_are_served(server: Server, path: str) -> None:
    assert server.status(path) == 404
    assert server.status("/maps/1/final") == 200


def test_links_out_of_the_run_are_refused(server: Server, tmp_path: Path) -> None:
    for name, path in (("gallery.png", "/figures/gallery"), ("../half1_map_unfil.mrc", "/maps/1/final")):
        file, elsewhere = server.run / "figures" / name, tmp_path / "elsewhere"
        assert server.status(path) == 200
        file.rename(elsewhere)
        file.symlink_to(elsewhere)
        refused = server.status(path)
        file.unlink()
        elsewhere.rename(file)
        assert refused == 404
        assert server.status(path) == 200


def test_writing_needs_the_token_and_the_own_page(server: Server) -> None:
    own = f"127.0.0.1:{server.port}"
    assert server.status("/stop", "POST", Cookie="") == 403
    assert server.status("/stop?token=", "POST", Cookie="") == 403
    assert server.status("/stop?token=wrong", "POST", Cookie="") == 403
    assert server.status("/stop", "POST", Origin="http://evil.example") == 403
    assert server.status("/stop", "POST", Origin=f"http://127.0.0.1:{server.port + 1}") == 403
    assert server.status("/stop", "POST", Origin="null") == 403
    forwarded = {"X-Forwarded-Host": "evil.example"}  # counts behind a proxy only
    assert server.status("/stop", "POST", Origin="http://evil.example", **forwarded) == 403
    assert server.status("/stop", "POST", Origin=f"http://{own}") == 409  # it is finished
    for method in ("PUT", "DELETE", "POST"):
        assert server.status("/figures/gallery", method) == 405
    assert not RunFolder(server.run).stop_request.exists()


def test_nothing_is_shown_without_the_token(server: Server) -> None:
    for path in ("/", "/events", "/maps/1/final", "/static/page.js", "/?token=wrong"):
        assert server.status(path, Cookie="") == 403
    with server.ask(f"/?{server.query}", Cookie="") as answer:
        cookie = str(answer.headers["Set-Cookie"])
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert server.status("/maps/1/final", Cookie=cookie.split(";")[0]) == 200


def test_a_portal_gives_the_token(finished: Path) -> None:
    with serving(finished, "--host", "0.0.0.0", CRYOGAN_WATCH_TOKEN="of-the-portal-1234") as server:
        assert server.query == "token=of-the-portal-1234"
        assert server.status("/", Cookie="") == 403
        assert server.status("/") == 200


@contextmanager
def proxied(server: Server, prefix: str, passed_on: str, folder: Path) -> Iterator[Server]:
    """The server as it is seen through Apache, as Open OnDemand has it, which passes on the paths below `prefix`."""
    program = shutil.which("apache2")
    if program is None:
        pytest.skip("Apache is not installed")
    port, folder = free_port(), folder / "apache"
    folder.mkdir()
    modules = [f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in APACHE_MODULES]
    upstream = f"http://127.0.0.1:{server.port}{passed_on}/"
    lines = [
        *modules,
        f"Listen 127.0.0.1:{port}",
        f"PidFile {folder}/pid",
        f"ErrorLog {folder}/log",
        "ServerName localhost",
        "User nobody",
        "Group nogroup",
        f"ProxyPass {prefix}/ {upstream}",
        f"ProxyPassReverse {prefix}/ {upstream}",
    ]
    (folder / "conf").write_text("\n".join(lines) + "\n")
    process = subprocess.Popen([program, "-d", folder, "-f", folder / "conf", "-DFOREGROUND"])
    try:
        seen = replace(server, url=f"http://127.0.0.1:{port}{prefix}/?{server.query}")
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            with suppress(ConnectionRefusedError):
                seen.status("/")
                break
        yield seen
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("whole", [True, False], ids=["node", "rnode"])
def test_the_page_works_behind_the_prefix_of_a_proxy(whole: bool, finished: Path, tmp_path: Path, opened: Open) -> None:
    """Open OnDemand passes on the whole path below /node, and the path without the prefix below /rnode."""
    prefix = f"/{'node' if whole else 'rnode'}/c123.example.org/8642"
    with (
        serving(finished, "--prefix", prefix) as direct,
        proxied(direct, prefix, prefix if whole else "", tmp_path) as server,
    ):
        assert urlsplit(direct.url).path == f"{prefix}/"
        page = with_maps(opened(server))
        assert urlsplit(page.url).path == f"{prefix}/"
        expect(page.locator("#state")).to_have_text("finished")
        assert page.evaluate("document.getElementById('gallery').decode().then(() => true)")
        (cookie,) = page.context.cookies()
        assert cookie["path"] == f"{prefix}/"  # other pages of the portal do not get it
        before = (server.run / "progress.jsonl").read_text()
        server.append(1, STEPS - 1)
        expect(page.locator("#step1")).to_contain_text(f"{STEPS - 1} of")
        (server.run / "progress.jsonl").write_text(before)
        own = f"http://{urlsplit(server.url).netloc}"
        cookie_of_page = f"{cookie['name']}={cookie['value']}"
        for origin, status in ((own, 409), ("http://evil.example", 403)):  # let in; but the run is finished
            assert server.status(f"{prefix}/stop", "POST", Origin=origin, Cookie=cookie_of_page) == status
        page.close()


def test_the_button_stops_a_run_that_can_be_resumed(particles: Path, tmp_path: Path, opened: Open) -> None:
    out, chosen = tmp_path / "out", tmp_path / "settings.toml"
    chosen.write_text(tomli_w.dumps(SETTINGS | {"search_steps": 5000}))
    run = cryogan("reconstruct", particles / "particles.star", "--config", chosen, "--out", out)

    def ended(process: subprocess.Popen[str]) -> int:
        _, err = process.communicate(timeout=60)
        assert f"cryogan reconstruct --resume {out}" in err.replace("\n", "")
        return process.returncode

    while not (out / "progress.jsonl").exists():
        assert run.poll() is None, run.communicate()[1]
    with serving(out) as server:
        page = with_maps(opened(server))  # the maps of a run that is not far
        expect(page.locator("#state")).to_have_text("running")
        expect(page.locator("#left")).to_contain_text("min left")
        expect(page.locator("#when")).to_have_text("latest half maps")
        page.locator("#stop").click()
        assert ended(run) == 130
        assert all((out / f"half{half}.pt").exists() for half in (1, 2))
        expect(page.locator("#state")).to_have_text("stopped")
        expect(page.locator("#note")).to_contain_text(f"cryogan reconstruct --resume {out}")
        expect(page.locator("#stop")).to_be_disabled()

        steps = page.locator("#step1").text_content()
        again = cryogan("reconstruct", "--resume", out)
        expect(page.locator("#state")).to_have_text("running", timeout=60_000)
        expect(page.locator("#step1")).not_to_have_text(steps or "", timeout=60_000)  # it has gone on
        stop = RunFolder(out).stop_request
        assert not stop.exists()
        stop.touch()  # as from another machine
        assert ended(again) == 130
        page.close()  # before its server: a browser complains of lost connections


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """The run as it was before its halves were compared."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    for name in ("fsc.csv", "half1_map_unfil.mrc", "half2_map_unfil.mrc", "log.txt", "outcome.json"):
        (out / name).unlink(missing_ok=True)
    return out


def test_a_line_that_is_not_yet_whole_waits_and_a_spoilt_one_is_left_out(unfinished: Path) -> None:
    folder, log = WatchedRun(unfinished), unfinished / "progress.jsonl"
    assert folder.poll()
    assert not folder.poll()
    known, line = len(folder.records), log.read_text().splitlines()[-1]
    with log.open("a") as file:
        file.write(line[:20])
        file.flush()
        assert not folder.poll()
        file.write(f"{line[20:]}\n{line[:20]}{line}\n")  # the second: a run was killed, and went on
        file.flush()
        assert folder.poll()
    assert folder.records[known:] == [json.loads(line)]


def test_an_unfinished_run_has_the_fsc_of_its_last_maps(unfinished: Path) -> None:
    folder = WatchedRun(unfinished)
    folder.poll()
    assert folder.status["state"] == "stopped"
    assert folder.status["fsc"] is None
    folder.compare()
    assert folder.poll()
    curve = folder.status["fsc"]["curves"]["unmasked"]
    assert curve[1] > 0.8
    assert f"step {STEPS}, half 2 aligned" in folder.status["fsc"]["text"]
    assert json.dumps(folder.status, allow_nan=False)


@pytest.mark.parametrize(("box", "shown"), [(40, 40), (160, 128)])
def test_maps_go_out_in_eight_bits_and_not_too_large(box: int, shown: int, tmp_path: Path) -> None:
    axis = np.arange(box) / box - 0.5
    smooth = 3 * np.exp(-30 * (axis[:, None, None] ** 2 + 2 * axis[:, None] ** 2 + axis**2 / 2)) - 1
    write_volume(tmp_path / "map.mrc", smooth, 2.0)
    voxels, side, low, high = read_bytes(tmp_path / "map.mrc", 0)
    assert side == shown
    back = np.frombuffer(voxels, np.uint8).reshape((side,) * 3) / 255 * (high - low) + low
    axis = np.arange(side) / side - 0.5
    expected = 3 * np.exp(-30 * (axis[:, None, None] ** 2 + 2 * axis[:, None] ** 2 + axis**2 / 2)) - 1
    np.testing.assert_allclose(back, expected, atol=0.03)


def test_the_share_of_the_work_is_as_recorded(unfinished: Path) -> None:
    watched = WatchedRun(unfinished)
    watched.poll()
    assert watched.status["halves"][1]["done"] == 1
    half_way = {"half": 1, "step": STEPS // 2, "minutes": 3.0}
    for recorded, done in (({"done": 0.25}, 0.25), ({}, 0.5)):  # without, in runs of older versions
        with (unfinished / "progress.jsonl").open("a") as log:
            log.write(json.dumps(half_way | recorded) + "\n")
        watched.poll()
        progress = watched.status["halves"][1]
        assert progress["done"] == done
        assert progress["left"] == pytest.approx(3.0 * (1 - done) / done)


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file and folder."""
    found = [folder, *folder.rglob("*")]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_watching_writes_nothing_into_a_run(finished: Path, tmp_path: Path) -> None:
    """Somebody else's, which may only be read: without a lock file, as copied."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    RunFolder(run).lock.unlink(missing_ok=True)
    paths = [run, *run.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(run)
    with serving(run) as server, server.ask("/events") as response:
        first = next(events(response))
        assert first["state"] == "finished"
        assert len(first["records"]) == 2 * STEPS
        for path in ("/", "/maps/1/final", "/figures/gallery"):
            assert server.status(path) == 200
    assert contents(run) == before
    for path in paths:
        path.chmod(0o755)


def test_importing_the_page_loads_nothing_of_the_training() -> None:
    heavy = ("torch", "matplotlib", "cryogan.critics", "cryogan.physics", "cryogan.run.plan", "cryogan.run.reconstruct")
    code = f"import sys, cryogan.watch.server; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_cannot_be_watched_is_one_line(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, word in (
        (["watch", str(tmp_path)], "is not the folder of a run"),
        (["watch", str(server.run), "--port", str(server.port)], "Give another --port"),
        (["watch", str(server.run), "--prefix", "node"], "Give it as in --prefix /node/HOST/PORT"),
        (["watch", str(server.run), "--token"], "CRYOGAN_WATCH_TOKEN needs 16"),
    ):
        if arguments[-1] == "--token":
            monkeypatch.setenv("CRYOGAN_WATCH_TOKEN", arguments.pop())
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        assert refused.value.code == 2
        assert word in capsys.readouterr().err
