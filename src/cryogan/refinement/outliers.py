"""Particles that do not show the map: noise, ice, and parts of molecules."""

import numpy as np

AMPLITUDE_SHARE = 0.35  # of the usual amplitude that a particle may lack, and ...
AMPLITUDE_DEVIATIONS = 3.0  # ... this many standard deviations by the noise


def shows_the_map(amplitude: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return which particles show the map, (N,) of bool: those whose amplitude is not far below the median.

    Args:
        amplitude: Amplitudes (N,), as in `Poses`.
        deviation: Their standard deviations (N,).
    """
    usual = float(np.median(amplitude[amplitude > np.median(amplitude) / 2]))
    lacking = np.maximum(AMPLITUDE_SHARE * usual, AMPLITUDE_DEVIATIONS * deviation)
    kept: np.ndarray = amplitude > usual - lacking
    return kept
