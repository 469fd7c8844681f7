"""The particles of a finished run with their poses, and lists of those that show the map and of those that do not."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from cryogan.critics.matching.trainer import IMAGES_AT_ONCE
from cryogan.errors import Finding
from cryogan.fourier import to_half_planes
from cryogan.particles import ParticleImages, ParticleTable, read_particles, write_cs_particles, write_particles
from cryogan.particles.correction import shifts_in_file
from cryogan.particles.halves import recorded_halves
from cryogan.refinement.half_pair import HalfPair
from cryogan.refinement.half_set import HalfSet
from cryogan.refinement.outliers import Outliers, find_outliers
from cryogan.refinement.pose_search import Poses, search_poses
from cryogan.refinement.view_averages import ViewAverages, spread_views
from cryogan.report.figures import plot_histogram, plot_particles, plot_view_averages, plot_view_distribution
from cryogan.report.page import Page, write_page
from cryogan.rotations import rotations_to_euler
from cryogan.run import warnings
from cryogan.run.folder import HALVES, MapFolder

SHOWN = 16  # particles in the picture of the rejected ones
VIEWS = 8  # of the averages
NOISE_IMAGES = 256  # of each half, at most, that are averaged beside the particles

PICTURES = {
    "view_averages": "Averages at the poses that were found, in the same grey for all: the map, the particles that are "
    "kept, those that are rejected, and images of nothing but noise. Poses are found by likeness with the map, so that "
    "noise resembles it, too. Rejected particles that look like the kept ones were rejected wrongly.",
    "rejected_particles": "Rejected particles, from those that differ most to those that differ least.",
    "scores": "How far each particle is from what is usual, by the share of the map in it and by what is beside it.",
    "margins": "How sure the poses are.",
    "view_distribution": "View directions.",
}


@dataclass(frozen=True)
class Selection:
    """Which particles of a run show its map.

    Attributes:
        folder: Folder of the lists.
        kept: Number of particles that are kept.
        rejected: Number of those that are rejected.
        weight: Sum of the weights of all, each the probability that the particle shows the map.
    """

    folder: Path
    kept: int
    rejected: int
    weight: float

    @property
    def finding(self) -> Finding:
        """What was found, for people and programs."""
        folder = MapFolder(self.folder)
        return warnings.PARTICLES_REJECTED(
            kept=self.kept,
            count=self.kept + self.rejected,
            weight=self.weight,
            rejected=self.rejected,
            kept_list=folder.kept_particles.name,
            rejected_list=folder.rejected_particles.name if self.rejected else "no list",
        )


def write_selection(folder: MapFolder, pair: HalfPair, poses: list[Poses]) -> Selection:
    """Write the particles with their poses, lists of the kept and the rejected ones, pictures, and a page of them.

    Args:
        folder: Folder that exists.
        pair: Half sets and maps.
        poses: Poses of each half's particles.
    """
    table = read_particles(pair.particles, pair.plan.data_dir, found=pair.plan.image_folders)
    halves = recorded_halves(table)
    order = np.argsort(np.concatenate([np.flatnonzero(halves == half) for half in HALVES]))
    found = find_outliers(pair.scores(poses), [half.images.table.micrographs for half in pair.halves])
    in_order = Outliers(*(getattr(found, field.name)[order] for field in fields(found)))
    _write_lists(folder, pair, table, Poses.cat(poses), order, in_order)
    folder.figures.mkdir(exist_ok=True)
    _plot_averages(folder, pair, poses, found.kept)
    _plot_scores(folder, pair, table, Poses.cat(poses), in_order)
    kept = int(found.kept.sum())
    selection = Selection(folder.path, kept, len(table) - kept, float(found.weight.sum()))
    _write_page(folder, pair, selection)
    return selection


def _write_lists(
    folder: MapFolder, pair: HalfPair, table: ParticleTable, poses: Poses, order: NDArray[np.intp], found: Outliers
) -> None:
    """Write all particles, the kept and the rejected ones, as STAR and `.cs` files."""
    rotations, shifts, ratio, margin = (
        getattr(poses, field.name).double().cpu().numpy()[order] for field in fields(poses)
    )
    subset, kept = recorded_halves(table), found.kept
    euler, in_file = rotations_to_euler(torch.from_numpy(rotations)), shifts_in_file(shifts, table.ctf)
    columns = {
        **{f"rlnAngle{name}": euler[:, axis] for axis, name in enumerate(("Rot", "Tilt", "Psi"))},
        **{f"rlnOrigin{name}Angst": in_file[:, axis] for axis, name in enumerate("XY")},
        "rlnLogLikeliContribution": ratio,
        "rlnMaxValueProbDistribution": 1 / (1 + np.exp(-margin)),
        "rlnParticleFigureOfMerit": found.weight,
        **{
            f"cryogan{name}Deviation": found.deviations[:, score]
            for score, name in enumerate(("Amplitude", "Outline", "Detail"))
        },
    }
    everything = np.ones(len(table), dtype=bool)
    for path, chosen in (
        (folder.particles, everything),
        (folder.kept_particles, kept),
        (folder.rejected_particles, ~kept),
    ):
        if chosen.any():
            of_chosen = {name: values[chosen] for name, values in columns.items()}
            write_particles(path, table.select(chosen), random_subset=subset[chosen], columns=of_chosen)
    vectors = Rotation.from_matrix(rotations).as_rotvec()
    for path, chosen in ((folder.cryosparc_particles, kept), (folder.cryosparc_rejected, ~kept)):
        if chosen.any():
            write_cs_particles(
                path,
                table.select(chosen),
                vectors[chosen],
                in_file[chosen],
                subset[chosen],
                source=pair.plan.particles,
                dark=pair.plan.settings.invert,
                weight=found.weight[chosen],
            )


@torch.no_grad()
def _plot_averages(folder: MapFolder, pair: HalfPair, poses: list[Poses], kept: NDArray[np.bool_]) -> None:
    """Plot averages of kept and rejected particles, and of noise, beside projections of the map."""
    group, box, pixel_size = pair.halves[0].group, pair.plan.box, pair.plan.pixel_size
    sets = torch.from_numpy(np.where(kept, 0, 1)).to(group.device)
    views = spread_views(Poses.cat(poses).rotations[sets == 0], group, VIEWS)
    averages = ViewAverages(views, group, 3, box, pixel_size)
    parts = torch.split(sets, [len(best.margin) for best in poses])
    for half, density, best, of_half in zip(pair.halves, pair.maps, poses, parts, strict=True):
        _add(averages, half.batches(), best, of_half)
        noise = list(_noise(half))
        at = search_poses(half, pair.weighted(half, density), pair.cutoff, images=noise)
        _add(averages, iter(noise), at, torch.full_like(of_half[: len(at.margin)], 2))
    projections = pair.halves[0].projector((pair.maps[0] + pair.maps[1]) / 2, views)
    images = averages.expected(projections, pair.cutoff), *averages.images(pair.cutoff)
    rows = zip(("Map", "Kept", "Rejected", "Noise"), images, strict=True)
    counts = [None, *averages.counts.int().tolist()]
    plot_view_averages(folder.figure("view_averages"), [(name, row.cpu().numpy()) for name, row in rows], counts)


def _add(averages: ViewAverages, batches: Iterator[tuple[Tensor, Tensor]], poses: Poses, sets: Tensor) -> None:
    parts = zip(*(torch.split(values, IMAGES_AT_ONCE) for values in (poses.rotations, poses.shifts, sets)), strict=True)
    for batch, (rotations, shifts, members) in zip(batches, parts, strict=True):
        averages.add(*batch, rotations, shifts, members)


def _noise(half: HalfSet) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images of noise alone in batches, with the CTFs of particles, as half-planes (B, D, D // 2 + 1)."""
    simulator = half.simulator
    for rows in torch.split(simulator.sample_particles(min(NOISE_IMAGES, len(half))), IMAGES_AT_ONCE):
        yield to_half_planes(simulator.noise.sample(rows, half.generator)), simulator.transfer(rows)


