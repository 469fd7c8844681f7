"""Commands on maps: align, flip-hand, symmetry, symmetrise, fsc."""

from pathlib import Path
from typing import TYPE_CHECKING

from cryogan.cli.app import Answer, app, examples
from cryogan.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@app.command(name="align", help_epilogue=examples("cryogan align map.mrc reference.mrc --out aligned.mrc"))
def align_command(map: Path, reference: Path, *, out: Path) -> Answer:
    """Bring a map into the frame and hand of a reference.

    Args:
        map: The map to move, MRC.
        reference: The map that stays, MRC.
        out: The moved map, on the reference's grid and at its origin.
    """
    import numpy as np

    from cryogan.particles import read_map, read_volume, write_map
    from cryogan.validation import align, resample

    moving, moving_pixel = read_volume(map)
    fixed, header = read_map(reference)
    pixel_size = header.pixel_size
    if moving.shape != fixed.shape or abs(moving_pixel / pixel_size - 1) > 1e-4:
        moving = resample(moving, moving_pixel, len(fixed), pixel_size).astype(np.float32)
    alignment = align(moving, fixed, pixel_size)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_map(out, alignment.apply(moving, pixel_size), header)
    x, y, z = alignment.shift_A
    return Answer(
        {
            "map": out,
            "correlation": alignment.correlation,
            "correlation_other_hand": alignment.correlation_other_hand,
            "mirrored": alignment.mirrored,
            "shift_A": alignment.shift_A.tolist(),
            "rotation": alignment.rotation.tolist(),
        },
        [
            f"Correlation {alignment.correlation:.4f} (other hand {alignment.correlation_other_hand:.4f}); "
            f"{'mirrored, ' if alignment.mirrored else ''}shifted by ({x:.2f}, {y:.2f}, {z:.2f}) A; rotation",
            str(alignment.rotation.round(4)),
        ],
    )


@app.command(name="flip-hand", help_epilogue=examples("cryogan flip-hand map.mrc --out other_hand.mrc"))
def flip_hand_command(map: Path, *, out: Path) -> Answer:
    """Mirror a map into its other hand, as `relion_image_handler --invert_hand`.

    Args:
        map: Map, MRC.
        out: The mirrored map.
    """
    from cryogan.particles import read_map, write_map
    from cryogan.validation import flip_hand

    volume, header = read_map(map)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_map(out, flip_hand(volume), header)
    return Answer({"map": out})


@app.command(
    name="symmetry", help_epilogue=examples("cryogan symmetry run", "cryogan symmetry half1.mrc half2.mrc --json")
)
def symmetry_command(*inputs: Path) -> Answer:
    """Find the point groups that half maps have which were made without symmetry.

    Args:
        inputs: A run in C1; or half maps 1 and 2 of any program, MRC, in one frame.
    """
    from cryogan.run.folder import RunFolder
    from cryogan.run.handover import with_symmetry
    from cryogan.run.plan import Plan
    from cryogan.run.symmetry import FoundSymmetry, find_symmetry_of_run
    from cryogan.validation import suggest_symmetry

    if len(inputs) not in (1, 2):
        raise InputError("Give a run's folder (cryogan symmetry run), or half maps (cryogan symmetry half1 half2).")
    command = []
    if len(inputs) == 1:
        folder = RunFolder(inputs[0])
        found = find_symmetry_of_run(folder)
        if found.suggested:
            command = [with_symmetry(folder, Plan.read(folder.path), found.suggested)]
    else:
        found = FoundSymmetry(suggest_symmetry(*_read_half_maps(*inputs)))
    rows = [f"{name:3s} {line}" for name, line in found.table.items()]
    text = [*(finding.sentence for finding in found.findings), *rows, *command]
    return Answer({**found.values, "command": command[0] if command else None}, text)


