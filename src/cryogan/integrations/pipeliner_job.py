"""The job `cryogan.initialmodel` of the CCP-EM Pipeliner and of Doppio: its form, its nodes, and what it shows.

The job starts `cryogan_relion`, the External job of RELION, which makes the run and the list of nodes.
"""

from pathlib import Path
from typing import Any

from pipeliner.data_structure import (
    NODE_DENSITYMAP,
    NODE_MASK3D,
    NODE_MICROGRAPHGROUPMETADATA,
    NODE_PARTICLEGROUPMETADATA,
)
from pipeliner.display_tools import create_results_display_object, make_maps_slice_montage_and_3d_display
from pipeliner.external_program_utils import ExternalProgram
from pipeliner.job_options import (
    EXT_MRC_MAP,
    EXT_STARFILE,
    BooleanJobOption,
    FileDescription,
    FloatJobOption,
    InputNodeJobOption,
    IntJobOption,
    StringJobOption,
)
from pipeliner.pipeliner_job import PipelinerCommand, PipelinerJob, Ref

from cryogan import __version__
from cryogan.config import Settings
from cryogan.integrations.folder import JobFolder
from cryogan.run.folder import MapFolder

# The Pipeliner makes every job to list them: what computes is imported where it is needed.

PAPER = Ref(
    authors=["Gupta H", "McCann MT", "Donati L", "Unser M"],
    title="CryoGAN: A New Reconstruction Paradigm for Single-Particle Cryo-EM Via Deep Adversarial Learning",
    journal="bioRxiv",
    year="2020",
    doi="10.1101/2020.03.20.001016",
)
_KEYWORDS = ["cryogan", "initialmodel"]


