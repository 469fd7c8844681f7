"""What EMDB asks for when a map is deposited: the maps, the FSC, and an mmCIF file of what the run knows."""

import math
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from cryogan.errors import InputError
from cryogan.files import require_new
from cryogan.particles import read_star
from cryogan.run.checksums import changed
from cryogan.run.folder import MapFolder, RunFolder
from cryogan.run.fsc_files import read_fsc
from cryogan.run.plan import Plan
from cryogan.run.verdict import read_verdict
from cryogan.validation import resolution_at

_CUTOFF = 0.143
_OPTICS = {"accelerating_voltage": "rlnVoltage", "nominal_cs": "rlnSphericalAberration"}  # kV, mm
_TO_ADD = "the sample, the microscope and camera, the authors, a contour level and an image of the map"

Rows = dict[str, list[Any]]


@dataclass(frozen=True)
class Deposition:
    """Files for a deposition of a map.

    Attributes:
        folder: where they are.
        resolution: FSC 0.143 of the half maps, corrected for the mask, A.
        particles: number of particles that the map was made from.
        remarks: what whoever deposits the map has to know or do.
    """

    folder: MapFolder
    resolution: float
    particles: int
    remarks: tuple[str, ...]


def deposit(run: Path, out: Path | None = None, maps: Path | None = None) -> Deposition:
    """Write the files that EMDB asks for: map, half maps, mask, FSC, and what the run knows of their making.

    Args:
        run: folder of a finished `cryogan reconstruct`.
        out: folder for the files, new or empty; default: `deposit` in the run's.
        maps: a folder in the run's with maps to deposit in the place of its own, such as `refined` or `class1`.

    Raises:
        InputError: the run is not finished, a file is missing, or `out` is not empty; nothing is written then.
    """
    folder = RunFolder(run)
    plan = Plan.read(run)
    folder.require_finished()
    source, target = MapFolder(maps or folder.path), MapFolder(out) if out else folder.deposition
    require_new(target.path, "Remove it, or give another --out.")
    copied = (source.map, *source.half_maps, source.mask, source.fsc_xml)
    missing = [path.name for path in (*copied, source.fsc_csv, source.particles) if not path.is_file()]
    if missing:
        raise InputError(
            f"{source.path} has no {', '.join(missing)}. Give a folder of maps of the run, such as refined."
        )
    if not source.path.resolve().is_relative_to(folder.path.resolve()):
        raise InputError(f"{source.path} is not in {folder.path}. Give the run that these maps are of.")
    _, curves = read_fsc(source)
    resolution = resolution_at(curves["corrected"], plan.pixel_size, _CUTOFF, plan.box)
    particles = _particles(source)
    record = tomllib.loads(folder.record.read_text())
    remarks = _remarks(folder, source, record.get("checksums", {}))
    document = _document(plan, record, source, resolution, particles, remarks)
    target.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".deposit", dir=target.path.parent) as temporary:
        made = MapFolder(Path(temporary) / "files")
        made.path.mkdir()
        for path in copied:
            shutil.copyfile(path, made.path / path.name)
        made.deposition_metadata.write_text(document.as_string())
        if target.path.exists():
            target.path.rmdir()
        made.path.rename(target.path)
    return Deposition(target, resolution, particles, (*remarks, f"EMDB also asks for {_TO_ADD}."))


def _particles(source: MapFolder) -> int:
    """Return the number of particles behind a map: those that show it, where this was found out."""
    path = source.kept_particles if source.kept_particles.is_file() else source.particles
    return len(read_star(path)["particles"])


def _remarks(folder: RunFolder, source: MapFolder, recorded: dict[str, str]) -> tuple[str, ...]:
    """Return what is doubtful of the maps, and what the run cannot know."""
    remarks = []
    if source.path.resolve() == folder.path.resolve():
        verdict = read_verdict(folder)
        remarks.append(verdict.sentence if verdict else "There is no verdict on this map (cryogan verdict).")
    else:
        remarks.append("There is no verdict on these maps; that of the run is on its own.")
    remarks.append("The absolute hand is not known: decide it, and flip map, half maps and mask alike.")
    if other := changed(recorded):
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        remarks.append(f"Input files are not as they were when the run began: {other[0]}{more}.")
    return tuple(remarks)


