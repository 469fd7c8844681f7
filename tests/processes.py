"""The command line in a process, for the tests that signal, kill or limit it."""

import os
import resource
import subprocess
import sys


def cryogan(*arguments: object, largest_file: int | None = None, processes: int = 0) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a shell starts it; with a limit on what it can write, bytes.

    Under torchrun if `processes` are asked for.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}") if processes else ()

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.Popen(
        [sys.executable, *torchrun, "-m", "cryogan.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
