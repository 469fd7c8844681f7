"""Every note and warning on particle files: each is defined here once and nowhere else."""

from cryogan.errors import Kind

EVEN_ZERNIKE = Kind(
    "even-zernike",
    "note",
    "{file}: the terms of _rlnEvenZernike change the defocus, astigmatism, phase shift and Cs that are used.",
)
MAGNIFICATION = Kind(
    "magnification",
    "note",
    "{file}: the magnification differs by up to {percent:.2g} % with the direction ({pixels:.2g} working pixels at the "
    "particle's edge). The images are corrected for it.",
)
BEAM_TILT = Kind(
    "beam-tilt",
    "note",
    "{file}: a beam tilt of up to {mrad:.2g} mrad ({degrees:.2g} degrees of phase at the working Nyquist frequency). "
    "The images are corrected for it.",
)
TREFOIL = Kind(
    "trefoil",
    "note",
    "{file}: a trefoil of up to {degrees:.2g} degrees of phase at the working Nyquist frequency. The images are "
    "corrected for it.",
)
PHASE_FLIPPED = Kind(
    "phase-flipped",
    "note",
    "{file}: the phases of {images} of {of} images were flipped. Those of simulated images are flipped, too.",
)
ABERRATIONS_WEAK = Kind(
    "aberrations-weak",
    "note",
    "{file}: {column} has terms that are not modelled, of up to {degrees:.2g} degrees of phase at the working Nyquist "
    "frequency ({group}), too little to matter.",
)
ABERRATIONS = Kind(
    "aberrations",
    "warning",
    "{file}: {column} has terms that are not modelled, of up to {degrees:.2g} degrees of phase at the working Nyquist "
    "frequency ({group}). They blur the finest detail.",
)
ABERRATIONS_STRONG = Kind(
    "aberrations-strong",
    "error",
    "{file}: {column} has terms that are not modelled, of up to {degrees:.3g} degrees of phase at the working Nyquist "
    "frequency ({group}), too strong to be left out.",
    "Give a smaller --box, or particles from before CTF refinement.",
)
B_FACTOR_OF_TILT_SERIES = Kind(
    "b-factor-of-tilt-series",
    "error",
    "{file}: the B-factor of the CTF is negative for {particles} of {of} particles, down to {least_A2:g} A^2, which "
    "would amplify the CTF {growth:.2g}-fold. Warp and M write decay with a minus sign, for the images of a tilt "
    "series, which are not supported.",
    "Give 2-D particles, or remove the column.",
)
B_FACTOR_NEGATIVE = Kind(
    "b-factor-negative",
    "warning",
    "{file}: the B-factor of the CTF is negative for {particles} of {of} particles, down to {least_A2:g} A^2, which "
    "amplifies their CTF up to {growth:.2g}-fold.",
    "Remove the column if this is not intended.",
)
TILT_SERIES = Kind(
    "tilt-series",
    "warning",
    "{file}: the particles come from tomograms (_rlnTomoName). Their images are taken as independent, which images of "
    "one tilt series are not.",
)
HELICAL_SEGMENTS = Kind(
    "helical-segments",
    "warning",
    "{file}: {segments} segments of {tubes} helical tubes. Their boxes overlap, and no helical symmetry is imposed.",
)
GRIDS = Kind(
    "several-grids",
    "note",
    "{file}: the images differ in box or pixel size ({kinds}). They are resampled to a box of {box} px of "
    "{pixel_size_A:.4g} A.",
)
GRIDS_FAR_APART = Kind(
    "grids-far-apart",
    "warning",
    "{file}: pixel sizes differ more than twofold ({kinds}). All images are resampled to a box of {box} px of "
    "{pixel_size_A:.4g} A.",
    "Leave out the coarsest ones for a finer map, or correct them.",
)
PIXEL_SIZE_DIFFERS = Kind(
    "pixel-size-differs",
    "warning",
    "{file}: the pixel size is {metadata_A:g} A, but the header of {stack} says {header_A:.4g} A ({stacks} of {of} "
    "stacks). {metadata_A:g} A is used.",
    "Correct it if the images were rescaled.",
)
BLOB_SIGN = Kind("blob-sign", "note", "{file}: blob/sign is {sign}, by which protein is {colour} in the images.")
BLOB_SIGN_DARK = Kind(
    "blob-sign-dark",
    "warning",
    "{file}: blob/sign is {sign}, by which protein is dark in the images. The map is kept positive.",
    "Add --invert.",
)
BLOB_SIGN_BRIGHT = Kind(
    "blob-sign-bright",
    "warning",
    "{file}: blob/sign is {sign}, by which protein is bright in the images, but --invert makes it dark.",
    "Leave out --invert.",
)

NOTES = (EVEN_ZERNIKE, MAGNIFICATION, BEAM_TILT, TREFOIL, PHASE_FLIPPED, ABERRATIONS_WEAK, GRIDS, BLOB_SIGN)
"""Notes that `cryogan check` shows among its facts."""


def _doubtful(code: str, problem: str, remedy: str) -> Kind:
    """Define a doubt about a CTF parameter of some rows."""
    sentence = "{file}: {column} of {rows} of {of} particles " + problem + " (first: {first}, {value:g})."
    return Kind(code, "warning", sentence, remedy)


CS_NEGATIVE = _doubtful("cs-negative", "is negative", "This is right only with an aberration corrector.")
CS_LARGE = _doubtful("cs-large", "is above 10 mm", "Check that it is in mm.")
CS_SMALL = _doubtful(
    "cs-small",
    "is below 0.01 mm",
    "If it is in metres, multiply it by 1000. It is right only with an aberration corrector.",
)
OVERFOCUS = _doubtful(
    "overfocus", "is negative (overfocus)", "Underfocus is positive here. Remove these rows if the fit failed."
)
NEAR_FOCUS = _doubtful("near-focus", "is almost zero", "Remove these rows if the CTF fit failed.")
WEAK_DEFOCUS = _doubtful("weak-defocus", "is below 2500 A", "If it is in nanometres, multiply it by 10.")
STRONG_DEFOCUS = _doubtful("strong-defocus", "is above 10 micrometres", "Remove these rows if the CTF fit failed.")
ASTIGMATIC = _doubtful(
    "astigmatic",
    "differs by more than half from that of the other axis (astigmatism)",
    "Remove these rows if the CTF fit failed.",
)
