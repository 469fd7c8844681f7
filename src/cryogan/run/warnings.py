"""Every note and warning of a run, a check and a report.

Those on particle files are in `cryogan.particles.findings`, the verdicts in `cryogan.run.verdict_kinds`.

Each is defined once and nowhere else. A `Kind` makes a `Finding` from numbers. The log, the report, `--json` and
docs/warnings.md take code, severity and sentence from here; the program itself decides by code or severity, never by
words.
"""

from collections.abc import Iterable

from cryogan.errors import Finding, Kind


def doubts(findings: Iterable[Finding]) -> list[str]:
    """Return the sentences of what is more than a note."""
    return [finding.sentence for finding in findings if finding.severity != "note"]


# Input

IMAGES_READ = Kind(
    "images-read",
    "note",
    "{count} {kind} of {micrographs} micrographs, box {file_box} px of {file_pixel_size:.3f} A; working box {box} px "
    "of {pixel_size:.3f} A.",
)
HALVES_OF_INPUT = Kind(
    "halves-of-input",
    "note",
    "The halves are those of the particle file ({first} and {second} particles).",
    "Add --new-halves to divide the particles anew.",
)
HALVES_BY_MICROGRAPH = Kind(
    "halves-by-micrograph",
    "note",
    "The halves share no micrograph: {first} particles of {first_micrographs} and {second} of {second_micrographs}.",
)
HALVES_BY_PARTICLE = Kind(
    "halves-by-particle",
    "note",
    "The particles are divided at random ({first} and {second}): there are too few micrographs ({micrographs}) to "
    "divide by micrograph. Neighbouring particles share noise, so the FSC of the half maps may be slightly too high.",
)
HALVES_REPLACED = Kind("halves-replaced", "note", "The halves of the particle file are not used (--new-halves).")
TUBES_KEPT_WHOLE = Kind("tubes-kept-whole", "note", "The segments of each of {tubes} helical tubes are in one half.")
COPIES = Kind(
    "copies",
    "warning",
    "{copies} rows repeat the image of another row (duplicates, or symmetry expansion). All copies of an image are in "
    "one half.",
    "Remove the copies unless they are intended: cryogan finds the poses itself.",
)
COPIES_MOVED = Kind(
    "copies-moved",
    "warning",
    "The halves of the particle file separate copies of one image: {moved} particles were moved to the other half.",
)
HALVES_UNEVEN = Kind(
    "halves-uneven",
    "warning",
    "The halves are uneven, {first} and {second} particles: the smaller one limits the resolution.",
    "Add --new-halves to divide the particles anew, or give more micrographs.",
)
COLUMNS_JOINED = Kind("columns-joined", "note", "Columns were joined on uid from {files}.")
ODD_BOX = Kind("odd-box", "warning", "The box of {box} pixels is odd; its last row and column are left out.")
IMAGES_DROPPED = Kind(
    "images-dropped", "warning", "{count} images are constant, blank in part, or hold NaN and are left out."
)
CONTRAST = Kind("contrast", "note", "Protein contrast: {contrast} (z = {z:+.1f} from {images} images).")
CONTRAST_NOT_SURE = Kind(
    "contrast-not-sure",
    "warning",
    "Protein contrast: not sure (z = {z:+.1f} from {images} images): {reason}. Protein has to be bright.",
    "Look at the picture of cryogan check --picture, and add --invert if protein is dark.",
)
DARK_PARTICLES = Kind(
    "dark-particles",
    "warning",
    "The particles look dark on bright. The map is constrained to be positive, so the run will fail.",
    "Add --invert.",
)
PARTICLES_PER_PATCH = Kind(
    "particles-per-patch",
    "note",
    "On average {mean:.2f} particles have their centre in a patch. Their contrast is not measured.",
    "Add --invert if protein is dark.",
)
NOISE_PATCHES = Kind("noise-patches", "note", "{patches} background patches; each particle has one of its micrograph.")
NO_MICROGRAPH_NAMES = Kind(
    "no-micrograph-names",
    "warning",
    "Neither the particles nor the {patches} background patches name their micrographs: any patch is combined "
    "with any particle's CTF.",
    "Add _rlnMicrographName to both.",
)
NOISE_OF_SOME = Kind(
    "noise-of-some",
    "note",
    "{patches} background patches; {share:.0%} of the particles have one of their micrograph, and only the CTFs of "
    "these are simulated.",
)
POSE_PRIOR = Kind("pose-prior", "note", "View directions are drawn from the prior {file} ({rows} rows), {frame}.")
GIVEN_MASK = Kind(
    "given-mask",
    "note",
    "The map is bounded by {file}{changes}, {share:.1%} of the box, in place of a sphere. Both half maps share it, so "
    "that they agree on the outline says nothing.",
)
MEMORY = Kind("memory", "note", "Each half needs about {gib:.1f} GiB of memory.")
GPU_MEMORY = Kind(
    "gpu-memory", "note", "Both halves need about {gib:.1f} GiB of the {free:.1f} GiB that are free on {device}."
)
GPU_MEMORY_SHARED = Kind(
    "gpu-memory-shared",
    "note",
    "Both halves need about {gib:.1f} GiB of the {free:.1f} GiB that are free on {device}, with {images} images at a "
    "time. The result is the same.",
)
GPU_MEMORY_SHORT = Kind(
    "gpu-memory-short",
    "warning",
    "Both halves need about {gib:.1f} GiB, but only {free:.1f} GiB are free on {device}: the run will probably run out "
    "of memory.",
    "Give a smaller --box.",
)
MEMORY_SHORT = Kind(
    "memory-short",
    "warning",
    "Both halves need about {gib:.1f} GiB, but only {free:.1f} GiB of this machine's memory are free.",
    "Give a smaller --box, or take another machine.",
)
NO_SYMMETRY = Kind(
    "no-symmetry",
    "warning",
    "No symmetry is imposed.",
    "Give --symmetry if the molecule has one; a run without it suggests one at its end if its half maps have it.",
)
NO_NOISE = Kind(
    "no-noise-patches",
    "warning",
    "There are no background patches: Gaussian noise is simulated instead.",
    "Give --noise if possible.",
)
FILTERED = Kind(
    "filtered-images",
    "warning",
    "The noise has almost no power at {resolution:.1f} A: the images may have been filtered.",
    "Give the particles as extracted, without a filter.",
)
GRADIENT_KEPT = Kind(
    "gradient-kept",
    "warning",
    "The background has a gradient, a ramp of {ramp:.2f} s.d. at the edge of the box, which is kept. It can end in a "
    "wrong map with a good FSC.",
    "Leave out --keep-gradient.",
)
CTF_GAP = Kind(
    "ctf-gap",
    "warning",
    "The CTFs of the set transfer almost nothing at {resolutions} A: the map will lack these frequencies.",
)

