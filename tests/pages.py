"""A `cryogan watch` in a process, and its page in a real browser."""

import io
import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from matplotlib.image import imread
from playwright.sync_api import Browser, Page, expect, sync_playwright

from processes import cryogan

CHROMIUM = shutil.which("chromium")
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1400, "height": 1000}
expect.set_options(timeout=30_000)


@dataclass(frozen=True)
class Server:
    """A `cryogan watch` and its run's folder."""

    process: subprocess.Popen[str]
    url: str  # with the token
    run: Path

    @property
    def port(self) -> int:
        return int(urlsplit(self.url).port or 0)

    @property
    def query(self) -> str:
        return urlsplit(self.url).query

    @property
    def cookie(self) -> str:
        return f"cryogan_{self.port}={self.query.removeprefix('token=')}"

    @contextmanager
    def ask(self, path: str, method: str = "GET", **headers: str) -> Iterator[HTTPResponse]:
        """The path goes out as it is, dots and all; with the cookie, if no other is given."""
        headers = {"Cookie": self.cookie} | headers
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            with connection.getresponse() as response:
                yield response

    def status(self, path: str, method: str = "GET", **headers: str) -> int:
        with self.ask(path, method, **headers) as response:
            return response.status

    def append(self, half: int, step: int) -> None:
        """A line of progress, as the run writes it."""
        line = (self.run / "progress.jsonl").read_text().splitlines()[-1]
        with (self.run / "progress.jsonl").open("a") as log:
            log.write(json.dumps(json.loads(line) | {"half": half, "step": step}) + "\n")


@contextmanager
def serving(run: Path, *options: object, **environment: str) -> Iterator[Server]:
    process = cryogan("watch", run, "--port", 0, *options, environment=environment)
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert words, process.communicate()[1]
    try:
        yield Server(process, next(word for word in words if word.startswith("http")), run)
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    graphics = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=graphics)
        yield one
        one.close()


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    """Opens a server's page; at the end it must have said no error and asked no other host."""
    complaints: list[str] = []
    contexts = []

    def note(page: Page, server: Server) -> None:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda output: complaints.append(output.text) if output.type == "error" else None)
        own = f"http://127.0.0.1:{server.port}/"
        page.on("request", lambda asked: None if asked.url.startswith((own, "data:")) else complaints.append(asked.url))

    def open_page(server: Server, viewport: Any = WIDE) -> Page:
        contexts.append(browser.new_context(viewport=viewport, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        note(page, server)
        page.goto(server.url)
        expect(page.locator("#state")).not_to_have_text("connecting")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, complaints


def picture(page: Page, canvas: str) -> np.ndarray:
    """Grey picture of an element, once what was asked for is drawn."""
    page.evaluate("new Promise((done) => setTimeout(done, 200))")
    return imread(io.BytesIO(page.locator(canvas).screenshot()))[..., :3] @ (0.2126, 0.7152, 0.0722)
