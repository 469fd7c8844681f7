"""Batch scripts for Slurm: what they ask for, and whether they do it, with stand-ins and with Slurm itself."""

import contextlib
import json
import operator
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cryogan.cli import main
from processes import free_port

TINY = (
    "--symmetry D2 --max-shift 4 --orientations 800 --search-steps 40 --search-batch 50 --starts 1 --marching-steps 1 "
)
TINY += "--marching-images 200 --checkpoint-minutes 1e-6"
LONG = TINY.replace("--search-steps 40", "--search-steps 150").replace("1e-6", "1000")  # no checkpoint but the last
# Starts all tasks at once and returns, as Slurm does; leaves the process and the exit code of each.
SBATCH = """#!/bin/bash
job=$(realpath "${@: -1}")
cd "$(dirname "$0")"
echo "$@" > arguments
[ -e refuse ] && { echo "sbatch: error: invalid partition" >&2; exit 1; }
export SLURM_JOB_ID=7 SLURM_ARRAY_JOB_ID=7 SLURM_CPUS_PER_TASK=1
export SLURM_NTASKS=$(sed -n 's/^#SBATCH --ntasks=//p' "$job")
tasks=$(seq 0 "$(sed -n 's/^#SBATCH --array=0-//p' "$job")")
case $1 in --array=*) tasks=${1#*=} ;; esac
for task in $tasks; do
    rm -f "code$task"
    (SLURM_ARRAY_TASK_ID=$task setsid bash "$job" & echo $! > "process$task"; wait $!; echo $? > "code$task"
    ) > "said$task" 2>&1 < /dev/null &
done
echo "7;cluster"
"""
# Passes SIGUSR1 on, kills its tasks at SIGTERM, and the others when one ends badly; leaves the process of each rank.
# Begun by a shell, because the path of Python may hold a blank; to Python the lines for the shell are a string.
SRUN = f"""#!/bin/sh
'''exec' "{sys.executable}" "$0" "$@"
' '''
import os, signal, subprocess, sys, time
from pathlib import Path

here, options = Path(sys.argv[0]).parent, [option for option in sys.argv[1:] if option.startswith("--")]
assert options[:3] == ["--cpus-per-task=1", "--kill-on-bad-exit=1", "--wait=0"]
tasks, codes, size = [], dict(), os.environ["SLURM_NTASKS"]

def send(number):
    for task in tasks:
        task.send_signal(number)

signal.signal(signal.SIGUSR1, lambda *_: send(signal.SIGUSR1))
signal.signal(signal.SIGTERM, lambda *_: send(signal.SIGKILL))
step = dict(SLURM_STEP_NUM_TASKS=size, SLURM_STEP_ID="0", SLURM_STEP_NODELIST="localhost")
for rank in range(int(size)):
    place = dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank))
    tasks.append(subprocess.Popen(sys.argv[4:], env=os.environ | step | place))
    (here / f"rank{{rank}}").write_text(str(tasks[-1].pid))
while len(codes) < len(tasks):
    time.sleep(0.02)
    for rank, task in enumerate(tasks):
        if rank not in codes and task.poll() is not None:
            codes[rank] = task.returncode if task.returncode >= 0 else 128 - task.returncode
            if codes[rank] > 0:
                send(signal.SIGKILL)
sys.exit(max(codes.values()))
"""


@pytest.fixture
def slurm_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of sbatch, srun and scontrol, the first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", '#!/bin/bash\necho "$@" >> "$0.said"\n')):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def submitted(particles: Path, out: Path, *options: object, settings: str = TINY) -> None:
    inputs = [particles / "particles.star", "--noise", particles / "noise.star", "--out", out]
    main(["submit", *map(str, inputs), *settings.split(), *map(str, options)])