def _document(
    plan: Plan, record: dict[str, Any], source: MapFolder, resolution: float, particles: int, remarks: tuple[str, ...]
) -> gemmi.cif.Document:
    """Return the metadata as mmCIF, with the names of the PDBx/mmCIF dictionary; what is unknown is a question mark."""
    document = gemmi.cif.Document()
    block = document.add_new_block("cryogan")
    matching = plan.settings.critic == "matching"
    categories: dict[str, Rows] = {
        "_entry": {"id": ["cryogan"]},
        "_em_experiment": {
            "entry_id": ["cryogan"],
            "id": [1],
            "reconstruction_method": ["SINGLE PARTICLE"],
            "aggregation_state": ["PARTICLE"],
            "entity_assembly_id": [1],
        },
        "_em_imaging": {"entry_id": ["cryogan"], "id": [1], **_optics(source)},
        "_em_image_processing": {"id": [1], "image_recording_id": [1], "details": [None]},
        "_em_particle_selection": {
            "id": [1],
            "image_processing_id": [1],
            "num_particles_selected": [plan.particle_count],
            "details": [f"Images in {plan.particles.name}"],
        },
        "_em_ctf_correction": {
            "id": [1],
            "em_image_processing_id": [1],
            "type": ["PHASE FLIPPING AND AMPLITUDE CORRECTION"],
            "details": ["The CTF of each particle is part of the simulated images that the map is fitted by"],
        },
        "_em_start_model": {
            "id": [1],
            "image_processing_id": [1],
            "type": ["NONE"],
            "details": ["The map is made from zero, without a reference"],
        },
        "_em_euler_angle_assignment": _orientations(matching),
        "_em_single_particle_entity": {
            "id": [1],
            "image_processing_id": [1],
            "point_symmetry": [_point_group(plan.settings.symmetry)],
        },
        "_em_3d_reconstruction": _reconstruction(plan, resolution, particles, remarks),
        "_em_software": _software(record, matching),
    }
    for name, rows in categories.items():
        block.set_mmcif_category(f"{name}.", rows)
    return document


def _reconstruction(plan: Plan, resolution: float, particles: int, remarks: tuple[str, ...]) -> Rows:
    """Return how the map was made, and what it is worth."""
    critic = "projection matching" if plan.settings.critic == "matching" else plan.settings.critic
    return {
        "entry_id": ["cryogan"],
        "id": [1],
        "image_processing_id": [1],
        "algorithm": ["FOURIER SPACE"],
        "method": [f"matching of the distributions of real and simulated images, critic: {critic}"],
        "resolution": [f"{resolution:.2f}" if math.isfinite(resolution) else None],
        "resolution_method": [f"FSC {_CUTOFF} CUT-OFF"],
        "num_particles": [particles],
        "num_class_averages": [1],
        "actual_pixel_size": [f"{plan.pixel_size:.6g}"],
        "symmetry_type": ["POINT"],
        "details": [" ".join(remarks)],
    }


def _orientations(matching: bool) -> Rows:
    """Return how orientations were found; the paper's critic finds none."""
    orders = ["INITIAL", "FINAL"] if matching else ["FINAL"]
    kind = "PROJECTION MATCHING" if matching else "NOT APPLICABLE"
    details = "All orientations of an image, weighted by their likelihood" if matching else "Images get no orientation"
    count = len(orders)
    return {
        "id": list(range(1, count + 1)),
        "image_processing_id": [1] * count,
        "order": orders,
        "type": [kind] * count,
        "details": [details] * count,
    }


def _software(record: dict[str, Any], matching: bool) -> Rows:
    """Return what the run's version of this program did."""
    angles = ["INITIAL EULER ASSIGNMENT", "FINAL EULER ASSIGNMENT"] if matching else []
    purposes = ["CTF CORRECTION", *angles, "RECONSTRUCTION"]
    count = len(purposes)
    return {
        "id": list(range(1, count + 1)),
        "image_processing_id": [1] * count,
        "category": purposes,
        "name": ["CryoGAN"] * count,
        "version": [record.get("versions", {}).get("cryogan")] * count,
    }


def _optics(source: MapFolder) -> Rows:
    """Return what all optics groups agree on."""
    optics = read_star(source.particles)["optics"]
    known = {item: np.unique(optics.floats(name)) for item, name in _OPTICS.items() if name in optics.columns}
    return {item: [f"{values[0]:g}"] for item, values in known.items() if len(values) == 1}


def _point_group(symmetry: str) -> str:
    """Return a point group without its setting: EMDB knows one I."""
    return "I" if symmetry.upper().startswith("I") else symmetry.upper()
