"""Schedules of the Wasserstein critic, as functions of the progress t from 0 to 1."""


def falling_rate(t: float, hold: float, final: float) -> float:
    """Return the factor of learning rates and smoothing: 1 until `hold`, then exponential to `final`.

    The paper's 8 % an epoch is hold 0 and final 0.92**epochs.
    """
    return float(final ** (max(0.0, t - hold) / (1.0 - hold)))


def rising_clip(t: float, ramp: float) -> float:
    """Return the factor of the gradient clips: linear from 0 to 1 over the first `ramp` of the run."""
    return min(1.0, t / ramp) if ramp > 0 else 1.0


def clip_depth(t: float, final: float) -> float:
    """Return the depth of the volume's lower bound at its centre: linear from 0 (positivity) to `final`."""
    return final * t
