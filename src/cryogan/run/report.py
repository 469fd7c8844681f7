"""The report of a finished run: what it was, what came of it, and what to be careful about, in plain words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryogan.grids import centred_radius
from cryogan.particles import read_star
from cryogan.report import Page, write_page
from cryogan.run.plan import RUN_FILE, VIEWS_FILE, Plan

if TYPE_CHECKING:
    from cryogan.validation import Alignment, FscCurves

SAME_FRAME = 0.8  # correlation of the aligned halves below which they are called different
OTHER_HAND = 0.05  # by which the chosen hand must be the better one
NEAR_BORDER = 0.9  # of the spherical mask's radius
TIGHT = 0.02  # share of the solvent mask beyond it
RARE, RARE_SHARE = 0.25, 0.05  # of an even coverage by views, and of all frequencies
PRIOR_FITS = 0.5  # correlation with the views below which a prior seems to be another's
LAST_PART = 0.1  # of a run's work, over which the map should stand still
STILL_MOVING = 0.05  # change of the map a step, of its norm
STILL_GAINING = 0.5  # shells of FSC from one snapshot to the next
COARSE_SHELLS = 8  # an FSC that ends before shell 8 says little more than the envelope

_FILES = {
    "While it runs": {
        "run.toml": "every setting, the inputs, versions, machine",
        "particles.star": "the particles used, with _rlnRandomSubset: the halves",
        "progress.jsonl": "the course, a line for each recorded step of each half",
        "log.txt": "what was said",
        "snapshots/": "maps of both halves during the run",
        "half1.pt, half2.pt": "checkpoints, from which --resume goes on",
        "figures/gallery.png, figures/power_spectra.png": "simulated and real images; should look alike",
    },
    "At its end": {
        "report.html": "begin here: what came out, what to be careful about, next commands",
        "map.mrc": "the mean of the half maps, not sharpened",
        "half1_map_unfil.mrc, half2_map_unfil.mrc": "the half maps, in one frame",
        "mask.mrc": "soft mask around the molecule",
        "fsc.star, fsc.csv, fsc.xml": "FSC of the half maps; fsc.xml is for EMDB",
        "open.cxc": "shows the maps in ChimeraX",
        "figures/": "fsc, fsc_over_time, volume_over_time, projections_over_time, progress",
    },
}
_PICTURES = {
    "volume_over_time": "The map of half 1 during the run.",
    "fsc": "Fourier shell correlation of the half maps.",
    "fsc_over_time": "The same during the run.",
    "gallery": "Simulated images as they are built up, and particles: the last two rows should look alike.",
    "power_spectra": "Power spectra of simulated images and particles: they should agree.",
    "views": "From where the particles are seen, as learned with the map or as given, in the map's frame (views.star).",
    "projections_over_time": "Projections of the map during the run.",
    "progress": "What the critic says, and how much the map moves.",
}


@dataclass(frozen=True)
class Convergence:
    """Whether a run was at its end, and the sentence that says so."""

    reached: bool
    sentence: str


def judge_convergence(
    plan: Plan, courses: Sequence[Sequence[Mapping[str, float]]], agreement: Mapping[int, np.ndarray]
) -> Convergence:
    """Whether the map stood still at the end of the run, and the halves no longer came closer.

    Args:
        plan: of the run.
        courses: each half's records, by step.
        agreement: FSC of the half maps, (D // 2 + 1,) with NaN beyond a coarse box, by step.
    """
    last = min(int(course[-1]["step"]) for course in courses)
    if last < plan.total_steps:
        return Convergence(
            False,
            f"Not converged: --max-minutes ended the run after {last} of {plan.total_steps} steps; give it more time.",
        )
    late = [r["map_change"] for course in courses for r in course if plan.work(int(r["step"])) > 1 - LAST_PART]
    change = float(np.mean(late))
    gain, said = 0.0, ""
    if len(agreement) > 1:
        before, after = list(agreement)[-2:]
        gain = float(np.nansum(agreement[after]) - np.nansum(agreement[before]))
        said = f", and the half maps' FSC {'grew' if gain > -0.05 else 'fell'} by {abs(gain):.1f} shells over the last "
        said += f"{1 - plan.work(before):.0%}"
    reached = change <= STILL_MOVING and gain <= STILL_GAINING
    more = f"--{plan.critic.longer_setting.replace('_', '-')}"
    return Convergence(
        reached,
        f"{'Converged' if reached else 'Not converged'}: over the last {LAST_PART:.0%} of the run's work the map "
        f"changed by {change:.1%} a step{said}{'.' if reached else f'; more {more} may help.'}",
    )


def warn(plan: Plan, alignment: Alignment, curves: FscCurves, mask: np.ndarray, resolution: float) -> list[str]:
    """What a reader should know before believing the map, a sentence or two each."""
    said = [
        "The hand is unknown: projections of a map and of its mirror image look alike. Decide when helices can be "
        "seen, and mirror the map with cryogan flip-hand if need be."
    ]
    if alignment.correlation < SAME_FRAME:
        said.append(
            f"The half maps disagree (correlation {alignment.correlation:.2f} after alignment): at least one of them "
            "is wrong. Do not use this map. Run again with another --seed or more --starts."
        )
    elif alignment.correlation - alignment.correlation_other_hand < OTHER_HAND:
        said.append(
            "Half 2 fits half 1 almost as well mirrored: at this resolution the halves may be of different hands, and "
            "their mean blurred."
        )
    if resolution > plan.box * plan.pixel_size / COARSE_SHELLS:
        said.append(
            f"The half maps agree only to {resolution:.0f} A, little more than the outline. Two halves can agree on a "
            "wrong outline; run a second seed and compare."
        )
    radius = centred_radius(plan.box, axes=3) * plan.pixel_size
    beyond = float(mask[radius > NEAR_BORDER * plan.mask_radius].sum() / mask.sum())
    if beyond > TIGHT:
        said.append(
            f"{beyond:.0%} of the molecule lies at the border of the spherical mask: the box may be too tight. "
            "Extract the particles with a larger box."
        )
    low = curves.unmasked[1 : plan.box // 8]
    if len(low) and low.min() < 0.5:
        said.append(
            "The FSC dips at low frequencies; look for a second structure or many false particles (--classes 2), or a "
            "wrong pixel size."
        )
    return said


def warn_of_views(coverage: np.ndarray) -> list[str]:
    """Of frequencies that few views hold; `coverage` as in views.star."""
    rare = float((coverage < RARE).mean())
    if rare < RARE_SHARE:
        return []
    return [
        f"Views are missing: {rare:.0%} of all directions of frequencies are in less than {RARE:.0%} of the views that "
        "an even distribution would give them, and the map is smeared there. More particles of rare views help, or "
        "micrographs of a tilted stage."
    ]


def warn_of_prior(fit: float) -> list[str]:
    """Of a prior on the views, --pose-prior, that is not theirs however it is turned; `fit` as in views.star."""
    if fit >= PRIOR_FITS:
        return []
    return [
        f"The prior on the views does not fit the particles however it is turned (correlation {fit:.2f}): it is of "
        "another molecule or grid, or the map is wrong. Run again without --pose-prior, or with --learn-poses."
    ]


def write_readme(folder: Path, plan: Plan) -> None:
    """`README.txt` of a run's folder, from its beginning: what each file is, and the commands to go on."""
    lines = [f"A run of CryoGAN on {plan.particle_count} {plan.settings.kind} of {plan.particles}.", ""]
    learned = {"views.star": "views and shifts, learned or given"} if plan.uneven_views else {}
    if plan.settings.classes > 1:
        learned["class1/, class2/, ..."] = (
            "maps, mask, FSC and particles of each class, largest first; map.mrc is the mean"
        )
    for when, files in (_FILES | {"At its end": _FILES["At its end"] | learned}).items():
        lines += [when, *(f"  {name}\n      {what}" for name, what in files.items()), ""]
    lines += [
        "Commands",
        f"  cryogan reconstruct --resume {folder}",
        "      go on, if it was stopped before its end",
        f"  cryogan watch {folder}",
        "      a page of it in the browser, also while it runs; with a button that stops it",
        f"  cryogan figures {folder}",
        "      compare the halves again; report and figures anew",
    ]
    if plan.settings.particles_per_um2 is None:
        lines += [
            f"  cryogan refine {folder}",
            "      poses, and a sharper map with them, in refined/",
            f"  cryogan poses {folder}",
            "      only the poses, in poses/",
        ]
    (folder / "README.txt").write_text("\n".join(lines) + "\n")


def write_report(
    folder: Path,
    plan: Plan,
    alignment: Alignment,
    curves: FscCurves,
    mask: np.ndarray,
    resolutions: tuple[float, float],
    convergence: Convergence,
    classes: Mapping[str, str] | None = None,
) -> None:
    """`report.html` of a run; `resolutions`: corrected and unmasked, FSC 0.143, A; `classes`: sentences by folder."""
    run: dict[str, Any] = tomllib.loads((folder / RUN_FILE).read_text())
    corrected, unmasked = resolutions
    summary = (
        f"{plan.particle_count} {plan.settings.kind}, two half maps from zero, box {plan.box} px of "
        f"{plan.pixel_size:.3f} A (Nyquist {2 * plan.pixel_size:.2f} A). "
        f"The half maps agree to {corrected:.2f} A (FSC 0.143, mask-corrected; "
        f"{unmasked:.2f} A unmasked)."
    )
    symmetry, coverage, prior_fit, learned = plan.settings.symmetry, np.ones(1), 1.0, {}
    if plan.uneven_views:
        found = read_star(folder / VIEWS_FILE)
        coverage = found["views"].floats("cryoganCoverage")
        density, width = (
            found["views"].floats("cryoganViewDensity"),
            found["shifts"].floats("cryoganShiftHalfWidthAngst"),
        )
        learned = {"Poses": f"views up to {density.max():.1f} times the even density; shifts up to {width[0]:.1f} A"}
        if "prior" in found:
            prior_fit = found["prior"].floats("cryoganPriorCorrelation")[0]
            learned["Prior of the views"] = f"turned into the map's frame, correlation {prior_fit:.2f} with the views"
    relion = (
        f"relion_image_handler --i {folder}/map.mrc --o reference.mrc --angpix {plan.pixel_size:.4f} "
        "--rescale_angpix PIXEL --new_box BOX    # those of the particles\n"
        "mkdir -p refine\n"
        f"mpirun -n 3 relion_refine_mpi --auto_refine --split_random_halves --i {folder}/particles.star "
        f"--ref reference.mrc --firstiter_cc --ini_high {max(20.0, 1.5 * corrected):.0f} --sym {symmetry} "
        f"--particle_diameter {2 * plan.particle_radius:.0f} --ctf --norm --scale --flatten_solvent --zero_mask "
        "--o refine/run"
    )
    with_poses = {
        "Poses, and a refinement with them:": f"cryogan refine {folder}",
        "Refinement in RELION:": relion,
        "cryoSPARC: Import 3D Volumes with map.mrc, then Homogeneous Refinement with an initial low-pass of 20 "
        "A and re-estimated grey scale. Particles with poses:": f"cryogan poses {folder}    # particles.cs",
    }
    write_page(
        folder / "report.html",
        Page(
            title=f"CryoGAN: {plan.particles.name}",
            summary=summary,
            warnings=[
                *warn(plan, alignment, curves, mask, corrected),
                *warn_of_views(coverage),
                *warn_of_prior(prior_fit),
                *([] if convergence.reached else [convergence.sentence]),
            ],
            tables={
                "What went in": {
                    "Particles": str(plan.particles),
                    "Background patches": str(plan.noise or "none: Gaussian noise"),
                    "Symmetry": symmetry,
                    "Command": str(run.get("command", "")),
                },
                "What came out": {
                    "FSC 0.143, corrected": f"{corrected:.2f} A",
                    "FSC 0.143, unmasked": f"{unmasked:.2f} A",
                    "Correlation of the halves": f"{alignment.correlation:.3f} (mirrored "
                    f"{alignment.correlation_other_hand:.3f})",
                    "Has it converged?": convergence.sentence,
                    "Mask": f"mask.mrc, soft, {mask.mean():.1%} of the box; it entered the corrected FSC",
                    **learned,
                    "Maps": "map.mrc (mean, not sharpened), half1_map_unfil.mrc, half2_map_unfil.mrc",
                },
                **({"Classes: all of the above is their weighted mean": classes} if classes else {}),
                "Made with": {name: str(value) for name, value in run.get("versions", {}).items()},
            },
            pictures=[(text, folder / "figures" / f"{name}.png") for name, text in _PICTURES.items()],
            next=(with_poses if plan.settings.particles_per_um2 is None else {})
            | {"ChimeraX:": f"chimerax {folder}/open.cxc"},
            settings=run.get("settings", {}),
        ),
    )
