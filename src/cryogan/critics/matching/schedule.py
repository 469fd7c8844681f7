"""Schedule of the matching critic: which frequencies take part in a step, and how many steps there are."""

import math

from cryogan.config import Settings

SEARCH_SHELLS = (6.0, 9.0)  # cut-off at the start and at the end of the initial search, cycles per box
BANK_SHELL = 11.0  # largest cut-off of the template bank in frequency marching
# Of the search with symmetry: cut-off of its trials for a part of their steps; at their end, where right maps are
# likelier than wrong ones; and that to which the best one rises.
SYMMETRIC_SHELLS = (13.0, 16.0, 20.0)
_TRIAL_STAYS, _RISES = 0.75, 0.8  # parts of the steps of a trial, and of the rise
CUTOFF_GROWTH = 1.25  # factor on the cut-off from one step of frequency marching to the next
# Of the search's steps, after which cut-off and attention stay. Most steps come after: where the signal is weak, the
# likelihood rises slowly, and stands still in between.
_CUTOFF_SHARE, _TEMPERATURE_SHARE = 0.175, 0.2
# Of w, by which the search moves the map: at first, and at the end, where short moves average over batches.
SEARCH_RATES = (0.3, 0.08)
_RATE_SHARE = 0.7  # of the search's steps, after which the rate falls


def is_symmetric(settings: Settings) -> bool:
    """Return whether the initial search has the symmetry from zero: that of a polyhedron, T, O or I."""
    return settings.kind == "particles" and settings.symmetry.strip().upper()[:1] in {"T", "O", "I"}


def found_shell(settings: Settings) -> float:
    """Return the shell to which the initial search finds the map."""
    return SYMMETRIC_SHELLS[-1] if is_symmetric(settings) else SEARCH_SHELLS[1]


def bank_shell(settings: Settings) -> float:
    """Return the largest cut-off of the template bank: its frequencies tell the views of the map apart."""
    return max(BANK_SHELL, found_shell(settings))


def bank_share(settings: Settings) -> float:
    """Return how many orientations the template bank has, of those that its cut-off needs without such symmetry."""
    return (bank_shell(settings) / BANK_SHELL) ** 3


def symmetric_cutoff(step: int, steps: int, box: int, *, rises: bool) -> float:
    """Return the shell below which frequencies take part in a step of the search with symmetry, or of its rise."""
    found, agreed, last = SYMMETRIC_SHELLS
    done = step / steps
    if rises:
        return min(box / 2, agreed + (last - agreed) * min(1.0, done / _RISES))
    return min(box / 2, found + (agreed - found) * max(0.0, done - _TRIAL_STAYS) / (1 - _TRIAL_STAYS))


def symmetric_share(cutoff: float) -> float:
    """Return how many orientations the search with symmetry tries, of those of the search without."""
    return 1.5 * (cutoff / SEARCH_SHELLS[1]) ** 3


def search_cutoff(step: int, steps: int) -> float:
    """Return the shell below which frequencies take part in a step of the initial search."""
    first, last = SEARCH_SHELLS
    return first + (last - first) * min(1.0, step / steps / _CUTOFF_SHARE)


def search_rate(step: int, steps: int) -> float:
    """Return the part of w by which the map moves in a step of the initial search."""
    first, last = SEARCH_RATES
    return first * math.pow(last / first, max(0.0, (step / steps - _RATE_SHARE) / (1 - _RATE_SHARE)))


def inverse_temperature(step: int, steps: int, flat: float, sharp: float) -> float:
    """Return the factor on the log-likelihood ratios in (ii) of docs/method.md, at a step of the initial search.

    It rises exponentially from `flat`, where all poses have about the same attention, to `sharp`.
    """
    return float(flat * (sharp / flat) ** min(1.0, step / steps / _TEMPERATURE_SHARE))


def marching_cutoff(step: int, box: int, held: int = 0, found: float = SEARCH_SHELLS[1]) -> float:
    """Return the shell below which frequencies take part in a step of frequency marching.

    Args:
        step: Volume updates so far.
        box: Box, pixels.
        held: Number of steps that have the first cut-off.
        found: Shell to which the search has found the map.
    """
    return min(box / 2, found * CUTOFF_GROWTH ** (max(0, step - held) + 1))


def held_steps(settings: Settings) -> int:
    """Return for how many steps frequency marching holds its first cut-off, so that the classes come apart."""
    return 1 + settings.class_steps * (settings.classes - 1) if settings.classes > 1 else 0


def divides(step: int, settings: Settings) -> bool:
    """Return whether a class is divided at a step of frequency marching."""
    return 0 < step < held_steps(settings) and (step - 1) % settings.class_steps == 0


def marching_steps(box: int, after: int, held: int = 0, found: float = SEARCH_SHELLS[1]) -> int:
    """Return the number of steps of frequency marching.

    Args:
        box: Box, pixels; the cut-off rises to its Nyquist frequency.
        after: Number of steps at the last cut-off.
        held: Number of steps at the first cut-off, as for `marching_cutoff`.
        found: As for `marching_cutoff`.
    """
    rising = math.ceil(math.log(box / 2 / found) / math.log(CUTOFF_GROWTH))
    return held + max(0, rising) + after