def wait_until(reached: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < end, f"not reached: {what}"
        time.sleep(0.05)


def steps_of(run: Path) -> dict[int, int]:
    """The last step of each half."""
    log = run / "progress.jsonl"
    lines = log.read_text().splitlines(True) if log.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return {record["half"]: int(record["step"]) for record in records}


def test_a_script_says_what_it_asks_for(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a folder"
    submitted(
        *(particles, out, "--seeds", 3, 14, "--print", "--partition", "long", "--sbatch=--qos=low", "--no-augment"),
        *("--cache", tmp_path / "cropped"),
    )
    script = capsys.readouterr().out
    assert not out.exists()
    asked = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert {"--array=0-1", "--cpus-per-task=2", "--partition=long", "--qos=low", "--requeue"} <= set(asked)
    assert f"--output='{out}/slurm-%A_%a.out'" in asked
    assert re.search(r"--mem=[1-9]\d*G", script)
    assert re.search(r"--time=[1-9]\d*\n", script)
    assert "seeds=(3 14)" in script
    assert "--no-augment" in script
    assert f"--cache {tmp_path / 'cropped'}" in script
    assert not (tmp_path / "cropped").exists()  # it is made by the job
    assert "--max-shift 4.0" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_a_script_asks_for_what_each_process_needs(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--processes", 8, "--cpus", 3, "--device", "cuda", "--gpus", 1, "--print"]
    submitted(particles, tmp_path / "out", *options, "--mem", "8G")
    script = capsys.readouterr().out
    asked = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    assert {"--ntasks=8", "--cpus-per-task=3", "--gpus-per-task=1", "--mem-per-cpu=2731M"} <= set(asked)
    assert not any(option.startswith("--mem=") for option in asked)  # of a node, and nobody knows how many
    assert "{ exec srun --cpus-per-task=3 --kill-on-bad-exit=1 --wait=0 " in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    submitted(particles, tmp_path / "out", *options)
    estimated = re.search(r"--mem-per-cpu=(\d+)M", capsys.readouterr().out)
    assert estimated is not None
    assert 200 < int(estimated[1]) < 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--processes", "3"], "--processes 3 cannot be shared out to two half maps"),
        (["--processes", "0"], "--processes 0 cannot be shared out"),
        (["--processes", "102"], "Start at most 100 processes"),
        (["--processes", "2", "--device", "cuda", "--gpus", "2"], "each process has one GPU. Give --gpus 1"),
        (["--processes", "2", "--device", "cuda"], "--gpus and --device cuda go together"),
        (["--processes", "2", "--mem", "half"], "--mem half is no size"),
        (["--seeds", "1", "1"], "--seeds needs different numbers"),
        (["--seeds", "1", "--seed", "1"], "not both"),
        (["--gpus", "1"], "--gpus and --device cuda go together"),
        (["--box", "17"], "box of 17 pixels is not possible"),
        (["--aperture-diameter", "70"], "--focal-length"),
        (["--preset", "papr"], "Unknown preset"),
    ],
)
def test_bad_input_is_not_submitted(
    options: list[str],
    message: str,
    particles: Path,
    tmp_path: Path,
    slurm_stand_in: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        submitted(particles, tmp_path / "out", *options)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert not (slurm_stand_in / "arguments").exists()


def test_a_job_that_is_refused_leaves_nothing(
    particles: Path, tmp_path: Path, slurm_stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (slurm_stand_in / "refuse").touch()
    with pytest.raises(SystemExit) as ended:
        submitted(particles, tmp_path / "out")
    assert ended.value.code == 2
    assert "sbatch refuses the job (sbatch: error: invalid partition)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_slurm_nothing_is_written(
    particles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        submitted(particles, tmp_path / "out")
    assert ended.value.code == 2
    assert "There is no sbatch here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_each_seed_is_a_run_that_survives_preemption(
    particles: Path, tmp_path: Path, slurm_stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def end_of(task: int, number: signal.Signals | None) -> int:
        """Send a signal when both halves have made a step, and wait for the exit code."""
        run, code = out / f"seed{seeds[task]}", slurm_stand_in / f"code{task}"
        if number is not None:
            wait_until(lambda: code.exists() or len(steps_of(run)) == 2, f"a step of {run}")
            os.kill(int((slurm_stand_in / f"process{task}").read_text()), number)
        wait_until(lambda: code.exists() and code.read_text() != "", f"the end of {run}")
        return int(code.read_text())

    out, seeds = tmp_path / "jobs", (5, 2)
    submitted(particles, out, "--seeds", *seeds)
    assert "job 7" in capsys.readouterr().out
    requeued = slurm_stand_in / "scontrol.said"
    assert end_of(1, signal.SIGTERM) == 130
    assert not requeued.exists()  # or scancel would not end it
    assert end_of(0, signal.SIGUSR1) == 130
    assert requeued.read_text() == "requeue 7_0\n"
    for seed in seeds:
        assert tomllib.loads((out / f"seed{seed}" / "run.toml").read_text())["settings"]["seed"] == seed
        assert all((out / f"seed{seed}" / f"half{half}.pt").exists() for half in (1, 2))
        assert not (out / f"seed{seed}" / "map.mrc").exists()

    subprocess.run(["sbatch", "--array=0", str(out / "job.sh")], check=True, capture_output=True)
    assert end_of(0, None) == 0
    assert (out / "seed5" / "map.mrc").exists()


def test_no_process_leaves_before_all_have_written(
    particles: Path, tmp_path: Path, slurm_stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    run, code = tmp_path / "jobs" / "seed0", slurm_stand_in / "code0"
    submitted(particles, run.parent, "--processes", 4, "--cpus", 1, settings=LONG)
    wait_until(lambda: code.exists() or len(steps_of(run)) == 2, "a step of both halves")
    late = int((slurm_stand_in / "rank2").read_text())  # it writes for half 2
    os.kill(late, signal.SIGSTOP)
    os.kill(int((slurm_stand_in / "process0").read_text()), signal.SIGUSR1)
    wait_until((run / "half1.pt").exists, "the checkpoint of half 1")
    time.sleep(3)  # enough for its processes to leave, if they did
    with contextlib.suppress(ProcessLookupError):
        os.kill(late, signal.SIGCONT)
    wait_until(lambda: code.exists() and code.read_text() != "", "the end")
    assert (run / "half2.pt").exists()
    assert int(code.read_text()) in (130, 137)  # srun's: that of rank 0, or of one that it killed after that
    assert (slurm_stand_in / "said0").read_text().count("Stopped. Go on with") == 1
    assert (slurm_stand_in / "scontrol.said").read_text() == "requeue 7_0\n"


SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Slurm's controller and one node on this machine, with a configuration of their own."""
    programs = [
        shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in ("munged", "slurmctld", "slurmd")
    ]
    if None in programs or os.getuid() != 0:
        pytest.skip("needs root, and munged, slurmctld and slurmd (Debian: slurmctld slurmd slurm-client munge)")
    munged, slurmctld, slurmd = map(str, programs)
    folder = tmp_path / "slurm"
    for name in ("", "state", "spool"):
        (folder / name).mkdir()
    for parent in (folder, *folder.parents[:3]):  # munged wants its socket to be in reach of all
        parent.chmod(0o755)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        SLURM_CONF.format(
            host=socket.gethostname().split(".")[0],
            folder=folder,
            controller=free_port(),
            node=free_port(),
            cores=len(os.sched_getaffinity(0)),
        )
    )
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    files = {
        "key-file": "munge.key",
        "socket": "munge.socket",
        "pid-file": "pid",
        "log-file": "log",
        "seed-file": "seed",
    }
    commands = (
        [munged, "--force", "--foreground", *(f"--{name}={folder / file}" for name, file in files.items())],
        [slurmctld, "-D", "-f", str(configuration)],
        [slurmd, "-D", "-f", str(configuration)],
    )
    running = []
    try:
        for command in commands:
            with (folder / f"{Path(command[0]).name}.out").open("w") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(2)
        wait_until(lambda: "idle" in asked("sinfo", "--noheader", "--format=%T"), "a node that is idle")
        yield folder
        asked("scancel", "--full", "--signal=KILL", "--user=root")  # what a test that failed has left
        wait_until(lambda: not asked("squeue", "--noheader", "--states=running,completing"), "the end of all jobs")
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=60)


def asked(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def let_begin(task: str) -> None:
    """Begin a task that is queued again before its two minutes are over.

    Not in the second in which it was ended, though: then slurmd takes the new credential for the old one, and refuses.
    """
    time.sleep(3)
    subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_slurm_runs_cancels_and_requeues(particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "jobs"
    submitted(particles, out, "--seeds", 5, 2, "--cpus", 1, "--mem", "1500M")
    found = re.search(r"job (\d+)", capsys.readouterr().out)
    assert found is not None
    job = found[1]

    def states() -> str:
        return asked("squeue", "--noheader", "--job", job, "--array", "--states=all", "--format=%K %T %r")

    wait_until(lambda: len(steps_of(out / "seed5")) == 2, "a step of the first task")
    wait_until(lambda: len(steps_of(out / "seed2")) == 2, "a step of the second task")
    # Preempted: Slurm ends the task and queues it again.
    subprocess.run(["scontrol", "requeue", f"{job}_0"], check=True)
    subprocess.run(["scancel", f"{job}_1"], check=True)
    wait_until(lambda: "1 CANCELLED" in states() and "0 PENDING" in states(), "one cancelled, one pending")
    assert "Go on with" in (out / "seed2" / "log.txt").read_text()
    assert all((out / f"seed{seed}" / f"half{half}.pt").exists() for seed in (5, 2) for half in (1, 2))
    let_begin(f"{job}_0")
    wait_until(lambda: "0 COMPLETED" in states(), "the first task done")
    assert (out / "seed5" / "map.mrc").exists()
    assert not (out / "seed2" / "map.mrc").exists()

    # The warning before the time limit: a checkpoint, and the queue. Only what is not finished is submitted anew.
    last = steps_of(out / "seed2")
    again = asked("sbatch", "--parsable", "--array=1", str(out / "job.sh")).strip()
    wait_until(lambda: steps_of(out / "seed2") != last, "a step of the second task, resumed")
    subprocess.run(["scancel", "--batch", "--signal=USR1", f"{again}_1"], check=True)
    output = out / f"slurm-{again}_1.out"
    wait_until(lambda: "queued again" in output.read_text(), "the warning")
    wait_until(lambda: "PENDING" in asked("squeue", "--noheader", f"--job={again}", "--format=%T"), "the queue")
    let_begin(f"{again}_1")
    wait_until((out / "seed2" / "map.mrc").exists, "the second task done")


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_slurm_stops_several_processes_and_goes_on(
    particles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "jobs" / "seed0"
    submitted(particles, run.parent, "--processes", 2, "--cpus", 1, "--mem", "1500M", settings=LONG)
    found = re.search(r"job (\d+)", capsys.readouterr().out)
    assert found is not None
    task = f"{found[1]}_0"

    def state() -> str:
        return asked("squeue", "--noheader", f"--job={task}", "--states=all", "--format=%T").strip()

    def written() -> list[int]:
        return [file.stat().st_mtime_ns for file in sorted(run.glob("half?.pt"))]

    def output() -> str:
        return "".join(file.read_text() for file in run.parent.glob("slurm-*.out"))

    def stop(then: str, *command: str) -> None:
        """Give the command when both halves have gone on for a step; both end with a checkpoint."""
        last, before, times = steps_of(run), written() or [0, 0], output().count("Stopped. Go on with")
        wait_until(lambda: all(steps_of(run).get(half, 0) > last.get(half, 0) for half in (1, 2)), f"a step, {then}")
        subprocess.run(command, check=True)
        wait_until(lambda: state() == then, then)
        assert all(map(operator.gt, written(), before))
        assert output().count("Stopped. Go on with") == times + 1, output()

    stop("PENDING", "scontrol", "requeue", task)  # as preempted
    let_begin(task)
    stop("PENDING", "scancel", "--batch", "--signal=USR1", task)  # as out of time
    let_begin(task)
    stop("CANCELLED", "scancel", task)
    assert output().count("queued again") == 1
    task = asked("sbatch", "--parsable", str(run.parent / "job.sh")).strip()
    wait_until(lambda: state() == "COMPLETED", "the end")
    assert (run / "map.mrc").exists()
    assert "Device: cpu, 1 process for each half." in (run / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_srun_starts_the_processes_of_one_run(particles: Path, tmp_path: Path) -> None:
    def srun(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["srun", "--ntasks=4", "--overcommit", "--kill-on-bad-exit=1", sys.executable, "-m", "cryogan.cli"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command += ["reconstruct", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400, check=False)

    out = tmp_path / "run"
    bad = srun(tmp_path / "no.star", "--out", out)
    assert bad.returncode != 0  # srun's, for tasks that end with 2 or that it ends
    assert bad.stderr.count("no.star: cannot be read") == 1
    assert not out.exists()
    done = srun(
        particles / "particles.star", "--noise", particles / "noise.star", "--out", out, "--box", 16, *TINY.split()
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Half maps agree to") == 1
    assert "2 processes for each half" in (out / "log.txt").read_text()
    assert (out / "map.mrc").exists()
