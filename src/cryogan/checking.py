"""What a run would find in a user's files, before it computes anything; and what it needs of the machine."""

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import gemmi
import matplotlib
import mrcfile
import numpy as np
import scipy
import torch

from cryogan import __version__
from cryogan.config import Settings
from cryogan.errors import Finding
from cryogan.fourier import radial_power, shells
from cryogan.parallel.cores import available_cores, available_memory_gib
from cryogan.parallel.work import Speed
from cryogan.particles import ParticleImages, open_stack
from cryogan.particles.background import PlaneFit, outside_circle
from cryogan.particles.findings import NOTES
from cryogan.physics.simulator import Simulator
from cryogan.report.figures import plot_particles
from cryogan.run import warnings
from cryogan.run.build import build_simulator
from cryogan.run.inputs import read_inputs
from cryogan.run.plan import Plan
from cryogan.run.speed import measure_speed

SHOWN = 16  # particles in the picture
PROBED = 500  # images whose pixels and CTFs are looked at
HOT_DEVIATIONS = 12.0  # of a pixel from its image's mean
LOW_A = 100.0
FILTERED = 0.03  # of the median power: real noise has over 0.3 in its weakest shell
UNSEEN = 0.01  # mean CTF^2 of a shell, or |C1 + C2|, below which a frequency counts as not transferred
LISTED = 5  # resolutions at most that a sentence names
STRONG_RAMP = 0.3  # s.d. of the background at the edge of the box; 0.6 made a wrong map
LEAST_DISK_GIB = 2.0


@dataclass(frozen=True)
class Report:
    """What `check` or `doctor` found.

    Attributes:
        facts: what is in the files, or the machine, by name.
        findings: what a user should know.
    """

    facts: dict[str, str]
    findings: list[Finding]

    @property
    def doubts(self) -> list[str]:
        """Sentences of the warnings and errors."""
        return warnings.doubts(self.findings)


def check(
    particles: Path,
    settings: Settings,
    noise: Path | None = None,
    data_dir: Path | None = None,
    picture: Path | None = None,
) -> Report:
    """Read all input as `reconstruct` would, and report what it is, what a run will take, and likely problems.

    The last facts are the assumptions of the paper's Theorem 1, by which the distribution of the images decides the
    volume up to rotation and reflection.

    Args:
        particles: see `cryogan.reconstruct`.
        settings: see `cryogan.config`.
        noise: see `cryogan.reconstruct`.
        data_dir: see `cryogan.reconstruct`.
        picture: PNG of 16 particles to write.

    Raises:
        InputError: what would stop a run.
    """
    plan, images, findings, _ = read_inputs(particles, noise, data_dir, settings)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        plot_particles(picture, images.batch(images.spread(SHOWN)))
    read = next(found.sentence for found in findings if found.code == warnings.IMAGES_READ.code)
    shown = {kind.code for kind in (warnings.CONTRAST, *NOTES)}
    notes = {found.code: found.sentence for found in findings if found.code in shown}
    pixels, kept_gradient = _pixels(images, settings.keep_gradient)
    half, simulator = build_simulator(plan, plan.box, plan.particles, 1, plan.settings.seed)
    cost, too_much = _cost(plan, measure_speed(half, simulator, plan.threads))
    facts = {settings.kind: read, "halves": plan.halves} | _optics(images) | pixels | notes | cost
    if images.table.joined:
        facts["joined"] = "columns on uid, from " + ", ".join(str(file) for file in images.table.joined)
    theorem, doubts = _theorem_1(plan, half, simulator)
    findings = [*doubts, *too_much, *kept_gradient, *findings]
    if settings.symmetry.upper() == "C1":
        findings.append(warnings.NO_SYMMETRY())
    if noise is None:
        findings.append(warnings.NO_NOISE())
    return Report(facts | theorem, findings)


