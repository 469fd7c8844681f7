"""FSC curves in files: RELION's STAR, a table, and the XML that EMDB takes."""

import csv
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cryogan.files import replacing
from cryogan.particles import write_star
from cryogan.run.folder import MapFolder
from cryogan.validation import FscCurves

_FREQUENCY, _CURVES = "frequency_1_per_A", ("corrected", "unmasked", "masked", "phase_randomised")  # of the CSV


def write_fsc(folder: MapFolder, curves: FscCurves) -> None:
    """Write the curves as STAR with RELION's names and as CSV, and the corrected curve as XML for EMDB.

    Args:
        folder: folder that exists.
        curves: FSC of the two half maps.
    """
    columns = {
        "rlnSpectralIndex": curves.shell,
        "rlnResolution": curves.frequency,
        "rlnAngstromResolution": np.where(curves.shell == 0, 999.0, curves.resolution),
        "rlnFourierShellCorrelationCorrected": curves.corrected,
        "rlnFourierShellCorrelationUnmaskedMaps": curves.unmasked,
        "rlnFourierShellCorrelationMaskedMaps": curves.masked,
        "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps": curves.phase_randomised,
    }
    write_star(folder.fsc_star, {"fsc": {name: values.tolist() for name, values in columns.items()}})
    _write_xml(folder.fsc_xml, curves)
    with replacing(folder.fsc_csv) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("shell", _FREQUENCY, "resolution_A", *_CURVES))
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


def read_fsc(folder: MapFolder) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Read what `write_fsc` wrote.

    Returns:
        Frequencies (D // 2 + 1,), 1/A, and the curves, (D // 2 + 1,), by their names in `FscCurves`.
    """
    with folder.fsc_csv.open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: np.array([float(row[name]) for row in rows]) for name in (_FREQUENCY, *_CURVES)}
    return columns.pop(_FREQUENCY), columns


def _write_xml(path: Path, curves: FscCurves) -> None:
    """Write the corrected FSC by EMDB's schema, emdb_fsc.xsd: frequency in 1/A and correlation of each shell."""
    root = ElementTree.Element(
        "fsc",
        title="FSC of the half maps, corrected for the mask",
        xaxis="Resolution (A-1)",
        yaxis="Correlation Coefficient",
    )
    for frequency, correlation in zip(curves.frequency.tolist(), curves.corrected.tolist(), strict=True):
        coordinate = ElementTree.SubElement(root, "coordinate")
        ElementTree.SubElement(coordinate, "x").text = f"{frequency:.6f}"
        ElementTree.SubElement(coordinate, "y").text = f"{correlation:.6f}"
    ElementTree.indent(root)
    with replacing(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
