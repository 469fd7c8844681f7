"""Particle STAR files of RELION 3.0 (one table) and 3.1 and later (an optics table and a particle table)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryogan.errors import Finding, InputError
from cryogan.particles import findings
from cryogan.particles.aberrations import Aberrations, apply_even, split_odd, used_columns
from cryogan.particles.star import StarTable, read_star
from cryogan.particles.table import CTF_REQUIRED, PIXEL_SIZE_TOLERANCE, Metadata, ParticleTable, assemble

OPTICS_COLUMNS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
PARTICLE_COLUMNS = {
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
    "phase_shift": "rlnPhaseShift",
    "b_factor": "rlnCtfBfactor",
    "scale": "rlnCtfScalefactor",
}
CTF_COLUMNS = OPTICS_COLUMNS | PARTICLE_COLUMNS
MAGNIFICATION_COLUMNS = {f"magnification_{name}": f"rlnMagMat{name}" for name in ("00", "01", "10", "11")}
TILT_COLUMNS = {"beam_tilt_x": "rlnBeamTiltX", "beam_tilt_y": "rlnBeamTiltY"}
UID_COLUMN = "cryosparcUid"
SUBSET = "rlnRandomSubset"
_FLIPPED = ("rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPhaseFlipped")
_MOST_DIGITS = 18  # of an image's number, held in 64 bits


class _Columns:
    """The columns of particles, from their own table or that of their optics groups."""

    def __init__(self, particles: StarTable, optics: StarTable | None) -> None:
        self.particles, self.optics = particles, optics
        self.group_rows = None if optics is None else _group_rows(particles, optics)

    def __contains__(self, name: str) -> bool:
        return name in self.particles or (self.optics is not None and name in self.optics)

    def floats(self, name: str, prefer_optics: bool = False) -> NDArray[np.float64] | None:
        """Return a column (N,), or None; the particle's own value goes before its group's, as in RELION."""
        in_optics = self.optics is not None and name in self.optics
        if name in self.particles and not (prefer_optics and in_optics):
            return self.particles.floats(name)
        if self.optics is None or self.group_rows is None or not in_optics:
            return None
        return self.optics.floats(name)[self.group_rows]

    def shown(self, name: str) -> str:
        """Return what messages call a column: that of an optics group is corrected elsewhere than in the row."""
        return f"_{name}" if name in self.particles or self.optics is None else f"_{name} (in data_optics)"

    def groups(self) -> list[tuple[int, NDArray[np.bool_]]]:
        """Return the used rows of the optics table, each with the mask (N,) of its particles."""
        if self.group_rows is None:
            return []
        return [(int(row), self.group_rows == row) for row in np.unique(self.group_rows)]


def read_star_particles(path: Path, data_dir: Path | None, need_ctf: bool, found: Sequence[Path] = ()) -> ParticleTable:
    """Read a RELION particle STAR file; arguments and errors are those of `read_particles`."""
    blocks = read_star(path)
    particles = particle_block(path, blocks)
    _refuse_tilt_series(path, blocks)
    optics = blocks.get("optics")
    if not len(particles):
        raise InputError(f"{path}: holds no particles. Give a STAR file with at least one row.")
    columns = _Columns(particles, optics)
    _refuse_volumes(path, columns)
    if need_ctf:
        _check_ctf_columns(path, columns)
        _refuse_premultiplied(path, columns)
    pixel_sizes = _pixel_sizes(path, columns, need_ctf)
    image_index, stack_names = _image_names(particles)
    ctf = {key: values for key, name in CTF_COLUMNS.items() if (values := columns.floats(name)) is not None}
    aberrations: tuple[Aberrations, ...] = ()
    if all(key in ctf and np.isfinite(ctf[key]).all() for key in CTF_REQUIRED) and (ctf["voltage"] > 0).all():
        with np.errstate(all="ignore"):  # what is not finite is refused later
            aberrations = _add_aberrations(columns, ctf)
    return assemble(
        Metadata(
            source=path,
            stack_names=stack_names,
            image_index=image_index,
            pixel_sizes=pixel_sizes,
            boxes=columns.floats("rlnImageSize", prefer_optics=True),
            ctf=ctf,
            micrographs=np.array(particles.columns.get("rlnMicrographName", [""] * len(particles)), dtype=np.str_),
            where=particles.where,
            names={key: columns.shown(name) for key, name in CTF_COLUMNS.items()},
            aberrations=aberrations,
            star=blocks,
            uids=_uids(particles),
            tubes=_tubes(particles),
            subset=_subset(particles),
            findings=_doubts(path, columns),
        ),
        need_ctf,
        data_dir,
        found,
    )


def particle_block(path: Path, blocks: dict[str, StarTable]) -> StarTable:
    """Return the block that names images.

    Raises:
        InputError: there is none, or more than one and none is called particles.
    """
    named = [block for block in blocks.values() if "rlnImageName" in block]
    if not named:
        raise InputError(f"{path}: no block has a column _rlnImageName. Give a particle STAR file.")
    if len(named) > 1 and "rlnImageName" not in blocks.get("particles", ()):
        found = ", ".join(f"data_{block.name}" for block in named)
        raise InputError(f"{path}: {found} all name images. Keep one, or call it data_particles.")
    return next((block for block in named if block.name == "particles"), named[0])


def _refuse_tilt_series(path: Path, blocks: dict[str, StarTable]) -> None:
    for block in blocks.values():
        if "rlnTomoSubTomosAre2DStacks" in block and any(block.floats("rlnTomoSubTomosAre2DStacks") != 0):
            raise InputError(
                f"{path}: each particle is a stack of tilted images (_rlnTomoSubTomosAre2DStacks of RELION 5). Tilt "
                "series are not supported. Give single-particle images."
            )


def _doubts(path: Path, columns: _Columns) -> tuple[Finding, ...]:
    """Return what a user should know of this file beside its values."""
    found = []
    if "rlnTomoName" in columns.particles or "rlnTomoParticleName" in columns.particles:
        found.append(findings.TILT_SERIES(file=str(path)))
    optics = columns.optics
    if optics is not None and "rlnEvenZernike" in optics:
        used = [_vector(optics, "rlnEvenZernike", row) for row, _ in columns.groups()]
        if any(values.any() for values in used):
            found.append(findings.EVEN_ZERNIKE(file=str(path)))
    return tuple(found)


def _refuse_volumes(path: Path, columns: _Columns) -> None:
    dimensions = columns.floats("rlnImageDimensionality")
    if dimensions is not None and (dimensions == 3).any():
        raise InputError(
            f"{path}: the images are volumes (_rlnImageDimensionality 3). Subtomograms are not supported. Give 2-D "
            "particles."
        )


def _refuse_premultiplied(path: Path, columns: _Columns) -> None:
    premultiplied = columns.floats("rlnCtfDataAreCtfPremultiplied")
    if premultiplied is not None and premultiplied.any():
        raise InputError(
            f"{path}: the images are multiplied by their CTF (_rlnCtfDataAreCtfPremultiplied). Extract them again "
            "without that."
        )


def _pixel_sizes(path: Path, columns: _Columns, need_ctf: bool) -> NDArray[np.float64] | None:
    sizes = columns.floats("rlnImagePixelSize", prefer_optics=True)
    if sizes is not None:
        _require_same_pixel_size(columns, sizes)
        return sizes
    detector, magnification = columns.floats("rlnDetectorPixelSize"), columns.floats("rlnMagnification")
    if detector is not None and magnification is not None:
        with np.errstate(all="ignore"):
            return detector * 1e4 / magnification
    if need_ctf:
        raise InputError(
            f"{path}: no pixel size. Add _rlnImagePixelSize (A) to data_optics, or to the particles "
            "where there is no data_optics (or _rlnDetectorPixelSize and _rlnMagnification)."
        )
    return None


def _require_same_pixel_size(columns: _Columns, sizes: NDArray[np.float64]) -> None:
    """Refuse rows that contradict their optics group; RELION takes the group's, other programs the row's."""
    if "rlnImagePixelSize" not in columns.particles:
        return
    rows = columns.particles.floats("rlnImagePixelSize")
    differ = np.flatnonzero(np.abs(rows - sizes) > PIXEL_SIZE_TOLERANCE * np.abs(sizes))
    if differ.size:
        row = int(differ[0])
        raise InputError(
            f"{columns.particles.where(row)}: _rlnImagePixelSize is {rows[row]:g} A, that of its optics group "
            f"{sizes[row]:g} A. Remove the wrong one."
        )


def _group_key(text: str) -> str:
    """Return a group's number as RELION reads it: 1 and 1.000000 are one."""
    whole, dot, rest = text.partition(".")
    return whole if dot and whole.isdigit() and not rest.strip("0") else text


