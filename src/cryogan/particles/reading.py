"""Reading of particle files of every kind."""

from collections.abc import Sequence
from pathlib import Path

from cryogan.errors import InputError
from cryogan.particles.cryosparc import read_cs_particles
from cryogan.particles.relion import read_star_particles
from cryogan.particles.table import ParticleTable


def read_particles(
    path: Path | str,
    data_dir: Path | str | None = None,
    need_ctf: bool = True,
    found: Sequence[Path] = (),
) -> ParticleTable:
    """Read a particle .star (RELION 3.0 or 3.1 and later) or .cs (cryoSPARC), and check its images.

    Image stacks are looked for in `found`, beside the file, in each folder above it, in the current folder, then in
    `data_dir`; then by their name without its folders in `found` and `data_dir`. Columns that a .cs file lacks are
    taken from the passthrough files beside it, joined on uid. Images of several boxes or pixel sizes get a common grid
    (`ParticleTable.box`).

    Args:
        path: the particle file.
        data_dir: another folder with image stacks.
        need_ctf: False for noise patches: the CTF may be unknown (NaN in the table), and the pixel size, where the file
            gives none, comes from the stacks' headers.
        found: `ParticleTable.image_folders` of the file that this one was written from.

    Raises:
        InputError: with row and remedy: a stack is missing or truncated; an image number lies beyond its stack; a row
            is too short or long; there is no pixel size or no CTF; a parameter is out of its physical range; an optics
            group is not defined, or twice; a uid is ambiguous; the table is empty, of another kind, or of volumes or
            tilt series.
    """
    path = Path(path)
    folder = None if data_dir is None else Path(data_dir)
    suffix = path.suffix.lower()
    if suffix == ".star":
        return read_star_particles(path, folder, need_ctf, found)
    if suffix == ".cs":
        return read_cs_particles(path, folder, need_ctf, found)
    if suffix in (".mrcs", ".mrc"):
        raise InputError(
            f"{path}: is an image stack, which says nothing of the CTF. Give the particle .star (RELION) or "
            ".cs (cryoSPARC) that names it."
        )
    raise InputError(f"{path}: is neither .star nor .cs. Give a RELION or cryoSPARC particle file.")
