"""The division of a run's particles into two halves, and the findings about it."""

import numpy as np

from cryogan.config import Settings
from cryogan.errors import Finding
from cryogan.particles import ParticleTable
from cryogan.particles.halves import Halves, divide
from cryogan.run import warnings

LEAST_SHARE = 0.25  # of the particles in the smaller half, below which the halves are called uneven


def split(settings: Settings, table: ParticleTable) -> Halves:
    """Divide the particles of a run into its halves, or keep the halves that their file has.

    Args:
        settings: settings of the run.
        table: its usable particles.
    """
    return divide(table, settings.seed, overlap=settings.kind == "patches", anew=settings.new_halves)


def findings_of(halves: Halves, table: ParticleTable) -> list[Finding]:
    """Return what a user should know of the halves; the first says how the particles were divided."""
    inside = [halves.subset == half for half in (1, 2)]
    counts = dict(zip(("first", "second"), (int(members.sum()) for members in inside), strict=True))
    first, second = (len(np.unique(table.micrographs[members])) for members in inside)
    if halves.source == "input":
        findings = [warnings.HALVES_OF_INPUT(**counts)]
    elif halves.source == "micrograph":
        findings = [warnings.HALVES_BY_MICROGRAPH(**counts, first_micrographs=first, second_micrographs=second)]
    else:
        findings = [warnings.HALVES_BY_PARTICLE(**counts, micrographs=len(np.unique(table.micrographs)))]
    if halves.replaced:
        findings.append(warnings.HALVES_REPLACED())
    if halves.tubes:
        findings.append(warnings.TUBES_KEPT_WHOLE(tubes=halves.tubes))
    if halves.copies:
        findings.append(warnings.COPIES(copies=halves.copies))
    if halves.moved:
        findings.append(warnings.COPIES_MOVED(moved=halves.moved))
    if min(counts.values()) < LEAST_SHARE * len(table):
        findings.append(warnings.HALVES_UNEVEN(**counts))
    return findings
