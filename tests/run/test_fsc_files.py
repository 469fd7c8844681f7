"""FSC curves in the files that RELION, EMDB and spreadsheets read."""

import csv
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy import ndimage

from cryogan.particles import read_star
from cryogan.run.folder import MapFolder
from cryogan.run.fsc_files import read_fsc, write_fsc
from cryogan.validation import fsc_curves, spherical_mask


def test_files_hold_the_curves(tmp_path: Path) -> None:
    """fsc.xml by EMDB's schema: one element fsc with coordinates, each of an x in 1/A and a y."""
    white = np.random.default_rng(0).standard_normal((3, 16, 16, 16))
    common = ndimage.gaussian_filter(white[0], 1.0)
    half1, half2 = common + 0.05 * white[1], common + 0.05 * white[2]
    curves = fsc_curves(half1, half2, 2.0, spherical_mask(16, 2.0, 8.0, 4.0))
    write_fsc(MapFolder(tmp_path), curves)
    assert {file.name for file in tmp_path.iterdir()} == {"fsc.star", "fsc.csv", "fsc.xml"}
    root = ElementTree.parse(tmp_path / "fsc.xml").getroot()
    assert root.tag == "fsc"
    assert set(root.attrib) == {"title", "xaxis", "yaxis"}
    assert root.attrib["xaxis"] == "Resolution (A-1)"
    assert {tuple(child.tag for child in coordinate) for coordinate in root} == {("x", "y")}
    assert {coordinate.tag for coordinate in root} == {"coordinate"}
    x, y = (np.array([float(coordinate.findtext(name)) for coordinate in root]) for name in "xy")
    np.testing.assert_allclose(x, np.arange(9) / 32, atol=1e-6)
    np.testing.assert_allclose(y, curves.corrected, atol=1e-6)
    with (tmp_path / "fsc.csv").open() as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["corrected"]) for row in rows], curves.corrected)
    frequency, read = read_fsc(MapFolder(tmp_path))
    np.testing.assert_array_equal(frequency, curves.frequency)
    for name in ("corrected", "unmasked", "masked", "phase_randomised"):
        np.testing.assert_array_equal(read[name], getattr(curves, name))
    table = read_star(tmp_path / "fsc.star")["fsc"]
    np.testing.assert_allclose(table.floats("rlnFourierShellCorrelationUnmaskedMaps"), curves.unmasked, atol=1e-6)
