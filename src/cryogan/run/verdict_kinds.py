"""The verdicts on a map, as `cryogan.run.warnings` has all other notes and warnings of a run."""

from cryogan.errors import Kind

RESOLVED = Kind(
    "resolved",
    "note",
    "Resolved to {resolution:.1f} A ({half}, {held_out}).",
)
SHAPE = Kind(
    "low-resolution-shape",
    "warning",
    "Low-resolution shape only, to {resolution:.0f} A ({half}, {held_out}).",
    "Do not build on its details; give more particles, or look at the likelier of several seeds (--repeats).",
)
FEATURELESS = Kind(
    "featureless",
    "error",
    "Featureless: {half}, but it is a ball or a hollow shell (its radial average explains {radial:.0%} of it), and "
    "{held_out}. No resolution can be given.",
    "Give the symmetry if there is one, more particles, or a larger --box.",
)
HALVES = Kind(
    "halves-differ",
    "error",
    "Halves disagree: their correlation is {correlation:.2f} after alignment, so at least one of them is wrong. No "
    "resolution can be given.",
    "Run again with another --seed or more --starts.",
)
ONE_HALF = Kind(
    "one-half",
    "error",
    "Only half map {good} is supported by held-out particles, to {alone:.1f} A. Half map {bad} is not, so their mean "
    "is worse than half map {good} ({half}).",
    "Run again with another --seed or more --starts, and look at half map {good} until then.",
)
DARK = Kind(
    "wrong-contrast",
    "error",
    "Wrong or undecided: {half} and {held_out}, but protein is dark in the particles, and the map shows a hole in its "
    "place. No resolution can be given.",
    "Give --invert (or leave it out), or look for a wrong sign of the defocus.",
)
INVERTED = Kind(
    "inverted-map",
    "error",
    "Wrong or undecided: {half} and {held_out}, but the map is inverted: what is dense in it is the solvent. No "
    "resolution can be given.",
    "Look for a wrong sign of the defocus; or give --invert (or leave it out).",
)
WRONG_SYMMETRY = Kind(
    "wrong-symmetry",
    "error",
    "Wrong or undecided: {half} and {held_out}, but the initial search, which is made without symmetry, found a map "
    "that does not have {symmetry}: its score is {score:.2f} +- {error:.2f}, not 1. No resolution can be given.",
    "Run again with --symmetry C1, and then: cryogan symmetry",
)
UNDECIDED = Kind(
    "undecided",
    "error",
    "Wrong or undecided: {half}, but {held_out}. No resolution can be given.",
    "Compare several seeds (--repeats), and look for what all images share and no particle is.",
)
MISMATCH = Kind(
    "mismatch",
    "error",
    "Wrong or undecided: {half}, but particles hold only {share:.0%} of what the half maps agree on at {at:.1f} A. No "
    "resolution can be given.",
    "Try another symmetry (--symmetry C1), and look for junk, several structures (--classes 2), or a wrong defocus.",
)
MORE_SIGNAL = Kind(
    "more-signal",
    "warning",
    "The particles hold more than the map shows: at {at:.1f} A its share of their signal is {share:.0%} of that of a "
    "complete map.",
    "Look for junk (cryogan poses), several structures (--classes 2), parts that move, or background patches with less "
    "noise than the particles have.",
)
ONE_MAP = Kind(
    "one-map",
    "warning",
    "With one map the particles are held out only if none of them had a part in it: this verdict is for a map of other "
    "particles, or of a model.",
    "For a map of these particles give both half maps.",
)
