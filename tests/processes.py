"""The command line in a process, for the tests that signal, kill or limit it."""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping


def cryogan(
    *arguments: object,
    largest_file: int | None = None,
    processes: int = 0,
    program: tuple[str, ...] = ("-m", "cryogan.cli"),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a shell starts it; with a limit on what it can write, bytes.

    Under torchrun if `processes` are asked for.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}") if processes else ()

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.Popen(
        [sys.executable, *torchrun, *program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
    )


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