def _optics(images: ParticleImages) -> dict[str, str]:
    """Optics groups and defocus."""
    ctf = images.table.ctf

    def span(name: str, unit: str) -> str:
        low, high = ctf[name].min(), ctf[name].max()
        return f"{low:g} {unit}" if low == high else f"{low:.4g} to {high:.4g} {unit}"

    constants = np.stack([ctf[name] for name in ("voltage", "spherical_aberration", "amplitude_contrast")], axis=1)
    return {
        "optics": f"groups of one kind: {len(np.unique(constants, axis=0))}; {span('voltage', 'kV')}, Cs "
        f"{span('spherical_aberration', 'mm')}, amplitude contrast {span('amplitude_contrast', '')}".strip(),
        "defocus": f"{span('defocus_u', 'A')} (U), {span('defocus_v', 'A')} (V)",
    }


def _pixels(images: ParticleImages, keep_gradient: bool) -> tuple[dict[str, str], list[Finding]]:
    """The background of the files' pixels, before any normalisation, and outliers among them."""
    table = images.table
    rows = images.spread(PROBED)
    sides = table.file_boxes[rows]
    rows, side = rows[sides == sides[0]], int(sides[0])
    pixel_size = table.file_pixel_sizes[rows[0]]
    outside = outside_circle(side, None if images.radius_A is None else min(images.radius_A / pixel_size, side / 2))
    pixels = np.stack([open_stack(table.stacks[table.stack_index[r]])[table.image_index[r]] for r in rows])
    pixels = pixels.astype(np.float32)  # sums of float16 overflow
    background = pixels.reshape(len(rows), -1)[:, outside].astype(np.float64)
    deviation = np.abs(pixels - pixels.mean((1, 2), keepdims=True)) / pixels.std((1, 2), keepdims=True)
    hot = int((deviation.max((1, 2)) > HOT_DEVIATIONS).sum())
    facts = {
        "background": f"mean {background.mean():.3g}, s.d. {background.std(axis=1).mean():.3g} (of {len(rows)} images)",
        "hot pixels": f"{hot} of {len(rows)} images have one beyond {HOT_DEVIATIONS:.0f} s.d.",
    }
    if images.radius_A is None:  # patches with particles anywhere
        return facts, []
    # White noise loses as much of its s.d. as pixels grow, and a ramp nothing.
    ramp = PlaneFit(side, outside).median_ramp(pixels) * float(images.pixel_size / pixel_size)
    fact = f"{ramp:.2f} s.d. of the background at the edge of the box, at the working pixel size"
    facts["gradient"] = f"{fact} (median of {len(rows)} images); it is {'kept' if keep_gradient else 'subtracted'}"
    return facts, [warnings.GRADIENT_KEPT(ramp=ramp)] if keep_gradient and ramp > STRONG_RAMP else []


def _cost(plan: Plan, speed: Speed) -> tuple[dict[str, str], list[Finding]]:
    """Device, time and memory of a run on this machine; and whether it has less memory than that."""
    minutes = plan.cost.minutes(available_cores(), speed, plan.threads)
    gib, free = 2 * plan.cost.memory_gib, available_memory_gib()
    space = "" if free is None else f" of {free:.1f} that are free here"
    facts = {
        "device": plan.hardware,
        "time": f"about {max(1, minutes):.0f} min on this machine as it is now, by a measurement of its speed",
        "memory": f"{gib:.1f} GiB for both halves{space}",
    }
    on_cpu = plan.device.type == "cpu"
    return facts, [warnings.MEMORY_SHORT(gib=gib, free=free)] if on_cpu and free is not None and gib > free else []


def _theorem_1(plan: Plan, images: ParticleImages, simulator: Simulator) -> tuple[dict[str, str], list[Finding]]:
    """The four assumptions of Theorem 1, each as a number; and the doubts that follow."""
    rows = torch.from_numpy(images.spread(PROBED))
    noise, findings = _noise_spectrum(plan, simulator, len(rows))
    ctfs, more = _transfer(plan, simulator, rows)
    theorem = {
        "Theorem 1, 1": noise,
        "Theorem 1, 2": ctfs,
        "Theorem 1, 3": f"bounded support: the mask has {2 * plan.mask_radius:.0f} A of the box's "
        f"{plan.box * plan.pixel_size:.0f} A, and the map is kept positive while it is searched",
        "Theorem 1, 4": _distributions(plan),
    }
    return theorem, [*findings, *more]