@app.command(name="symmetrise", help_epilogue=examples("cryogan symmetrise map.mrc D2 --out map_d2.mrc"))
def symmetrise_command(map: Path, symmetry: str, *, out: Path) -> Answer:
    """Turn a map's symmetry axes to RELION's setting, and average over the group.

    Args:
        map: Map, MRC, in any frame.
        symmetry: Point group: Cn, Dn, T, O, I, I1 to I4.
        out: The symmetric map.
    """
    import torch

    from cryogan.particles import read_map, write_map
    from cryogan.physics.symmetry import Symmetriser
    from cryogan.validation import find_axes

    volume, header = read_map(map)
    found = find_axes(volume, header.pixel_size, symmetry)
    placed = torch.from_numpy(found.apply(volume, header.pixel_size)).float()
    average = Symmetriser(symmetry, len(volume), device=torch.device("cpu"))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_map(out, average(placed).numpy(), header)
    return Answer(
        {"map": out, "correlation": found.correlation},
        [f"The map and its copies under {symmetry} correlate {found.correlation:.3f}."],
    )


@app.command(name="fsc", help_epilogue=examples("cryogan fsc half1.mrc half2.mrc --mask mask.mrc --out fsc"))
def fsc_command(half1: Path, half2: Path, *, out: Path, mask: Path | None = None, seed: int = 0) -> Answer:
    """Compute the Fourier shell correlation of two maps in the same frame.

    Args:
        half1: First map, MRC.
        half2: Second map, MRC.
        out: Folder for fsc.star, fsc.csv, fsc.xml (for EMDB) and fsc.png.
        mask: Soft mask, MRC; adds the masked, phase-randomised and corrected curves.
        seed: Seed of the random phases.
    """
    from cryogan.particles import read_volume
    from cryogan.report.figures import plot_fsc
    from cryogan.run.folder import MapFolder
    from cryogan.run.fsc_files import write_fsc
    from cryogan.validation import fsc_curves, resolution_at

    first, second, pixel_size = _read_half_maps(half1, half2)
    window = None
    if mask is not None:
        window, other = read_volume(mask)
        if abs(other / pixel_size - 1) > 1e-4:
            raise InputError(
                f"{mask} has {other:.4f} A/px, {half1} {pixel_size:.4f}. Make the mask from these maps, or correct its "
                f"header with relion_image_handler --force_header_angpix {pixel_size:.4f}."
            )
    curves = fsc_curves(first, second, pixel_size, window, seed)
    out.mkdir(parents=True, exist_ok=True)
    write_fsc(MapFolder(out), curves)
    shown = {"unmasked": curves.unmasked}
    if mask is not None:
        shown |= {"masked": curves.masked, "phase-randomised": curves.phase_randomised, "corrected": curves.corrected}
    plot_fsc(out / "fsc.png", curves.frequency, shown, pixel_size)
    resolutions = {
        name: {level: resolution_at(curve, pixel_size, level, len(first)) for level in (0.5, 0.143)}
        for name, curve in shown.items()
    }
    text = [
        f"{name:17s} {', '.join(f'{A:.2f} A at {level}' for level, A in at.items())}"
        for name, at in resolutions.items()
    ]
    return Answer({"folder": out, "resolution_A": resolutions}, text)


def _read_half_maps(half1: Path, half2: Path) -> "tuple[NDArray[np.float32], NDArray[np.float32], float]":
    """Read two different maps on one grid, and their pixel size in A."""
    from cryogan.particles import read_volume
    from cryogan.run.folder import RunFolder

    for run in (RunFolder(path.parent) for path in (half1, half2) if not path.exists()):
        if run.is_run:
            run.require_finished()
    (first, pixel_size), (second, other) = read_volume(half1), read_volume(half2)
    if abs(other / pixel_size - 1) > 1e-4:
        raise InputError(f"{half1} has {pixel_size:.4f} A/px, {half2} {other:.4f}. Resample one with cryogan align.")
    if half1.resolve() == half2.resolve():
        raise InputError(f"{half1} is given twice. Give the two half maps.")
    return first, second, pixel_size