# Particles

PARTICLES_REJECTED = Kind(
    "particles-rejected",
    "note",
    "{kept} of {count} particles show the map ({kept_list}), {rejected} do not ({rejected_list}). The weights, each "
    "the probability that a particle shows it, sum to {weight:.0f}.",
)

# Machine

NO_GPU = Kind("no-gpu", "warning", "No CUDA device is visible: runs use the CPU.")
LITTLE_DISK = Kind(
    "little-disk", "warning", "Little disk space is left, and a run writes about 100 MB.", "Free disk space."
)
SMALLER_BATCHES = Kind(
    "smaller-batches",
    "note",
    "{who} ran out of memory and continues with {images} images at a time. The result is the same.",
)

# Result

HAND_UNKNOWN = Kind(
    "hand-unknown",
    "note",
    "The hand is unknown: projections of a map and of its mirror image look alike.",
    "Determine it once helices are resolved, and mirror the map with cryogan flip-hand if necessary.",
)
HALVES_DISAGREE = Kind(
    "halves-disagree",
    "error",
    "The half maps disagree (correlation {correlation:.2f} after alignment): at least one of them is wrong. Do not use "
    "this map.",
    "Run again with --repeats 3 or more --starts.",
)
HALVES_MIRRORED = Kind(
    "halves-mirrored",
    "warning",
    "Half 2 fits half 1 almost as well mirrored: at this resolution the halves may be of different hands, which blurs "
    "their mean.",
    "Compare the half maps before you use their mean.",
)
OUTLINE_ONLY = Kind(
    "outline-only",
    "warning",
    "The half maps agree only to {resolution:.0f} A, little more than the outline. Two halves can agree on a wrong "
    "outline.",
    "Run again with --repeats 3.",
)
RUNS_DIFFER = Kind(
    "runs-differ",
    "warning",
    "The {runs} runs give {structures} different structures ({groups}): one at least is wrong, unless the particles "
    "show several.",
    "Do not rely on the most frequent one alone: look at what supports it, and make more runs.",
)
RUNS_DISAGREE = Kind(
    "runs-disagree",
    "error",
    "No two of the {runs} runs give the same structure: the particles do not determine it. Do not use these maps.",
    "Give more --starts, the right --symmetry and --particle-diameter, or more and cleaner particles.",
)
RUNS_BETTER_ELSEWHERE = Kind(
    "runs-better-elsewhere",
    "warning",
    "{better} gives another structure than most runs do, and fits the particles kept for choosing better: the most "
    "frequent structure may be the wrong one.",
    "Look at both, and make more runs.",
)
RUNS_NOT_SCORED = Kind(
    "runs-not-scored",
    "note",
    "The runs are not scored, so none is the best: they have no picked particles in common at one working box.",
)
TIGHT_BOX = Kind(
    "tight-box",
    "warning",
    "{share:.0%} of the molecule lies at the border of the spherical mask: the box may be too tight.",
    "Extract the particles with a larger box.",
)
FSC_DIP = Kind(
    "fsc-dip",
    "warning",
    "The FSC dips at low frequencies.",
    "Look for a second structure or many false particles (--classes 2), or a wrong pixel size.",
)
VIEWS_MISSING = Kind(
    "views-missing",
    "warning",
    "Views are missing (preferred orientation): {share:.0%} of the directions in Fourier space are sampled by less "
    "than {rare:.0%} of the views that a uniform distribution would give, and the map is smeared along them.",
    "Add particles of rare views, or micrographs of a tilted stage.",
)
ANISOTROPIC = Kind(
    "anisotropic",
    "warning",
    "The resolution depends on the direction: {fine:.1f} to {coarse:.1f} A in nine tenths of the directions (cFAR "
    "{ratio:.2f}; below 0.5 is taken for preferred orientation). The map is smeared along the coarse ones.",
    "Look at the picture of directions. Add particles of rare views, or micrographs of a tilted stage.",
)
PRIOR_MISFIT = Kind(
    "prior-misfit",
    "warning",
    "The prior on the views fits the particles in no rotation (correlation {correlation:.2f}): it belongs to another "
    "molecule or grid, or the map is wrong.",
    "Run again without --pose-prior, or with --learn-poses.",
)
SYMMETRY_FOUND = Kind(
    "symmetry-found",
    "note",
    "The half maps have the symmetry {symmetry}, which was not imposed: score {score:.2f}, where 1 is all that they "
    "agree on to {finest:.1f} A, and chance reaches {chance}.",
    "If it is that of the molecule, run again with --symmetry {symmetry}.",
)
SYMMETRY_NEAR = Kind(
    "symmetry-near",
    "note",
    "The half maps nearly have the symmetry {symmetry}: score {score:.2f}, where 1 is all that they agree on to "
    "{finest:.1f} A, and chance reaches {chance}.",
    "Either the units differ, which --symmetry {symmetry} would average away, or the map is distorted. Run again with "
    "it only if it is known to be that of the molecule, and compare the verdicts.",
)
SYMMETRY_ROUND = Kind(
    "symmetry-round",
    "note",
    "The half maps look alike under turns that no point group joins of those looked for ({symmetries}): about an axis, "
    "any turn may fit.",
    "Impose none of them until finer detail tells which.",
)
SYMMETRY_NONE = Kind(
    "symmetry-none",
    "note",
    "The half maps have no symmetry: of all groups {symmetry} fits best, with the score {score:.2f}, where 1 is all "
    "that they agree on to {finest:.1f} A, and chance reaches {chance}.",
)
SYMMETRY_UNKNOWN = Kind("symmetry-unknown", "note", "Symmetry was not looked for: {reason}")
CONVERGED = Kind(
    "converged",
    "note",
    "Converged: over the last {part:.0%} of the run's work the map changed by {change:.1%} a step{trend}.",
)
NOT_CONVERGED = Kind(
    "not-converged",
    "warning",
    "Not converged: over the last {part:.0%} of the run's work the map changed by {change:.1%} a step{trend}.",
    "More {setting} may help.",
)
OUT_OF_TIME = Kind(
    "out-of-time",
    "warning",
    "Not converged: --max-minutes ended the run after {steps} of {planned} steps.",
    "Allow more time.",
)
OUT_OF_TIME_IN_SEARCH = Kind(
    "out-of-time-in-search",
    "warning",
    "Not converged: --max-minutes ended the run after {steps} of {planned} steps, before the search for a map was "
    "done; the half maps, their mask and their FSC show a map in the making.",
    "Go on with cryogan reconstruct --resume before anything else.",
)
