"""A simulated data collection that `cryogan live` follows: what happens in it, and what is said of it and when.

    python benchmarks/live.py --scratch /tmp/live --out docs/runs/live                    # 10,000 particles of 64 px
    python benchmarks/live.py --scratch /tmp/clean --clean --seed 1 --out docs/runs/live  # nothing happens
    python benchmarks/live.py --scratch /tmp/small --box 32 --pixel-size 5 --portion 300 --first 500 --wait \\
        --out /tmp/small -- --starts 1 --orientations 1500 --search-steps 60

Ten portions of particles of the phantom (D2) are appended to a STAR file within --minutes; with --wait the next one
comes when all that the last one has brought is done, so that a slow machine tells the same. Each micrograph is of one
of four grid squares a portion. What happens:

- Until the seventh portion, views are preferred, about z. In the eighth the stage is tilted: from then on they are
  uniform.
- In the sixth, one of the four squares is junk: empty images and contaminants.
- In the ninth, the defocus is wrong by 5,000 A, standard deviation.

The record has the portion after which each thing was said, what was said that is not true, and cost and quality of each
map; the truth is read for the evaluation only.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cryogan import __version__
from cryogan.live import kinds
from cryogan.live.folder import LiveFolder, read_json
from cryogan.models.phantom import phantom
from cryogan.particles import StarTable, open_stack, read_star, read_volume, write_stack
from cryogan.run.folder import MapFolder
from cryogan.simulation import simulate
from cryogan.simulation.disturbances import Disturbances
from cryogan.validation import align, fsc, resample, resolution_at

PORTIONS, SQUARES, MICROGRAPHS = 10, 4, 20
PREFERRED, TILTED, JUNK, DEFOCUS = range(1, 8), 8, 6, 9
KAPPA, DEFOCUS_ERROR = 8.0, 5000.0
BAD_SQUARE = f"GridSquare_{JUNK}03"
NOTES = ("note",)  # severities that alert nobody


@dataclass
class Collection:
    """A project in which particles appear.

    Attributes:
        root: its folder.
        options: of the command line.
        star: the STAR file that grows.
        arrived: times of the portions.
    """

    root: Path
    options: argparse.Namespace
    arrived: list[float] = field(default_factory=list)

    @property
    def star(self) -> Path:
        return self.root / "Select" / "job010" / "particles.star"

    @property
    def noise(self) -> Path:
        return self.root / "noise.star"

    def arrive(self, number: int) -> None:
        """Write the stacks of a portion, then append its rows, as a job that is run again does."""
        o, rows = self.options, []
        clean = Disturbances()
        if not o.clean:
            views = {"preferred_views": KAPPA} if number in PREFERRED else {}
            clean = Disturbances(**views, **({"defocus_error": DEFOCUS_ERROR} if number == DEFOCUS else {}))
        junk = number == JUNK and not o.clean
        counts = [(o.portion - o.portion // SQUARES * junk, clean, range(SQUARES - junk))]
        if junk:
            counts.append((o.portion // SQUARES, Disturbances(junk_empty=0.5, junk_contaminant=0.5), range(3, 4)))
        for part, (count, disturbances, squares) in enumerate(counts):
            rows += self._simulate(number, part, count, disturbances, squares)
        self.star.parent.mkdir(parents=True, exist_ok=True)
        with self.star.open("a") as file:
            file.writelines(rows)
        self.arrived.append(time.time())

    def _simulate(self, number: int, part: int, count: int, disturbances: Disturbances, squares: range) -> list[str]:
        o = self.options
        made = self.root / f"made{number}_{part}"
        volume = phantom(o.box, o.pixel_size, o.seed)
        seed = 1000 * o.seed + 10 * number + part
        micrographs = MICROGRAPHS * len(squares) // SQUARES
        simulate(
            volume,
            o.pixel_size,
            made,
            count=count,
            snr=o.snr,
            max_shift=o.max_shift,
            micrographs=micrographs,
            disturbances=disturbances,
            seed=seed,
        )
        blocks, images = read_star(made / "particles.star"), np.array(open_stack(made / "particles.mrcs"))
        table = blocks["particles"]
        names, index = np.unique(table.texts("rlnMicrographName"), return_inverse=True)
        rows = [] if self.star.exists() or number > 1 or part else _head(blocks)
        micrograph_of = {}
        for micrograph in range(len(names)):
            square = f"GridSquare_{number}{squares[micrograph % len(squares)]:02d}"
            name = f"{square}/Data/FoilHole_{number}{part}{micrograph:03d}_Data"
            stack = Path("Extract") / "job009" / f"{name}.mrcs"
            micrograph_of[names[micrograph]] = f"{name}.mrc"
            of_it = np.flatnonzero(index == micrograph)
            (self.root / stack).parent.mkdir(parents=True, exist_ok=True)
            write_stack(self.root / stack, images[of_it], o.pixel_size, np.float16)
            for image, row in enumerate(of_it, start=1):
                values = {key: texts[row] for key, texts in table.columns.items()}
                values |= {"rlnImageName": f"{image:06d}@{stack}", "rlnMicrographName": f"{name}.mrc"}
                rows.append("\t".join(values.values()) + "\n")
        self._add_patches(made, f"part{number}_{part}", micrograph_of)
        if not (self.root / "truth.mrc").exists():
            shutil.copy(made / "truth.mrc", self.root / "truth.mrc")
        shutil.rmtree(made)
        return rows

    def _add_patches(self, made: Path, name: str, micrograph_of: dict[str, str]) -> None:
        """Append the background patches, a stack for each portion."""
        blocks = read_star(made / "noise.star")
        table = next(iter(blocks.values()))
        (self.root / "Noise").mkdir(exist_ok=True)
        shutil.move(made / "noise.mrcs", self.root / "Noise" / f"{name}.mrcs")
        new = not self.noise.exists()
        with self.noise.open("a") as file:
            if new:
                file.write("\n# version 30001\n\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnMicrographName #2\n")
            for image, micrograph in zip(table.texts("rlnImageName"), table.texts("rlnMicrographName"), strict=True):
                file.write(f"{image.partition('@')[0]}@Noise/{name}.mrcs\t{micrograph_of[micrograph]}\n")


def _head(blocks: dict[str, StarTable]) -> list[str]:
    lines = []
    for name in ("optics", "particles"):
        columns = blocks[name].columns
        lines += ["\n# version 30001\n", f"\ndata_{name}\n", "\nloop_\n"]
        lines += [f"_{column} #{number}\n" for number, column in enumerate(columns, start=1)]
        if name == "optics":
            lines += ["\t".join(row) + "\n" for row in zip(*columns.values(), strict=True)]
    return lines


def is_idle(folder: LiveFolder, taken: int) -> bool:
    """Whether all particles so far are taken up, judged where there is a map, and no map is in the making."""
    status = read_json(folder.status)
    if status.get("particles", 0) < taken or status["task"] or status["waiting"]:
        return False
    made = [read_json(folder.map_record(number)) for number in folder.map_numbers()]
    last = made[-1]["particles"] if made else 0
    due = taken >= status["first"] and taken >= 1.25 * last
    judged = not status["portions_waiting"] or not status["supported"]
    return folder.map_in_making() is None and not due and judged


def follow(collection: Collection, folder: LiveFolder) -> None:
    """Let the portions arrive while the program follows, then have it make the end."""
    o = collection.options
    command = [sys.executable, "-m", "cryogan.cli", "live", str(collection.star), "--out", str(folder.path)]
    command += ["--noise", str(collection.noise)]
    command += ["--symmetry", "D2", "--max-shift", str(o.max_shift), "--seed", str(o.seed), "--first", str(o.first)]
    command += ["--portion", str(min(200, o.portion)), "--interval", "2", "--portion-minutes", "0.5", *o.more]
    collection.star.parent.mkdir(parents=True)
    process = subprocess.Popen(command if o.page else [*command, "--no-page"])
    for number in range(1, PORTIONS + 1):
        began = time.monotonic()
        collection.arrive(number)
        while time.monotonic() - began < 60 * o.minutes / PORTIONS or (
            o.wait and not is_idle(folder, number * o.portion)
        ):
            assert process.poll() is None, "cryogan live has ended"
            time.sleep(1)
        print(f"portion {number}: {time.monotonic() - began:.0f} s", flush=True)
    if o.finish:
        subprocess.run([*command, "--finish"], check=True)
    else:
        folder.stop_request.touch()
    process.wait()


def evaluate(collection: Collection, folder: LiveFolder) -> dict[str, Any]:
    """Compare what was said with what happened, and the maps with the truth."""
    o, alerts = collection.options, [json.loads(line) for line in folder.alerts.read_text().splitlines()]
    said = [alert | {"portion": sum(time <= alert["time"] for time in collection.arrived)} for alert in alerts]
    first_of = {
        "views missing": (kinds.VIEWS_MISSING.code, "", 1),
        "views mended": (kinds.VIEWS_MENDED.code, "", TILTED),
        "square of junk": (kinds.BAD_SQUARE.code, BAD_SQUARE, JUNK),
        "defocus wrong": (kinds.DEFOCUS.code, "", DEFOCUS),
    }
    told, true = {}, set()
    for name, (code, about, happened) in first_of.items() if not o.clean else ():
        found = [i for i, one in enumerate(said) if one["code"] == code and about in ("", one["about"])]
        found = [i for i in found if said[i]["portion"] >= happened]
        told[name] = {"happened_in": happened, "said_in": said[found[0]]["portion"] if found else None}
        true |= set(found)
    junk_portion = {i for i, one in enumerate(said) if one["code"] == kinds.BAD_PORTION.code and not o.clean}
    true |= {i for i in junk_portion if said[i]["portion"] in (JUNK, JUNK + 1)}
    false = [one["sentence"] for i, one in enumerate(said) if i not in true and one["severity"] not in NOTES]
    truth = read_volume(collection.root / "truth.mrc")
    maps = []
    for number in folder.map_numbers():
        record, run = read_json(folder.map_record(number)), folder.map_run(number)
        kept = {
            key: record.get(key)
            for key in ("particles", "start", "verdict", "held_out_A", "half_maps_A", "cpu_seconds")
        }
        maps.append(kept | {"truth_05_A": truth_05(run, truth) if run.map.exists() else None})
    final = truth_05(folder.final, truth) if folder.final.map.exists() else None
    return {
        "options": {key: value for key, value in vars(o).items() if key not in ("scratch", "out")},
        "told": told,
        "false": false,
        "said": [{key: one[key] for key in ("portion", "code", "sentence")} for one in said],
        "maps": maps,
        "final_truth_05_A": final,
        "version": __version__,
        "machine": platform.platform(),
    }


def truth_05(folder: MapFolder, truth: tuple[np.ndarray, float]) -> float:
    """Resolution, A, where the FSC of a map with the truth falls to 0.5."""
    (volume, pixel_size), (found, found_pixel_size) = truth, read_volume(folder.map)
    fitted = resample(found, found_pixel_size, len(volume), pixel_size)
    return resolution_at(fsc(align(fitted, volume, pixel_size).apply(fitted, pixel_size), volume), pixel_size, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the collection and the maps; new")
    parser.add_argument("--out", type=Path, required=True, help="folder of the record")
    parser.add_argument("--clean", action="store_true", help="let nothing happen")
    parser.add_argument("--wait", action="store_true", help="let the next portion come when the last one is done")
    parser.add_argument("--page", action="store_true", help="serve the page")
    parser.add_argument("--no-finish", dest="finish", action="store_false", help="do not make the final run")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the collection, without --wait")
    parser.add_argument("--portion", type=int, default=1000, help="particles of a portion")
    parser.add_argument("--first", type=int, default=1500, help="particles of the first map")
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--pixel-size", type=float, default=3.822)
    parser.add_argument("--snr", type=float, default=0.3)
    parser.add_argument("--max-shift", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("more", nargs="*", help="settings of the maps, after --")
    o = parser.parse_args()
    if o.wait:
        o.minutes = 0.0
    o.scratch.mkdir(parents=True)
    collection, folder = Collection(o.scratch / "project", o), LiveFolder(o.scratch / "live")
    follow(collection, folder)
    record = evaluate(collection, folder)
    o.out.mkdir(parents=True, exist_ok=True)
    path = o.out / f"{'clean' if o.clean else 'disturbed'}_seed{o.seed}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    for key in ("told", "false", "maps", "final_truth_05_A"):
        print(f"{key}: {json.dumps(record[key], indent=1)}", flush=True)


if __name__ == "__main__":
    main()
