"""The distributions of view directions and shifts, learned from the best poses of real and simulated images."""

from torch import Tensor

from cryogan.physics.simulator import Simulator

LARGEST_STEP = 2.0  # factor on the width of the shifts in a step


def update_pose_distribution(
    simulator: Simulator, point_group: Tensor, rotations: Tensor, shifts: Tensor, *, learn: bool, first: bool
) -> None:
    """Update the simulator's distributions of views and shifts.

    A prior of the views is turned onto the real images' views: in every step, or in the first if they are learned.

    Args:
        simulator: Simulator, with a distribution of views.
        point_group: Rotations (n, 3, 3) of the volume's point group.
        rotations: Best rotations of real and of simulated images, (2, N, 3, 3).
        shifts: Their best shifts, (2, N, 2), A.
        learn: Whether views and shifts are learned.
        first: Whether this is the first step.
    """
    views = simulator.views
    assert views is not None
    if views.prior is not None and (first or not learn):
        views.turn_prior(rotations[0], rotations[1], point_group, simulator.generator)
    elif learn:
        views.learn(rotations[0], rotations[1], point_group)
    if learn:
        widths = shifts.square().mean((1, 2)).sqrt()
        ratio = (widths[0] / widths[1].clamp(min=1e-6)).clamp(1 / LARGEST_STEP, LARGEST_STEP)
        simulator.shift_width.mul_(ratio).clamp_(max=simulator.max_shift)
