"""A page of a run in the browser: its state, its results, and a button that stops it."""

from pathlib import Path
from types import ModuleType

from cryogan.errors import InputError

__all__ = ["in_background", "watch"]


def watch(run: Path, host: str = "127.0.0.1", port: int = 8642, prefix: str = "") -> None:
    """Serve the page of a run until Ctrl-C; its address is printed.

    Args:
        run: folder of `cryogan reconstruct`, running or not.
        host: address to listen on.
        port: 0 takes a free one.
        prefix: path under which a proxy shows the page, such as `/node/HOST/PORT`.

    Raises:
        InputError: the web server is not installed, the folder is not that of a run, the address cannot be listened on,
            or the prefix is not a path.
    """
    _server().serve(run, host, port, prefix)


def in_background(run: Path, host: str, port: int, prefix: str) -> None:
    """Serve the page of `cryogan live` as long as this process runs; its address is printed. As `watch` otherwise."""
    _server().serve_in_background(run, host, port, prefix)


def _server() -> ModuleType:
    """Return the web server, which is an extra of the installation."""
    try:
        from cryogan.watch import server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise InputError(
            "The web server of cryogan watch is not installed. Install it with: python -m pip install 'cryogan[watch]'"
        ) from error
    return server
