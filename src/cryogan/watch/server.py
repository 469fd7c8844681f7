"""The web server of `cryogan watch`: a few routes, one reader of the run's folder, and a guard before all."""

import asyncio
import atexit
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cryogan.errors import InputError
from cryogan.live.folder import LiveFolder
from cryogan.watch.live import WatchedLive
from cryogan.watch.run import WatchedRun, read_bytes

POLL_SECONDS = 0.25
COMPARE_SECONDS = 5.0
TOKEN_VARIABLE = "CRYOGAN_WATCH_TOKEN"
PAGE = Path(str(files("cryogan.watch")))
VENDOR = PAGE / "vendor"
STATIC = {
    name: PAGE / name for name in ("page.css", "page.js", "live.js", "maps.js", "news.js", "charts.js", "surface.js")
}
STATIC |= {name: VENDOR / name for name in ("uPlot.iife.min.js", "uPlot.min.css")}
Watched = WatchedRun | WatchedLive
POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'"


class Feed:
    """Keeps the state of a run up to date and wakes the clients that wait for news."""

    def __init__(self, run: Watched) -> None:
        self.run = run
        self.version = 0
        self._changed = asyncio.Condition()

    async def follow(self) -> None:
        """Read the folder again and again, until cancelled."""
        while True:
            if await asyncio.to_thread(self.run.poll):
                async with self._changed:
                    self.version += 1
                    self._changed.notify_all()
            await asyncio.sleep(POLL_SECONDS)

    async def compare(self) -> None:
        """Keep the FSC of an unfinished run up to date; a task of its own, because it takes seconds."""
        while True:
            with suppress(OSError, InputError):
                await asyncio.to_thread(self.run.compare)
            await asyncio.sleep(COMPARE_SECONDS)

    async def events(self) -> AsyncIterator[str]:
        """Yield server-sent events for one client: everything at first, then what is new."""
        version, sent = 0, 0
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda seen=version: self.version > seen)  # type: ignore[misc]
            version, records = self.version, self.run.records
            first = sent if sent <= len(records) else 0  # another run has taken its place
            news = self.run.status | {"first": first, "records": records[first:]}
            sent = len(records)
            yield f"data: {json.dumps(news)}\n\n"