def _group_rows(particles: StarTable, optics: StarTable) -> NDArray[np.int64]:
    """Return the row in the optics table for each particle."""
    rows: dict[str, int] = {}
    for row, text in enumerate(optics.texts("rlnOpticsGroup")):
        group = _group_key(text)
        if group in rows:
            raise InputError(
                f"{optics.where(row)}: optics group {group[:50]} is defined twice (first in line "
                f"{optics.lines[rows[group]]}). Give each group its own number, here and in the particles' "
                "_rlnOpticsGroup, or join the first files again with relion_star_handler --combine."
            )
        rows[group] = row
    texts = particles.texts("rlnOpticsGroup")
    keys = {text: _group_key(text) for text in set(texts)}
    for row, text in enumerate(texts):
        if keys[text] not in rows:
            raise InputError(
                f"{particles.where(row)}: optics group {text[:50]} is not in data_optics (which has "
                f"{', '.join(rows)[:200] or 'none'}). Add it there or correct the row."
            )
    return np.array([rows[keys[text]] for text in texts], dtype=np.int64)


def _check_ctf_columns(path: Path, columns: _Columns) -> None:
    missing = [CTF_COLUMNS[key] for key in CTF_REQUIRED if CTF_COLUMNS[key] not in columns]
    if not missing:
        return
    listed = ", ".join(f"_{name}" for name in missing)
    if all(name in OPTICS_COLUMNS.values() for name in missing):
        place = "data_optics" if columns.optics is not None else "the particles"
        raise InputError(f"{path}: no CTF: {listed} missing. Add the microscope's value to {place}.")
    raise InputError(
        f"{path}: no CTF: {listed} missing. Estimate the CTF (e.g. relion_run_ctffind) and extract again, or join "
        "these columns from the micrographs' STAR file."
    )


