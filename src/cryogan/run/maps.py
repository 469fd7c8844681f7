"""The files of two half maps in one frame: maps, mask, FSC, and a script for ChimeraX."""

import numpy as np

from cryogan.particles import write_volume
from cryogan.run.folder import MapFolder
from cryogan.run.fsc_files import write_fsc
from cryogan.validation import FscCurves


def write_maps(
    folder: MapFolder, pixel_size: float, halves: tuple[np.ndarray, np.ndarray], mask: np.ndarray, curves: FscCurves
) -> None:
    """Write half maps, their mean, the mask and the FSC, under the names that RELION looks for.

    Args:
        folder: folder that exists.
        pixel_size: A.
        halves: the half maps in one frame, (D, D, D) each.
        mask: soft mask around the molecule, (D, D, D).
        curves: FSC of the half maps.
    """
    mean = (halves[0] + halves[1]) / 2
    files = {folder.half_map(1): halves[0], folder.half_map(2): halves[1], folder.map: mean, folder.mask: mask}
    for path, volume in files.items():
        write_volume(path, volume, pixel_size)
    write_fsc(folder, curves)
    # Half-way between solvent and the brightest hundredth of the voxels.
    level = float(np.mean(np.percentile(mean, (50, 99))))
    folder.chimerax_script.write_text(
        "# ChimeraX: chimerax open.cxc, or File > Open.\n"
        f"open {folder.map.name} {' '.join(path.name for path in folder.half_maps)}\n"
        f"volume #1-3 style surface level {level:.6g}\n"
        "color #1 #a0a0a0\ncolor #2 #0072b2\ncolor #3 #d55e00\n"
        "hide #2,3 models\nset bgColor white\nlighting soft\nview\n"
    )