class Guard:
    """Refuses whoever lacks the token, and requests that come from another page.

    Args:
        app: what is guarded.
        token: secret of those who may look, and stop the run.
        cookie: name of the cookie that keeps the token.
        proxied: whether a proxy stands before the page, which says by `X-Forwarded-Host` where the browser came to.
    """

    def __init__(self, app: ASGIApp, token: str, cookie: str, proxied: bool) -> None:
        self.app, self.token, self.cookie = app, token, cookie
        self.own = ("host", "x-forwarded-host") if proxied else ("host",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused, or pass it on."""
        if scope["type"] == "http":
            request = Request(scope)
            # Both count: the cookie may be that of an earlier server on this port.
            given = request.query_params.get("token", ""), request.cookies.get(self.cookie, "")
            if not any(secrets.compare_digest(text.encode(), self.token.encode()) for text in given):
                refusal = PlainTextResponse("Open the address that cryogan watch printed, with its token.\n", 403)
                return await refusal(scope, receive, send)
            origin = request.headers.get("origin")
            if origin is not None and urlsplit(origin).netloc not in map(request.headers.get, self.own):
                return await PlainTextResponse("This request comes from another page.\n", 403)(scope, receive, send)
        await self.app(scope, receive, send)


class Pages:
    """What is answered under each address.

    Args:
        run: the run to show.
        token: secret of those who may look, and stop the run.
        cookie: name of the cookie that keeps the token.
        prefix: path under which a proxy shows the page; empty: there is none.
    """

    def __init__(self, run: Watched, token: str, cookie: str, prefix: str) -> None:
        self.run, self.token, self.cookie, self.prefix = run, token, cookie, prefix
        self.feed = Feed(run)

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Follow the run as long as the server runs."""
        tasks = [asyncio.create_task(task) for task in (self.feed.follow(), self.feed.compare())]
        yield
        for task in tasks:
            task.cancel()

    def page(self, request: Request) -> Response:
        """Return the page itself, with the cookie that keeps the token; other pages of a proxy do not get it."""
        response = FileResponse(
            PAGE / self.run.page, headers={"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        )
        encrypted = request.headers.get("x-forwarded-proto") == "https"
        path = f"{self.prefix}/"
        response.set_cookie(self.cookie, self.token, path=path, secure=encrypted, httponly=True, samesite="strict")
        return response

    def static(self, request: Request) -> Response:
        """Return a script or style sheet of the page."""
        return _file(STATIC.get(request.path_params["name"]))

    def events(self, _: Request) -> Response:
        """Return the stream of news, which a proxy must not collect."""
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self.feed.events(), media_type="text/event-stream", headers=headers)

    def figure(self, request: Request) -> Response:
        """Return a picture of the run."""
        return _file(self.run.figures().get(request.path_params["name"]))

    def volume(self, request: Request) -> Response:
        """Return a half map in 8 bits; its box and range are in the headers."""
        half, pair = request.path_params["half"], self.run.maps().get(request.path_params["name"])
        if pair is None or half not in (1, 2):
            return Response(status_code=404)
        path = pair[half - 1]
        voxels, box, low, high = read_bytes(path, path.stat().st_mtime_ns)
        headers = {"X-Box": str(box), "X-Low": repr(low), "X-High": repr(high), "Cache-Control": "max-age=3600"}
        return Response(voxels, media_type="application/octet-stream", headers=headers)

    def stop(self, _: Request) -> Response:
        """Ask the run to stop."""
        try:
            asked = self.run.request_stop()
        except OSError as error:
            return PlainTextResponse(f"Cannot ask the run to stop: {error}.", 500)
        return Response(status_code=204) if asked else PlainTextResponse("It is not running.", 409)


def _file(path: Path | None) -> Response:
    return FileResponse(path, headers={"Cache-Control": "no-cache"}) if path else Response(status_code=404)


def application(run: Watched, token: str, cookie: str, prefix: str = "") -> Starlette:
    """Make the web application that shows a run.

    Args:
        run: the run to show.
        token: secret of those who may look, and stop the run.
        cookie: name of the cookie that keeps the token.
        prefix: path under which a proxy shows the page, whether it passes the path on whole or without the prefix.
    """
    pages = Pages(run, token, cookie, prefix)
    routes = [
        Route("/", pages.page),
        Route("/events", pages.events),
        Route("/static/{name}", pages.static),
        Route("/figures/{name}", pages.figure),
        Route("/maps/{half:int}/{name}", pages.volume),
        Route("/stop", pages.stop, methods=["POST"]),
    ]
    guard = Middleware(Guard, token=token, cookie=cookie, proxied=bool(prefix))
    mounted = [Mount(prefix, routes=routes)] if prefix else []
    return Starlette(routes=[*mounted, *routes], middleware=[guard], lifespan=pages.lifespan)


@contextmanager
def listening(run: Path, host: str, port: int, prefix: str) -> Iterator[Callable[[], None]]:
    """Listen on an address, and print that of the page.

    Args:
        run: folder of a run, or of `cryogan live`.
        host: address to listen on.
        port: 0 takes a free one.
        prefix: path under which a proxy shows the page.

    Yields:
        What serves the page until Ctrl-C.

    Raises:
        InputError: the folder is not that of a run, the address cannot be listened on, or the prefix or the token is
            not usable.
    """
    watched: Watched = WatchedLive(run) if LiveFolder(run).is_live else WatchedRun(run)
    token, prefix = _token(), _prefix(prefix)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.create_server(address[:2], family=family)
    except OSError as error:
        raise InputError(f"Cannot listen on {host}, port {port} ({error.strerror}). Give another --port.") from error
    port = server.getsockname()[1]
    app = application(watched, token, f"cryogan_{port}", prefix)
    place = socket.gethostname() if ip_address(address[0]).is_unspecified else host
    own = f"http://[{place}]:{port}" if ":" in place else f"http://{place}:{port}"
    proxied = f"; through a proxy, its address in the place of {own}" if prefix else ""
    end = watched.end_of_page
    print(f"Watch {run} at {own}{prefix}/?token={token} ({end}{proxied})", flush=True)
    # Streams of events never end by themselves: one second, then they are cut.
    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    with server:
        yield lambda: uvicorn.Server(config).run(sockets=[server])


def serve(run: Path, host: str, port: int, prefix: str) -> None:
    """Serve the page of a run until Ctrl-C, see `cryogan.watch.watch`."""
    with listening(run, host, port, prefix) as serve_page, suppress(KeyboardInterrupt):
        serve_page()


def serve_in_background(run: Path, host: str, port: int, prefix: str) -> None:
    """Serve the page in a thread that ends with the process; arguments and errors as for `listening`."""
    stack = ExitStack()
    serve_page = stack.enter_context(listening(run, host, port, prefix))
    threading.Thread(target=serve_page, daemon=True).start()
    atexit.register(stack.close)


def _token() -> str:
    """Return the secret that the portal of a facility has given, or a new one."""
    given = os.environ.get(TOKEN_VARIABLE)
    if given is not None and not re.fullmatch(r"[A-Za-z0-9_-]{16,}", given):
        raise InputError(f"{TOKEN_VARIABLE} needs 16 or more letters, digits, - and _. Set another, or none.")
    return given or secrets.token_urlsafe(16)


def _prefix(given: str) -> str:
    """Return the path under which a proxy shows the page, without the last slash."""
    prefix = given.rstrip("/")
    if prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", prefix):
        raise InputError(f"--prefix {given} is not a path of an address. Give it as in --prefix /node/HOST/PORT.")
    return prefix
