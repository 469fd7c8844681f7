"""What a user is told of the input before a run begins: what was read, what of it is doubtful, what it will take."""

from pathlib import Path

import numpy as np
import torch

from cryogan.config import Settings
from cryogan.errors import Finding, InputError
from cryogan.particles import ParticleImages, ParticleTable, PosePrior, contrast_sign, input_findings
from cryogan.run import warnings
from cryogan.run.plan import Plan
from cryogan.run.volume_mask import read_volume_mask


def findings_of_input(
    plan: Plan, images: ParticleImages, table: ParticleTable, patches: ParticleTable | None, prior: PosePrior | None
) -> list[Finding]:
    """Return what a user should know of the input and the machine.

    Args:
        plan: plan of the run.
        images: the usable particles at the working box.
        table: all particles of the file.
        patches: the background patches, if there are any.
        prior: the prior on view directions, if there is one.

    Raises:
        InputError: a run with this input would be wrong.
    """
    settings = plan.settings
    findings = [
        *_of_images(images, table, settings),
        *_of_metadata(plan, table),
        *_of_contrast(plan, images),
    ]
    if patches is not None:
        findings.append(_of_noise(patches, images.table))
    if prior is not None:
        frame = "in whose frame the map will be"
        if plan.critic.finds_frame:
            frame = "turned into the map's frame after the search"
        findings.append(warnings.POSE_PRIOR(file=str(settings.pose_prior), rows=len(prior), frame=frame))
    if plan.mask is not None:
        findings.append(_of_mask(plan, plan.mask))
    findings.append(warnings.MEMORY(gib=plan.cost.memory_gib))
    if plan.device.type == "cuda":
        findings.append(_of_gpu_memory(plan, torch.cuda.mem_get_info(plan.device)[0]))
    return findings


def _of_images(images: ParticleImages, table: ParticleTable, settings: Settings) -> list[Finding]:
    """Findings on the images: what was read, and what of it cannot be used."""
    findings = [
        warnings.IMAGES_READ(
            count=len(images),
            kind=settings.kind,
            micrographs=len(np.unique(table.micrographs)),
            file_box=table.box,
            file_pixel_size=table.pixel_size,
            box=images.box,
            pixel_size=images.pixel_size,
        )
    ]
    if table.joined:
        findings.append(warnings.COLUMNS_JOINED(files=", ".join(file.name for file in table.joined)))
    if images.cropped_odd:
        findings.append(warnings.ODD_BOX(box=table.box))
    if images.dropped:
        findings.append(warnings.IMAGES_DROPPED(count=images.dropped))
    return findings


def _of_metadata(plan: Plan, table: ParticleTable) -> list[Finding]:
    """Findings on the particles' metadata: doubtful values, and effects that are not simulated."""
    findings = input_findings(table, plan.box, plan.pixel_size, plan.background_radius, plan.settings.invert)
    for finding in findings:
        if finding.severity == "error":
            raise InputError(finding.sentence)
    return findings


def _of_contrast(plan: Plan, images: ParticleImages) -> list[Finding]:
    """Whether protein is bright, which the constraint on the map's sign needs."""
    settings = plan.settings
    if settings.particles_per_um2 is not None:
        return [
            warnings.PARTICLES_PER_PATCH(mean=settings.particles_per_um2 * (1e-4 * plan.box * plan.pixel_size) ** 2)
        ]
    stated = images.table.blob_sign
    contrast = contrast_sign(images, stated=-stated if stated is not None and settings.invert else stated)
    if contrast.sign == 0:
        return [warnings.CONTRAST_NOT_SURE(reason=contrast.reason, z=contrast.z, images=contrast.count)]
    word = "bright" if contrast.sign > 0 else "dark"
    note = warnings.CONTRAST(contrast=word, z=contrast.z, images=contrast.count)
    return [note, warnings.DARK_PARTICLES()] if contrast.sign < 0 else [note]


def _of_noise(patches: ParticleTable, particles: ParticleTable) -> Finding:
    """How many particles have background patches of their micrograph."""
    if not any(table.micrographs.astype(bool).any() for table in (patches, particles)):
        return warnings.NO_MICROGRAPH_NAMES(patches=len(patches))
    covered = np.isin(particles.micrographs, patches.micrographs) & (particles.micrographs != "")
    if not covered.any():
        raise InputError(
            f"{patches.source}: no patch comes from a micrograph of {particles.source} (first patch: "
            f"{str(patches.micrographs[0])!r}, first particle: {str(particles.micrographs[0])!r}). Check "
            "_rlnMicrographName."
        )
    if covered.all():
        return warnings.NOISE_PATCHES(patches=len(patches))
    return warnings.NOISE_OF_SOME(patches=len(patches), share=float(covered.mean()))


def _of_mask(plan: Plan, file: Path) -> Finding:
    """What bounds the map in place of a sphere."""
    mask = read_volume_mask(file, plan.box, plan.box * plan.pixel_size, plan.settings.symmetry)
    changes = "" if mask.was_symmetric else f", averaged over {plan.settings.symmetry} ({mask.correlation:.2f} alike)"
    if mask.cut > 0:
        changes += f", without the {mask.cut:.1%} of it in the corners of the box"
    return warnings.GIVEN_MASK(file=str(file), share=float(mask.values.mean()), changes=changes)


def _of_gpu_memory(plan: Plan, free: float) -> Finding:
    """What both halves take of `free` bytes of the GPU's memory."""
    most = max((plan.cost.memory(stage) for stage in plan.stages), key=lambda memory: memory.total)
    images = most.images_within(free / 2)
    taken = 2 * (most.fixed + images * most.per_image)
    values = {"gib": taken / 2**30, "free": free / 2**30, "device": str(plan.device)}
    if taken > free:
        return warnings.GPU_MEMORY_SHORT(**values)
    if images < most.at_once:
        return warnings.GPU_MEMORY_SHARED(images=images, **values)
    return warnings.GPU_MEMORY(**values)
