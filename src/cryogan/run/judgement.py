"""What a reader should know before believing a map, and whether a run was at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cryogan.errors import Finding
from cryogan.grids import centred_radius
from cryogan.run import warnings
from cryogan.run.plan import Plan
from cryogan.run.verdict import SAME_FRAME
from cryogan.validation import Alignment, FscCurves

OTHER_HAND = 0.05  # by which the chosen hand must be the better one
NEAR_BORDER = 0.9  # of the spherical mask's radius
TIGHT = 0.02  # share of the solvent mask beyond it
RARE, RARE_SHARE = 0.25, 0.05  # of an even coverage by views, and of all frequencies
PRIOR_FITS = 0.5  # correlation with the views below which a prior seems to be another's
LAST_PART = 0.1  # of a run's work, over which the map should stand still
STILL_MOVING = 0.05  # change of the map a step, of its norm
STILL_GAINING = 0.5  # shells of FSC from one snapshot to the next
COARSE_SHELLS = 8  # an FSC that ends before shell 8 says little more than the envelope


@dataclass(frozen=True)
class Convergence:
    """Whether a run was at its end.

    Attributes:
        reached: whether it was.
        finding: how that was judged.
    """

    reached: bool
    finding: Finding

    @property
    def sentence(self) -> str:
        """How it was judged, in words."""
        return self.finding.sentence


def judge_convergence(
    plan: Plan, courses: Sequence[Sequence[Mapping[str, float]]], fsc_by_step: Mapping[int, np.ndarray]
) -> Convergence:
    """Judge whether the map stood still at the end of the run, and the halves no longer came closer.

    Args:
        plan: plan of the run.
        courses: each half's records, by step.
        fsc_by_step: FSC of the half maps, (D // 2 + 1,) with NaN beyond a coarse box, by step.
    """
    last = min(int(course[-1]["step"]) for course in courses)
    if last < plan.total_steps:
        kind = warnings.OUT_OF_TIME_IN_SEARCH if last < plan.search_steps else warnings.OUT_OF_TIME
        return Convergence(False, kind(steps=last, planned=plan.total_steps))
    work = plan.cost.work
    late = [r["map_change"] for course in courses for r in course if work(int(r["step"])) > 1 - LAST_PART]
    change = float(np.mean(late))
    gain, trend = 0.0, ""
    if len(fsc_by_step) > 1:
        before, after = list(fsc_by_step)[-2:]
        gain = float(np.nansum(fsc_by_step[after]) - np.nansum(fsc_by_step[before]))
        trend = (
            f", and the half maps' FSC {'grew' if gain > -0.05 else 'fell'} by {abs(gain):.1f} shells over the last "
            f"{1 - work(before):.0%}"
        )
    values: dict[str, object] = {"part": LAST_PART, "change": change, "trend": trend, "gain": gain}
    if change <= STILL_MOVING and gain <= STILL_GAINING:
        return Convergence(True, warnings.CONVERGED(**values))
    setting = f"--{plan.critic.longer_setting.replace('_', '-')}"
    return Convergence(False, warnings.NOT_CONVERGED(setting=setting, **values))


def judge_maps(
    plan: Plan, alignment: Alignment, curves: FscCurves, mask: np.ndarray, resolution: float
) -> list[Finding]:
    """Judge two half maps.

    Args:
        plan: plan of the run.
        alignment: alignment of half 2 to half 1.
        curves: FSC of the aligned halves.
        mask: soft mask around the molecule, (D, D, D).
        resolution: corrected FSC 0.143, A.
    """
    findings = [warnings.HAND_UNKNOWN()]
    if alignment.correlation < SAME_FRAME:
        findings.append(warnings.HALVES_DISAGREE(correlation=alignment.correlation))
    elif alignment.correlation - alignment.correlation_other_hand < OTHER_HAND:
        findings.append(
            warnings.HALVES_MIRRORED(correlation=alignment.correlation, mirrored=alignment.correlation_other_hand)
        )
    if resolution > plan.box * plan.pixel_size / COARSE_SHELLS:
        findings.append(warnings.OUTLINE_ONLY(resolution=resolution))
    beyond = _share_near_border(plan, mask)
    if beyond > TIGHT:
        findings.append(warnings.TIGHT_BOX(share=beyond))
    low = curves.unmasked[1 : plan.box // 8]
    if len(low) and low.min() < 0.5:
        findings.append(warnings.FSC_DIP(lowest=float(low.min())))
    return findings


def judge_views(coverage: np.ndarray) -> list[Finding]:
    """Judge whether frequencies are missing because few views hold them.

    Args:
        coverage: coverage of directions of frequencies by views, 1 where even, as in views.star.
    """
    rare = float((coverage < RARE).mean())
    return [] if rare < RARE_SHARE else [warnings.VIEWS_MISSING(share=rare, rare=RARE)]


def judge_prior(fit: float | None) -> list[Finding]:
    """Judge whether a prior of view directions is that of these particles.

    Args:
        fit: its correlation with the views, as in views.star; None: there is no prior.
    """
    return [] if fit is None or fit >= PRIOR_FITS else [warnings.PRIOR_MISFIT(correlation=fit)]


def _share_near_border(plan: Plan, mask: np.ndarray) -> float:
    """Share of the molecule's mask that lies at the border of the spherical mask or beyond."""
    radius = centred_radius(plan.box, axes=3) * plan.pixel_size
    return float(mask[radius > NEAR_BORDER * plan.mask_radius].sum() / mask.sum())
