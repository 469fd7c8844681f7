"""Commands that look at input and installation: check, doctor."""

from pathlib import Path
from typing import TYPE_CHECKING

from cryogan.cli.app import Answer, DataDir, Noise, app, examples
from cryogan.cli.flags import Config, Flags, Preset, chosen_settings

if TYPE_CHECKING:
    from cryogan.checking import Report


@app.command(
    name="check",
    help_epilogue=examples("cryogan check particles.star --picture particles.png", more=True),
)
def check_command(
    particles: Path,
    *,
    noise: Noise = None,
    data_dir: DataDir = None,
    picture: Path | None = None,
    preset: Preset = None,
    config: Config = None,
    settings: Flags = None,
) -> Answer:
    """Report what is in the particles, what a run takes, and likely problems.

    Args:
        particles: As for reconstruct, and so are the other arguments.
        picture: PNG of 16 particles to write.
    """
    from cryogan.checking import check

    chosen = chosen_settings(preset, config, settings)
    return _of_report(check(particles, chosen, noise, data_dir, picture))


@app.command(name="doctor", help_epilogue=examples("cryogan doctor", "cryogan doctor --json"))
def doctor_command() -> Answer:
    """Report on the installation: versions, devices, threads, disk."""
    from cryogan.checking import doctor

    return _of_report(doctor())


def _of_report(report: "Report") -> Answer:
    width = max(len(name) for name in report.facts)
    text = [f"{name:{width}s}  {fact}" for name, fact in report.facts.items()]
    text += [f"Warning: {doubt}" for doubt in report.doubts]
    findings = [vars(finding) for finding in report.findings]
    return Answer({"facts": report.facts, "doubts": report.doubts, "findings": findings}, text)