def _noise_spectrum(plan: Plan, simulator: Simulator, count: int) -> tuple[str, list[Finding]]:
    """Assumption 1: the noise has power at every frequency."""
    width = plan.box * plan.pixel_size
    power = radial_power(simulator.noise.sample(simulator.sample(count).particles, simulator.generator)).numpy()[1:]
    weakest = int(power[: plan.box // 2 - 1].argmin())
    resolution = width / (weakest + 1)
    share = float(power.min() / np.median(power))
    fact = f"noise with full spectrum: the weakest shell ({resolution:.1f} A) has {share:.2g} of the median power"
    return fact, [warnings.FILTERED(resolution=resolution, share=share)] if share < FILTERED else []


def _transfer(plan: Plan, simulator: Simulator, rows: torch.Tensor) -> tuple[str, list[Finding]]:
    """Assumption 2: the CTFs of the set together, and pairs of them, lose no frequency."""
    width, kind = plan.box * plan.pixel_size, plan.settings.kind
    transfer = simulator.transfer(rows)
    shell = shells(plan.box, device=transfer.device)
    inside = (shell > 0) & (shell < plan.box // 2)
    mean = torch.bincount(shell[inside], transfer.square().mean(0)[inside]) / torch.bincount(shell[inside]).clamp(min=1)
    # Without a phase plate the lowest frequencies are weak in any set.
    dark = [s for s in range(1, plan.box // 2) if mean[s] < UNSEEN and width / s < LOW_A]
    pairs = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    sums = (transfer + transfer[pairs])[pairs != torch.arange(len(rows))][:, inside]
    lost = float((sums.abs() < UNSEEN).float().mean())
    fact = (
        f"C1 + C2 of two {kind} is below {UNSEEN:g} at {lost:.1%} of the frequencies; {len(dark)} shells finer than "
        f"{LOW_A:.0f} A are passed by none of the {kind}"
    )
    if not dark:
        return fact, []
    return fact, [warnings.CTF_GAP(resolutions=", ".join(f"{width / s:.0f}" for s in dark[:LISTED]), shells=dark)]


def _distributions(plan: Plan) -> str:
    """Assumption 4: poses, shifts and CTFs have bounded distributions."""
    prior = plan.settings.pose_prior
    views = "uniform on SO(3)" if prior is None else f"of {prior}, uniform in the plane"
    shifts = f"shifts triangular up to {plan.settings.max_shift:g} A"
    if not plan.is_picked:
        shifts = "particles anywhere in a patch and about it"
    return f"bounded distributions: poses {views}, {shifts}, CTFs those of the {plan.settings.kind}"


def doctor() -> Report:
    """Report the installation: versions, devices, threads, arithmetic, disk."""
    cores = available_cores()
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    packages = (torch, np, scipy, mrcfile, gemmi, matplotlib)
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    bf16 = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    facts = {
        "cryogan": f"{__version__}, Python {platform.python_version()}, {platform.platform()}",
        "packages": ", ".join(f"{package.__name__} {package.__version__}" for package in packages),
        "devices": ", ".join(["cpu", *(f"cuda:{i} ({name})" for i, name in enumerate(gpus))]),
        "threads": f"{cores} cores to use; a run gives {max(1, cores // 2)} to each half",
        "bfloat16": "in hardware" if bf16 else "not in this CPU's hardware",
        "disk": f"{free:.0f} GiB free here",
    }
    findings = [] if gpus else [warnings.NO_GPU()]
    if free < LEAST_DISK_GIB:
        findings.append(warnings.LITTLE_DISK(free=free))
    return Report(facts, findings)