def _plot_scores(folder: MapFolder, pair: HalfPair, table: ParticleTable, poses: Poses, found: Outliers) -> None:
    """Plot view directions, how sure the poses are, how usual the particles are, and some that are rejected."""
    euler = rotations_to_euler(poses.rotations)
    plot_view_distribution(folder.figure("view_distribution"), euler[:, 0], euler[:, 1])
    label = "log-likelihood beyond the next best pose (nats)"
    plot_histogram(folder.figure("margins"), poses.margin.cpu().numpy(), "How sure the poses are", label)
    rejected = np.flatnonzero(~found.kept)
    title = f"{len(rejected)} of {len(table)} particles rejected"
    plot_histogram(
        folder.figure("scores"), found.distance, title, "distance from usual particles (standard deviations)"
    )
    if not len(rejected):
        return
    ranked = rejected[np.argsort(-found.distance[rejected])]
    shown = ranked[np.linspace(0, len(ranked) - 1, min(SHOWN, len(ranked))).round().astype(int)]
    settings = pair.plan.settings
    images = ParticleImages(
        table.select(shown),
        pair.plan.box,
        pair.plan.particle_radius,
        settings.invert,
        keep_gradient=settings.keep_gradient,
    )
    plot_particles(folder.figure("rejected_particles"), images.batch(np.arange(len(images))))


def _write_page(folder: MapFolder, pair: HalfPair, selection: Selection) -> None:
    plan, names = pair.plan, (folder.kept_particles, folder.rejected_particles)
    kept = shlex.quote(str(folder.kept_particles))
    noise = f" --noise {shlex.quote(str(plan.noise))}" if plan.noise else ""
    record = shlex.quote(str(pair.record))
    page = Page(
        title=f"Particles of {pair.particles.parent.name}",
        verdict="",
        summary=selection.finding.sentence,
        warnings=[],
        tables={
            "Particles": {
                "Kept": f"{selection.kept} ({names[0].name}, {folder.cryosparc_particles.name})",
                "Rejected": f"{selection.rejected} ({names[1].name}, {folder.cryosparc_rejected.name})",
                "Sum of the weights": f"{selection.weight:.0f}",
            }
        },
        pictures=[(text, folder.figure(name)) for name, text in PICTURES.items()],
        next={
            "A map of the kept particles, from zero:": f"cryogan reconstruct {kept}{noise} --config {record} --out NEW",
        },
        settings={},
    )
    write_page(folder.report, page)