class InitialModel(PipelinerJob):  # type: ignore[misc]  # a package without types
    """Ab initio map of single particles."""

    PROCESS_NAME = "cryogan.initialmodel"
    OUT_DIR = "InitialModel"
    CATEGORY_LABEL = "Initial Model Generation"

    def __init__(self) -> None:
        super().__init__()
        info = self.jobinfo
        info.display_name = "CryoGAN initial model"
        info.version, info.job_author = __version__, "The CryoGAN developers"
        info.short_desc = "Ab initio map from particles, without poses"
        info.long_desc = (
            "A simulator makes images of the current map in random orientations, a critic compares them with the real "
            "particles, and the map is updated until the two can no longer be told apart. Makes two half maps, their "
            "FSC, and a verdict on how far the map can be believed."
        )
        info.can_continue = True
        info.programs = [ExternalProgram("cryogan_relion", name="CryoGAN", vers_com=["cryogan", "--version"])]
        info.references = [PAPER]
        self._add_inputs()
        self._add_settings()
        self.get_runtab_options(threads=True, addtl_args=True)

    def _add_inputs(self) -> None:
        star, mrc = FileDescription("STAR file", EXT_STARFILE), FileDescription("MRC map", EXT_MRC_MAP)
        self.joboptions["fn_img"] = InputNodeJobOption(
            label="Input particles:",
            node_type=NODE_PARTICLEGROUPMETADATA,
            pattern=star,
            help_text="Extracted particles with CTF. Protein has to be bright.",
            is_required=True,
        )
        self.joboptions["fn_mic"] = InputNodeJobOption(
            label="Input micrographs:",
            node_type=NODE_MICROGRAPHGROUPMETADATA,
            pattern=star,
            help_text="The micrographs of the particles, from which background patches are cut. Empty: the noise gets "
            "the spectrum measured outside the particles.",
        )
        self.joboptions["fn_mask"] = InputNodeJobOption(
            label="Mask:",
            node_type=NODE_MASK3D,
            pattern=mrc,
            help_text="Bounds the map in place of a sphere.",
        )

    def _add_settings(self) -> None:
        fields = Settings.model_fields

        def common(name: str, label: str) -> dict[str, Any]:
            return {"label": label, "help_text": fields[name].description or ""}

        self.joboptions["symmetry"] = StringJobOption(
            **common("symmetry", "Symmetry:"), default_value="C1", is_required=True
        )
        self.joboptions["particle_diameter"] = FloatJobOption(
            **common("particle_diameter", "Particle diameter (A):"), default_value=None, hard_min=0
        )
        self.joboptions["classes"] = IntJobOption(
            **common("classes", "Number of classes:"), default_value=1, hard_min=1
        )
        self.joboptions["box"] = IntJobOption(**common("box", "Working box (pixels):"), default_value=None, hard_min=16)
        self.joboptions["max_minutes"] = FloatJobOption(
            **common("max_minutes", "Time limit (minutes):"), default_value=None, hard_min=0, in_continue=True
        )
        self.joboptions["refine"] = BooleanJobOption(
            **common("refine", "Find poses, and refine?"), default_value=False, in_continue=True
        )

    def create_output_nodes(self) -> None:
        """Add the nodes whose names are known before the job runs."""
        folder = JobFolder(Path())
        for path, node_type, keywords in (
            (folder.map, NODE_DENSITYMAP, _KEYWORDS),
            *((half_map, NODE_DENSITYMAP, [*_KEYWORDS, "halfmap"]) for half_map in folder.half_maps),
            (folder.mask, NODE_MASK3D, _KEYWORDS),
            (self._source(folder).particles, NODE_PARTICLEGROUPMETADATA, ["relion", *_KEYWORDS]),
        ):
            self.add_output_node(str(path), node_type, keywords)

    def create_post_run_output_nodes(self) -> None:
        """Add those that the job has made besides: particles kept and rejected, maps and particles of classes."""
        from cryogan.particles import read_star

        known = {node.name for node in self.output_nodes}
        nodes = read_star(self._folder.output_nodes)["output_nodes"]
        for name, label in zip(
            nodes.texts("rlnPipeLineNodeName"), nodes.texts("rlnPipeLineNodeTypeLabel"), strict=True
        ):
            if name not in known:
                node_type, _, *keywords = label.split(".")
                self.add_output_node(str(Path(name).relative_to(self.output_dir)), node_type, [*keywords, *_KEYWORDS])

    def get_commands(self) -> list[PipelinerCommand]:
        """Return the External job of RELION with what the form says."""
        command = ["cryogan_relion", "--o", self.output_dir]
        inputs = {"fn_img": "in_parts", "fn_mic": "in_mics", "fn_mask": "in_mask", "nr_threads": "j"}
        settings = ("symmetry", "particle_diameter", "classes", "box", "max_minutes", "refine")
        for option, label in (inputs | {name: name for name in settings}).items():
            if value := self.joboptions[option].value_string:
                command += [f"--{label}", value]
        return [PipelinerCommand([*command, *self.parse_additional_args()])]

    def create_results_display(self) -> list[Any]:
        """Return the verdict, slices and surfaces of the maps, the FSC, and the report."""
        from cryogan.run.verdict import read_verdict

        folder = self._folder
        maps = {str(folder.map): "Map"} | {
            str(MapFolder(folder.path / one.path.name).map): one.path.name for one in self._classes(folder)
        }
        shown: list[Any] = make_maps_slice_montage_and_3d_display(in_maps=maps, output_dir=self.output_dir)
        if (verdict := read_verdict(folder.run)) is not None:
            text = "\n".join(
                [verdict.finding.sentence, *(f"{name}: {fact}" for name, fact in verdict.sentences.items())]
            )
            shown.insert(0, create_results_display_object("text", title="Verdict", display_data=text))
        report = str(folder.run.report)
        shown.append(_fsc_graph(self._source(folder)))
        shown.append(
            create_results_display_object(
                "html", title="Report", html_file=report, associated_data=[report], start_collapsed=True
            )
        )
        return shown

    def gather_metadata(self) -> dict[str, Any]:
        """Return the verdict and its evidence."""
        from cryogan.run.verdict import read_verdict

        verdict = read_verdict(self._folder.run)
        return {"verdict": "none"} if verdict is None else verdict.values

    def prepare_onedep_deposition_data(self) -> list[Any]:
        """Return what a deposition of a map says of its first model."""
        data = {
            "details": self.jobinfo.short_desc,
            "insilico_model": f"CryoGAN {__version__}, ab initio from the particles",
            "type": "INSILICO MODEL",
        }
        return [self.add_onedep_deposition_data(category="em_start_model", data_dict=data)]

    @property
    def _folder(self) -> JobFolder:
        return JobFolder(Path(self.output_dir))

    def _source(self, folder: JobFolder) -> MapFolder:
        """Where the job's particles and FSC are."""
        return folder.source(refined=self.joboptions["refine"].get_boolean())

    def _classes(self, folder: JobFolder) -> list[MapFolder]:
        """The folders of the classes, where there are several."""
        numbers = range(1, int(self.joboptions["classes"].get_number()) + 1)
        return [one for one in map(folder.run.class_folder, numbers) if one.map.exists()]


def _fsc_graph(folder: MapFolder) -> Any:
    """The FSC curves in a folder."""
    from cryogan.run.fsc_files import read_fsc

    frequency, curves = read_fsc(folder)
    return create_results_display_object(
        "graph",
        title="FSC of the half maps",
        xvalues=[frequency.tolist()] * len(curves),
        yvalues=[curve.tolist() for curve in curves.values()],
        xaxis_label="Frequency (1/A)",
        yaxis_label="FSC",
        data_series_labels=[name.replace("_", "-") for name in curves],
        associated_data=[str(folder.fsc_star)],
        modes=["lines"] * len(curves),
    )
