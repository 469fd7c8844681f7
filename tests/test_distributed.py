"""Distributed runs: how the processes find each other, and whole runs under torchrun, with gloo."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cryogan.cli import main
from cryogan.errors import InputError
from cryogan.parallel.launch import Launch, first_host
from cryogan.particles import read_volume
from processes import cryogan, free_port

TINY = "--symmetry D2 --max-shift 4 --box 16 --orientations 300 --search-steps 30 --search-batch 50 --starts 1 "
TINY += "--marching-steps 1 --marching-images 200 --checkpoint-minutes 1e-6"
SRUN = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
# Runs the command in a process whose memory holds a few images only.
SHORT = """
import torch
from cryogan.critics.matching.templates import TemplateBank
from cryogan.cli import main

def limited(self, images, whole=TemplateBank.log_likelihood_ratios):
    if len(images) > {most}:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return whole(self, images)

TemplateBank.log_likelihood_ratios = limited
main()
"""
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_the_launcher_is_found() -> None:
    assert Launch.detect(TORCHRUN) == Launch(1, 4, 1, "localhost", 29500)
    step = Launch.detect(SRUN)
    assert step is not None
    assert (step.rank, step.size, step.local_rank, step.address) == (5, 8, 1, "gpu07")
    assert Launch.detect(SRUN | {"SLURM_PROCID": "0"}) == Launch(0, 8, 1, "gpu07", step.port)
    others = [Launch.detect(SRUN | change) for change in ({"SLURM_JOB_ID": "1235"}, {"SLURM_STEP_ID": "1"})]
    assert len({launch.port for launch in [step, *others] if launch is not None}) == 3
    assert Launch.detect(SRUN | {"MASTER_ADDR": "here", "MASTER_PORT": "5"}) == Launch(5, 8, 1, "here", 5)


@pytest.mark.parametrize(
    "environment", [{}, {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, SRUN | {"SLURM_STEP_NUM_TASKS": "1"}]
)
def test_without_a_launcher_there_is_none(environment: Mapping[str, str]) -> None:
    assert Launch.detect(environment) is None  # a batch script is not a step of srun


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node3", "node3"),
        ("node3,node4", "node3"),
        ("node[003-005,9],gpu1", "node003"),
        ("n-1-[7,9]", "n-1-7"),
        ("rack[2-3]-[10-12]", "rack2-10"),
    ],
)
def test_the_first_host_of_slurms_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_lower_ranks_work_on_half_1() -> None:
    assert [Launch(rank, 6, 0, "", 0).half for rank in range(6)] == [1, 1, 1, 2, 2, 2]
    Launch(0, 6, 0, "", 0).require_two_halves()
    with pytest.raises(InputError, match="1 process cannot be shared out"):
        Launch(0, 1, 0, "", 0).require_two_halves()


@pytest.mark.parametrize("arguments", ["", "--bogus 1"])
@pytest.mark.parametrize("rank", [0, 2])
def test_what_all_processes_refuse_is_said_by_one(
    rank: int,
    arguments: str,
    particles: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (TORCHRUN | {"RANK": str(rank), "WORLD_SIZE": "3"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["reconstruct", str(particles / "particles.star"), "--out", str(tmp_path / "out"), *arguments.split()])
    assert ended.value.code == 2
    output = capsys.readouterr().err
    if rank > 0:
        assert output == ""
    else:
        assert ("bogus" if arguments else "3 processes cannot be shared out to two half maps") in output
    assert not (tmp_path / "out").exists()


def inputs(particles: Path) -> list[object]:
    return ["reconstruct", particles / "particles.star", "--noise", particles / "noise.star", *TINY.split()]


def ended(process: subprocess.Popen[str]) -> str:
    """What a process says until its end."""
    _, err = process.communicate(timeout=300)
    return err


def wait_for_a_record(run: Path, process: subprocess.Popen[str], half: int) -> None:
    end, log = time.monotonic() + 240, run / "progress.jsonl"
    while time.monotonic() < end and process.poll() is None:
        if log.exists() and f'{{"half": {half}' in log.read_text():
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"no progress: {process.communicate()[1]}")


def process_of_rank(launcher: subprocess.Popen[str], rank: int) -> int:
    for task in Path(f"/proc/{launcher.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
                return int(child)
    raise AssertionError(f"no process of rank {rank}")


def ranks(count: int, *arguments: object, short: dict[int, int] | None = None) -> list[subprocess.Popen[str]]:
    """Processes that no launcher looks after; memory is short in those given, by how many images it holds."""
    place = TORCHRUN | {"WORLD_SIZE": str(count), "MASTER_PORT": str(free_port())}
    started = []
    for rank in range(count):
        most = (short or {}).get(rank)
        program = ("-m", "cryogan.cli") if most is None else ("-c", SHORT.format(most=most))
        environment = place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.append(cryogan(*arguments, program=program, environment=environment))
    return started


def test_bad_input_is_said_once(particles: Path, tmp_path: Path) -> None:
    err = ended(process := cryogan("reconstruct", tmp_path / "no.star", "--out", tmp_path / "out", processes=2))
    assert process.returncode == 1  # torchrun's, for a process that ends with 2
    assert re.findall(r"^cryogan: .*", err, re.MULTILINE) == [
        f"cryogan: {tmp_path / 'no.star'}: cannot be read (No such file or directory). Check the path."
    ]
    assert "exitcode  : 2" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the processes of a job are found in /proc")
def test_a_killed_job_goes_on_with_other_processes(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cryogan(*inputs(particles), "--out", out, processes=4)
    wait_for_a_record(out, job, 1)
    os.kill(process_of_rank(job, 1), signal.SIGKILL)
    err = ended(job)
    assert job.returncode == 1
    assert len(re.findall("^cryogan: .*Another process of the job has ended", err, re.MULTILINE)) == 1
    assert "Another process of the job has ended" in (out / "log.txt").read_text()
    assert not (out / "map.mrc").exists()

    err = ended(job := cryogan("reconstruct", "--resume", out, processes=2))
    assert job.returncode == 0, err
    assert err.count("Half maps agree to") == 1
    assert read_volume(out / "map.mrc")[0].any()
    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines if line["half"] == 1} == set(range(1, 32))  # none left out


def test_a_process_that_waits_sees_that_another_was_killed(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = ranks(2, *inputs(particles), "--out", out)
    wait_for_a_record(out, first, 2)
    first.terminate()  # it writes its checkpoint, and waits for that of half 2
    second.kill()
    err = ended(first)
    second.communicate()
    assert first.returncode == 2, err
    assert "cryogan: Another process of the job has ended" in err
    assert (out / "half1.pt").exists()


def test_out_of_time_and_in_one_process_out_of_memory(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    all_four = ranks(4, *inputs(particles), "--out", out, "--max-minutes", 0.5001, short={1: 4})
    output = [ended(process) for process in all_four]
    assert [process.returncode for process in all_four] == [0] * 4, output
    assert output[0].count("Half 1 at box 16 ran out of memory and continues with 4 images at a time") == 1
    assert output[0].count("--max-minutes ended the run after") == 1
    assert output[1:] == [""] * 3
    assert read_volume(out / "map.mrc")[0].any()


@pytest.mark.slow
def test_a_process_without_memory_ends_the_job(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    all_four = ranks(4, *inputs(particles), "--out", out, short={3: 0})
    output = [ended(process) for process in all_four]
    assert [process.returncode for process in all_four] == [2] * 4, output
    assert output[3].startswith("cryogan: Rank 3 (half 2): Out of memory. Give a smaller --box")
    assert output[1:3] == ["", ""]
    assert "Out of memory" in (out / "log.txt").read_text()
    assert (out / "half1.pt").exists()


@pytest.mark.slow
def test_a_process_that_fails_says_why(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cryogan(*inputs(particles), "--out", out, processes=4)
    wait_for_a_record(out, job, 1)
    (out / "stop").touch()
    ended(job)
    checkpoint = out / "half2.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    err = ended(job := cryogan("reconstruct", "--resume", out, processes=4))
    assert job.returncode == 1
    (output,) = re.findall("^cryogan: .*", err, re.MULTILINE)
    assert re.fullmatch(rf"cryogan: Rank [23] \(half 2\): {checkpoint} is not a checkpoint .*", output)
    assert "half2.pt is not a checkpoint" in (out / "log.txt").read_text()


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(particles: Path, tmp_path: Path) -> None:
    runs = {processes: tmp_path / str(processes) for processes in (0, 2, 4)}
    for processes, out in runs.items():
        err = ended(process := cryogan(*inputs(particles), "--out", out, processes=processes))
        assert process.returncode == 0, err
    files = [sorted(str(file.relative_to(run)) for file in run.rglob("*")) for run in runs.values()]
    assert files[0] == files[1] == files[2]
    for half in (1, 2):
        volumes = [read_volume(run / f"half{half}_map_unfil.mrc")[0] for run in runs.values()]
        np.testing.assert_array_equal(volumes[0], volumes[1])  # one process for each half, either way
        # Rounding grows from step to step, where attention decides between views that are about as good.
        assert np.corrcoef(volumes[2].ravel(), volumes[0].ravel())[0, 1] > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("how", ["signal", "stop file"])
def test_a_stopped_job_goes_on_without_a_launcher(how: str, particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cryogan(*inputs(particles), "--out", out, processes=4)
    wait_for_a_record(out, job, 1)
    if how == "signal":
        job.send_signal(signal.SIGTERM)
    else:
        (out / "stop").touch()
    err = ended(job)
    assert "Traceback (most recent call last):\n  File" not in err.partition("torch")[0]
    assert f"Stopped. Go on with: cryogan reconstruct --resume {out}" in (out / "log.txt").read_text()
    assert err.count("Stopped. Go on with") == 1
    assert all((out / f"half{half}.pt").exists() for half in (1, 2))
    err = ended(job := cryogan("reconstruct", "--resume", out))
    assert job.returncode == 0, err
    assert (out / "map.mrc").exists()
