"""One door for every kind of particle file."""

from pathlib import Path

from cryogan.errors import InputError
from cryogan.particles.cryosparc import read_cs_particles
from cryogan.particles.relion import read_star_particles
from cryogan.particles.table import ParticleTable


def read_particles(path: Path | str, data_dir: Path | str | None = None, need_ctf: bool = True) -> ParticleTable:
    """Read a particle .star (RELION 3.0 or 3.1 and later) or .cs (cryoSPARC, format 1) and check its images.

    Image paths are looked for beside the file, in each folder above it, then in data_dir, with and without
    their folders. With need_ctf=False (noise patches) CTF columns may be absent (NaN in the table) and the
    pixel size, where the file gives none, comes from the stacks' headers. Columns that a .cs file lacks are taken
    from the passthrough .cs files beside it, joined on uid.

    Raises InputError, with row and remedy, for: a missing or truncated stack; an image number beyond its
    stack; a row too short or long; no pixel size; boxes or pixel sizes that differ; no CTF columns; an
    optics group that is not defined; a value that is not finite; an empty table; a file of another kind.
    """
    path = Path(path)
    folder = None if data_dir is None else Path(data_dir)
    suffix = path.suffix.lower()
    if suffix == ".star":
        return read_star_particles(path, folder, need_ctf)
    if suffix == ".cs":
        return read_cs_particles(path, folder, need_ctf)
    if suffix in (".mrcs", ".mrc"):
        raise InputError(
            f"{path}: is an image stack, which says nothing of the CTF; give the particle .star (RELION) or "
            ".cs (cryoSPARC) that names it."
        )
    raise InputError(f"{path}: is neither .star nor .cs; give a RELION or cryoSPARC particle file.")
