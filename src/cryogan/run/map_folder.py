"""A folder with two half maps and what belongs to them: the name of every file in it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MapFolder:
    """A folder with two half maps in one frame and what belongs to them: of a run, a class, a refinement.

    Attributes:
        path: the folder.
    """

    path: Path

    def half_map(self, half: int) -> Path:
        """Half map 1 or 2, under the name that RELION looks for; both are in the frame of half 1."""
        return self.path / f"half{half}_map_unfil.mrc"

    @property
    def half_maps(self) -> tuple[Path, Path]:
        """Both half maps."""
        return self.half_map(1), self.half_map(2)

    @property
    def map(self) -> Path:
        """Mean of the half maps."""
        return self.path / "map.mrc"

    @property
    def mask(self) -> Path:
        """Soft mask around the molecule."""
        return self.path / "mask.mrc"

    @property
    def fsc_star(self) -> Path:
        """Fourier shell correlation of the half maps, with RELION's column names."""
        return self.path / "fsc.star"

    @property
    def fsc_csv(self) -> Path:
        """The curves of `fsc_star` as comma-separated values."""
        return self.path / "fsc.csv"

    @property
    def fsc_xml(self) -> Path:
        """The corrected curve for EMDB."""
        return self.path / "fsc.xml"

    @property
    def chimerax_script(self) -> Path:
        """Commands that show the maps in ChimeraX."""
        return self.path / "open.cxc"

    @property
    def deposition_metadata(self) -> Path:
        """What EMDB asks about a map, as far as a run knows it: an mmCIF file."""
        return self.path / "metadata.cif"

    @property
    def particles(self) -> Path:
        """The particles used, with their half in `_rlnRandomSubset`."""
        return self.path / "particles.star"

    @property
    def kept_particles(self) -> Path:
        """The particles that show the map, with their weights."""
        return self.path / "particles_kept.star"

    @property
    def rejected_particles(self) -> Path:
        """The particles that do not show the map, with their weights."""
        return self.path / "particles_rejected.star"

    @property
    def cryosparc_particles(self) -> Path:
        """The particles that show the map, for cryoSPARC."""
        return self.path / "particles.cs"

    @property
    def cryosparc_rejected(self) -> Path:
        """The particles that do not show the map, for cryoSPARC."""
        return self.path / "particles_rejected.cs"

    @property
    def report(self) -> Path:
        """What came out and what to be careful about: one offline page."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """Folder of the pictures."""
        return self.path / "figures"

    def figure(self, name: str) -> Path:
        """A picture by its name, such as `fsc`."""
        return self.figures / f"{name}.png"