def _image_names(particles: StarTable) -> tuple[NDArray[np.int64], list[str]]:
    """Return index from 0 and stack of "000001@stack.mrcs"; a name without @ has index -1."""
    indices, stacks = [], []
    shared: dict[str, str] = {}  # of the stacks' names
    for row, name in enumerate(particles.texts("rlnImageName")):
        number, at, stack = name.partition("@")
        if not at:
            number, stack = "0", name
        valid = number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS and bool(stack)
        if not valid or (at and int(number) == 0):
            raise InputError(
                f'{particles.where(row)}: _rlnImageName is "{name[:50]}". Write it as 000001@stack.mrcs, where the '
                "first image has number 1."
            )
        indices.append(int(number) - 1)
        stacks.append(shared.setdefault(stack, stack))
    return np.array(indices, dtype=np.int64), stacks


def _uids(particles: StarTable) -> NDArray[np.uint64] | None:
    if UID_COLUMN not in particles:
        return None
    try:
        return np.array([int(text) for text in particles.columns[UID_COLUMN]], dtype=np.uint64)
    except (ValueError, OverflowError):
        raise InputError(f"{particles.path}: _{UID_COLUMN} holds what is no uid. Remove that column.") from None


def _tubes(particles: StarTable) -> NDArray[np.str_] | None:
    """Return micrograph and helical tube of each segment, or None where there are no tubes."""
    tubes = particles.columns.get("rlnHelicalTubeID")
    if tubes is None or not any(tube.strip("0.") for tube in tubes):
        return None
    micrographs = particles.columns.get("rlnMicrographName", [""] * len(tubes))
    return np.array([f"{micrograph} {tube}" for micrograph, tube in zip(micrographs, tubes, strict=True)])


