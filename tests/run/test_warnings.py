"""The registry of notes and warnings, and its table in the documentation."""

import runpy
from pathlib import Path

import pytest

from cryogan.errors import KINDS, Kind
from cryogan.run import warnings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_troubleshooting_page_has_each_kind() -> None:
    make = runpy.run_path(str(DOCS / "make_warnings.py"))
    text = (DOCS / "troubleshooting.md").read_text()
    assert make["page"](text) == text, "run: python docs/make_warnings.py"
    assert all(f"| `{code}` |" in text for code in KINDS)


def test_a_finding_has_the_values_of_its_sentence() -> None:
    finding = warnings.HALVES_DISAGREE(correlation=0.123, seed=5)
    assert finding.code == "halves-disagree"
    assert finding.severity == "error"
    assert finding.values == {"correlation": 0.123, "seed": 5}
    assert "correlation 0.12 after alignment" in finding.sentence
    assert finding.sentence.endswith(warnings.HALVES_DISAGREE.remedy)


def test_only_notes_are_no_doubts() -> None:
    findings = [warnings.HAND_UNKNOWN(), warnings.NO_NOISE(), warnings.HALVES_DISAGREE(correlation=0.5)]
    assert warnings.doubts(findings) == [finding.sentence for finding in findings[1:]]


def test_a_code_stands_for_one_thing() -> None:
    with pytest.raises(ValueError, match="hand-unknown"):
        Kind("hand-unknown", "note", "Something else.")
