"""README.txt and report.html of a run: what each file is, what came out, and what to be careful about."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryogan.report.page import Page, write_page
from cryogan.run import warnings
from cryogan.run.folder import HALVES, RunFolder
from cryogan.run.handover import commands_of_run, next_commands, of_particles, resume_command, with_symmetry
from cryogan.run.plan import Plan
from cryogan.run.reslog import figure_path as reslog_figure
from cryogan.run.reslog import read_reslog
from cryogan.run.resolution import local_resolution_path, pictures
from cryogan.run.symmetry import FoundSymmetry, is_looked_for, read_symmetry
from cryogan.run.verdict import read_verdict
from cryogan.run.views import read_views

if TYPE_CHECKING:
    from cryogan.run.postprocess import Result

PICTURES = {
    "volume_over_time": "The map of half 1 during the run.",
    "fsc": "Fourier shell correlation of the half maps.",
    "fsc_over_time": "Fourier shell correlation of the half maps during the run.",
    "gallery": "Simulated images as they are built up, and particles: the last two rows should look alike.",
    "power_spectra": "Power spectra of simulated images and particles: they should agree.",
    "views": "From where the particles are seen, as learned with the map or as given, in the map's frame (views.star).",
    "projections_over_time": "Projections of the map during the run.",
    "progress": "What the critic says, and how much the map moves.",
}
EVIDENCE = {
    "held_out": "Held-out agreement by shell, and the FSC of the half maps.",
    "likeness": "Particles and images simulated from the other half's map: what tells them apart.",
}
NUMBERS = (
    "The resolution for a paper's table and for EMDB is that of the half maps (FSC 0.143, corrected for the mask in "
    "{mask}, whose curve is {fsc}); the verdict stands beside it, and says whether that number can be believed."
)


def write_readme(folder: RunFolder, plan: Plan) -> None:
    """Write `README.txt`, at the beginning of a run: what each file is, and the commands to go on.

    Args:
        folder: folder of the run.
        plan: plan of the run.
    """
    lines = [f"A run of CryoGAN on {plan.particle_count} {plan.settings.kind} of {plan.particles}.", ""]
    for when, files in _files(folder, plan).items():
        lines += [when, *(f"  {name}\n      {what}" for name, what in files.items()), ""]
    lines.append("Commands")
    lines += [f"  {command}\n      {what}" for command, what in commands_of_run(folder, plan).items()]
    folder.readme.write_text("\n".join(lines) + "\n")


def _files(folder: RunFolder, plan: Plan) -> dict[str, dict[str, str]]:
    """What each file is, by its name in the folder, and by when it is written."""

    def name(*paths: Path) -> str:
        return ", ".join(str(path.relative_to(folder.path)) for path in paths)

    running = {
        name(folder.record): "every setting, the inputs, versions, machine",
        name(folder.particles): f"the particles used, with _rlnRandomSubset: the halves{of_particles(plan)}",
        name(folder.progress): "the course, a line for each recorded step of each half",
        name(folder.log): "messages of the run, with times",
        name(folder.outcome_record): "how each half and the run ended",
        f"{name(folder.snapshots)}/": "maps of each half in its own frame, during the run and at its end (final)",
        name(*map(folder.checkpoint, HALVES)): "checkpoints, from which --resume goes on",
        name(folder.figure("gallery"), folder.figure("power_spectra")): "simulated and real images; should look alike",
    }
    done = {
        name(folder.report): "begin here: what came out, what to be careful about, next commands",
        name(folder.map): "the mean of the half maps, not sharpened",
        name(*folder.half_maps): "the half maps, in one frame",
        name(folder.mask): "soft mask around the molecule",
        name(local_resolution_path(folder)): "local resolution, A; only where the half maps agree well enough",
        name(folder.fsc_star, folder.fsc_csv, folder.fsc_xml): "FSC of the half maps; fsc.xml is for EMDB",
        name(folder.chimerax_script): "shows the maps in ChimeraX",
        f"{name(folder.figures)}/": "fsc, directions, local_resolution, volume_over_time, progress, ...",
    }
    if plan.mask is not None:
        running[name(folder.given_mask)] = "the mask that bounds the map, as it was given"
    if plan.is_picked and plan.settings.verdict:
        done[f"{name(folder.verdict)}/"] = "how far the map can be believed: verdict.json, and pictures of the evidence"
        if is_looked_for(plan):
            done[name(folder.symmetry_record)] = "the symmetry that the half maps have by themselves, if any"
    if plan.uneven_views:
        done[name(folder.views)] = "views and shifts, learned or given"
    if plan.settings.classes > 1:
        first = f"{name(folder.class_folder(1).path)}/, {name(folder.class_folder(2).path)}/, ..."
        done[first] = "maps, mask, FSC and particles of each class, largest first; map.mrc is the mean"
    return {"While it runs": running, "At its end": done}


def write_report(folder: RunFolder, plan: Plan, result: "Result") -> None:
    """Write `report.html`, one offline page.

    Args:
        folder: folder of the run.
        plan: plan of the run.
        result: result of the run.
    """
    record: dict[str, Any] = tomllib.loads(folder.record.read_text())
    verdict = read_verdict(folder)
    symmetry = read_symmetry(folder)
    findings = list(verdict.beside(result.map_findings)[1:] if verdict else result.map_findings)
    findings += symmetry.findings if symmetry else []
    summary = (
        f"{plan.particle_count} {plan.settings.kind}, two half maps from zero, box {plan.box} px of "
        f"{plan.pixel_size:.3f} A (Nyquist {2 * plan.pixel_size:.2f} A). "
        f"The half maps agree to {result.resolution:.2f} A (FSC 0.143, mask-corrected; "
        f"{result.resolution_unmasked:.2f} A unmasked)."
    )
    page = Page(
        title=f"CryoGAN: {plan.particles.name}",
        verdict=verdict.sentence if verdict else "",
        summary=summary,
        warnings=[finding.sentence for finding in findings if finding.code != warnings.CONVERGED.code],
        tables=_tables(folder, plan, result, record) | _symmetry_table(symmetry),
        pictures=[
            *((text, folder.figure(name)) for name, text in PICTURES.items()),
            *pictures(folder).items(),
            *((text, folder.verdict / f"{name}.png") for name, text in EVIDENCE.items()),
            ("Resolution by number of particles.", reslog_figure(folder)),
        ],
        next=(
            resume_command(folder)
            if result.convergence.finding.code == warnings.OUT_OF_TIME_IN_SEARCH.code
            else next_commands(folder, plan, result.resolution) | _again(folder, plan, symmetry)
        ),
        settings=record.get("settings", {}),
    )
    write_page(folder.report, page)


def _tables(folder: RunFolder, plan: Plan, result: "Result", record: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Facts by heading and name."""
    went_in = {
        "Particles": str(plan.particles),
        "Background patches": str(plan.noise or "none: Gaussian noise"),
        **({"Halves": plan.halves} if plan.halves else {}),
        "Symmetry": plan.settings.symmetry,
        **({"Bounded by": str(plan.settings.mask)} if plan.mask else {}),
        "Command": str(record.get("command", "")),
    }
    alignment, mask, verdict = result.alignment, result.mask, read_verdict(folder)
    came_out = {
        "FSC 0.143, corrected": f"{result.resolution:.2f} A",
        "FSC 0.143, unmasked": f"{result.resolution_unmasked:.2f} A",
        "For a table": NUMBERS.format(mask=folder.mask.name, fsc=folder.fsc_xml.name),
        **result.detail.facts,
        **({"More particles": reslog.sentence} if (reslog := read_reslog(folder)) else {}),
        "Correlation of the halves": f"{alignment.correlation:.3f} (mirrored {alignment.correlation_other_hand:.3f})",
        "Has it converged?": result.convergence.sentence,
        "Mask": f"{folder.mask.name}, soft, {mask.mean():.1%} of the box; it entered the corrected FSC",
        **_learned_poses(folder, plan),
        "Maps": f"{folder.map.name} (mean, not sharpened), {', '.join(path.name for path in folder.half_maps)}",
    }
    classes = {found.folder.name: found.sentence for found in result.classes}
    return {
        **({"Verdict": {"Verdict": verdict.finding.sentence, **verdict.sentences}} if verdict else {}),
        "What went in": went_in,
        "What came out": came_out,
        **({"Classes: all of the above is their weighted mean": classes} if classes else {}),
        "Made with": {name: str(version) for name, version in record.get("versions", {}).items()},
    }


def _symmetry_table(symmetry: FoundSymmetry | None) -> dict[str, Mapping[str, str]]:
    """The groups that half maps made without symmetry have, or nearly have, with their scores."""
    return {"Symmetry of the half maps, none imposed": symmetry.table} if symmetry and symmetry.table else {}


def _again(folder: RunFolder, plan: Plan, symmetry: FoundSymmetry | None) -> dict[str, str]:
    """The command that uses the symmetry, if one is suggested."""
    if symmetry is None or symmetry.suggested is None:
        return {}
    what = f"Again with the symmetry {symmetry.suggested}, if it is that of the molecule:"
    return {what: with_symmetry(folder, plan, symmetry.suggested)}


def _learned_poses(folder: RunFolder, plan: Plan) -> dict[str, str]:
    """What was learned of views and shifts, or given."""
    if not plan.uneven_views:
        return {}
    views = read_views(folder)
    learned = f"views up to {views.density.max():.1f} times the even density; shifts up to {views.shift_width:.1f} A"
    if views.prior_fit is None:
        return {"Poses": learned}
    prior = f"turned into the map's frame, correlation {views.prior_fit:.2f} with the views"
    return {"Poses": learned, "Prior of the views": prior}