def _subset(particles: StarTable) -> NDArray[np.int64] | None:
    """Return the half, 1 or 2, of each particle, or None where all are in one."""
    if SUBSET not in particles:
        return None
    values = particles.floats(SUBSET)
    if (values == values[0]).all():
        return None
    wrong = np.flatnonzero(~np.isin(values, (1, 2)))
    if wrong.size:
        raise InputError(
            f"{particles.where(int(wrong[0]))}: _{SUBSET} is {values[wrong[0]]:g}. Write 1 or 2, or remove that column."
        )
    return values.astype(np.int64)


def _add_aberrations(columns: _Columns, ctf: dict[str, NDArray[np.float64]]) -> tuple[Aberrations, ...]:
    """Add to the CTF's columns what CTF refinement found, and return what cannot be modelled."""
    extra = {
        key: values
        for key, name in (MAGNIFICATION_COLUMNS | TILT_COLUMNS).items()
        if (values := columns.floats(name)) is not None
    }
    flipped = next((values for name in _FLIPPED if (values := columns.floats(name)) is not None), None)
    if flipped is not None:
        extra["phase_flipped"] = (flipped != 0).astype(np.float64)
    left: list[Aberrations] = []
    optics = columns.optics
    for row, members in columns.groups():
        assert optics is not None
        group = f"optics group {optics.columns['rlnOpticsGroup'][row][:50]}"
        if "rlnOddZernike" in optics:
            first = int(members.argmax())
            modelled, terms = split_odd(
                _vector(optics, "rlnOddZernike", row), ctf["voltage"][first], ctf["spherical_aberration"][first]
            )
            left += [Aberrations(group, "_rlnOddZernike", terms)] if terms else []
            for key, value in modelled.items():
                extra[key] = extra.get(key, np.zeros(len(members))) + value * members
    cs = ctf["spherical_aberration"].copy()
    for row, members in columns.groups():
        assert optics is not None
        if "rlnEvenZernike" in optics and (even := _vector(optics, "rlnEvenZernike", row)).any():
            group = f"optics group {optics.columns['rlnOpticsGroup'][row][:50]}"
            terms = apply_even(ctf, members, even)
            left += [Aberrations(group, "_rlnEvenZernike", terms)] if terms else []
    changed = (ctf["spherical_aberration"] != cs) & (ctf["spherical_aberration"] != 0)
    for key in TILT_COLUMNS.keys() & extra.keys():  # the phase of a tilt is that with the file's spherical aberration
        extra[key] = np.where(changed, extra[key] * cs / np.where(changed, ctf["spherical_aberration"], 1), extra[key])
    ctf |= used_columns(extra)
    return tuple(left)


def _vector(optics: StarTable, column: str, row: int) -> NDArray[np.float64]:
    """Return the numbers of a field like [1.5,0,-2]."""
    text = optics.columns[column][row]
    try:
        values = np.array([float(number) for number in text.strip("[]").split(",") if number.strip()])
    except ValueError:
        values = np.array([np.nan])
    if len(values) > 100 or not np.isfinite(values).all():
        raise InputError(f'{optics.where(row)}: _{column} is "{text[:50]}". Write numbers as [1.5,0,-2].')
    return values
