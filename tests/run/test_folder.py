"""The folder of a run: its names, its records, and how it ended."""

import json
from pathlib import Path

from cryogan.run.folder import RunFolder


def test_a_record_that_was_cut_off_is_left_out(particles: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"half": 1, "step": step, "critic_gap": 1.0}) for step in (1, 2, 3)]
    # A disk that was full for a while, and a run that was killed.
    (tmp_path / "progress.jsonl").write_text(f"{lines[0]}\n{lines[1][:20]}{lines[1]}\n{lines[2]}\n{lines[0][:9]}")
    assert [record["step"] for record in RunFolder(tmp_path).records(1)] == [1, 3]
