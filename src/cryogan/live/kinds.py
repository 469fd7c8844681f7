"""The alerts of `cryogan live`, each one sentence, as `cryogan.run.warnings` has the notes and warnings of a run."""

from cryogan.errors import Kind

INPUT_AWAY = Kind("input-away", "warning", "{path} is not there; what was taken up stays.", "Bring it back.")
INPUT_BACK = Kind("input-back", "note", "{path} is there again.")
INPUT_UNREADABLE = Kind("input-unreadable", "warning", "A particle file or its images cannot be used: {reason}")
VANISHED = Kind("particles-vanished", "note", "{count} particles are no longer listed, and are left out from now on.")
RETURNED = Kind("particles-returned", "note", "{count} particles are listed again.")
REWRITTEN = Kind("particles-rewritten", "note", "{count} particles were rewritten, and are taken up anew.")
UNUSABLE = Kind("images-unusable", "warning", "{count} images are blank, constant or not finite, and are left out.")
DISK_FULL = Kind("disk-full", "warning", "Nothing can be written to {path} ({reason}).", "Free disk space.")
MAP_FAILED = Kind("map-failed", "warning", "Map {number} could not be made: {reason}")
VERDICT_TURNED = Kind("verdict-turned", "warning", "The verdict has turned. Before: {before} Now: {now}")
VERDICT_MENDED = Kind("verdict-mended", "note", "Held-out particles support the map now. Before: {before} Now: {now}")
VIEWS_MISSING = Kind(
    "live-views-missing",
    "warning",
    "Views are missing: {share:.0%} of the directions in Fourier space, about {about}, are hardly sampled.",
    "A stage tilt of {tilt:.0f} degrees would help.",
)
VIEWS_MENDED = Kind(
    "views-mended", "note", "The views that were missing are there: {share:.0%} are hardly sampled now."
)
BAD_SQUARE = Kind(
    "bad-square",
    "warning",
    "Of the particles of {square}, {share:.0%} carry weight; {usual:.0%} do elsewhere.",
    "Leave that square.",
)
BAD_PORTION = Kind(
    "bad-portion",
    "warning",
    "Of the last {count} particles, {share:.0%} carry weight; {usual:.0%} did before.",
    "Look at the picks and the ice.",
)
DEFOCUS = Kind(
    "defocus-wrong",
    "warning",
    "The defocus of the last {count} particles seems wrong, by some {offset:.0f} A: another one explains them better, "
    "by {gain:.0%} of what the map does.",
    "Look at the CTF estimates.",
)
SNR_FELL = Kind(
    "snr-fell",
    "warning",
    "The signal of the last {count} particles has fallen to {share:.0%} of what it was.",
    "Look at ice and dose.",
)
ENOUGH = Kind(
    "enough", "note", "The half maps agree to {resolution:.1f} A: the {target:g} A that are wanted are reached."
)
FINAL_FAILED = Kind("final-run-failed", "warning", "The final run could not be made: {reason}")
FINISHED = Kind("collection-finished", "note", "The final run is made: {verdict}")
