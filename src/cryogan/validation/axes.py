"""The symmetry axes of a map that was made without them."""

import numpy as np
import numpy.typing as npt
import torch

from cryogan.physics.symmetry import group_generators, least_turn
from cryogan.validation.alignment import (
    CANDIDATE_SPACING,
    CANDIDATES,
    COARSE_BOX,
    COARSE_ROTATIONS,
    FINE_BOX,
    Alignment,
    Comparison,
    Pose,
    angle_between,
    inscribed,
    spiral,
)
from cryogan.validation.checks import Array, cubic, positive


def find_axes(
    volume: npt.ArrayLike, pixel_size: float, symmetry: str, *, seed: int = 0, nearest: bool = False
) -> Alignment:
    """Find the rotation and translation that bring a map's axes into RELION's setting of a point group.

    For each of 3,000 frames (`super_fibonacci`) the map, rotated by the group's generators, is correlated with
    itself; the best 3 are refined together with their centre. Average over the group once the map is there.

    Args:
        volume: map (D, D, D) of a molecule that has the symmetry, in any frame.
        pixel_size: A.
        symmetry: point group in RELION's notation; C1 gives the identity.
        seed: random rotation of the 3,000 frames as a whole.
        nearest: of the rotations that bring the axes there, take the one that turns the map least.

    Returns:
        The transform; its `correlation` is the mean of the map with its copies under the generators.

    Raises:
        InputError: unknown point group, or the map is not cubic or not finite.
    """
    generators = np.stack(group_generators(symmetry) or [np.eye(3)])
    array = inscribed(cubic(volume))
    box = array.shape[0]
    if symmetry.strip().upper() == "C1":
        return Alignment(np.eye(3), np.zeros(3), False, 1.0, float("nan"))
    coarse, fine = (Comparison(array, array, min(box, size), np.inf) for size in (COARSE_BOX, FINE_BOX))

    frames = spiral(COARSE_ROTATIONS, seed)
    turns = frames.transpose(0, 2, 1)[:, None] @ generators @ frames[:, None]  # (n, generators, 3, 3)
    poses = coarse.try_rotations(turns.reshape(-1, 3, 3), 1)
    score = np.reshape([pose.correlation for pose in poses], turns.shape[:2]).mean(1)
    shifts = np.reshape([pose.shift for pose in poses], (*turns.shape[:2], 3))
    chosen: list[int] = []
    for index in np.argsort(-score):
        if len(chosen) < CANDIDATES and all(
            _distance(frames[index], frames[other], generators) > CANDIDATE_SPACING for other in chosen
        ):
            chosen.append(int(index))
    refined = []
    for index in chosen:
        centre = common_centre(turns[index], shifts[index])
        near = refine_frame(coarse, Pose(frames[index], centre, score[index]), generators)
        start = Pose(near.rotation, near.shift * fine.box / coarse.box, near.correlation)
        refined.append(refine_frame(fine, start, generators))
    best = max(refined, key=lambda pose: pose.correlation)
    rotation = least_turn(best.rotation, symmetry) if nearest else best.rotation
    shift = -rotation @ best.shift * positive(pixel_size, "pixel size") * box / fine.box
    return Alignment(rotation, shift, False, best.correlation, float("nan"))


def common_centre(turns: Array, shifts: Array) -> Array:
    """Find the point about which a map is turned, from the shifts that lay it on itself after each turn.

    Args:
        turns: (n, 3, 3).
        shifts: (n, 3), any unit; a turn about the centre c shifts by (1 - turn) c.

    Returns:
        (3,), in that unit; where all turns leave an axis as it is, the point of the axis next to the origin.
    """
    matrix = np.concatenate(list(np.eye(3) - turns))
    return np.asarray(np.linalg.lstsq(matrix, shifts.ravel(), rcond=0.1)[0])


def refine_frame(comparison: Comparison, start: Pose, generators: Array) -> Pose:
    """Refine a frame and its centre (`shift`, in the map) to the nearest maximum of the correlation.

    Args:
        comparison: of a map with itself, or of two half maps.
        start: frame of the group in the map, and its centre, voxels.
        generators: of the group in its own frame, (n, 3, 3).
    """
    group = torch.from_numpy(generators)

    def correlation(frame: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        turns = frame.T @ group @ frame
        shifts = (torch.eye(3, dtype=torch.float64) - turns) @ centre
        overlaps = [comparison.overlap(turn, shift, 1) for turn, shift in zip(turns, shifts, strict=True)]
        return torch.stack(overlaps).mean()

    return comparison.maximise(start, correlation)


def _distance(first: Array, second: Array, generators: Array) -> float:
    """Largest angle in degrees between two frames' rotations of the group: frames with equal axes have 0."""
    pairs = zip(first.T @ generators @ first, second.T @ generators @ second, strict=True)
    return max(angle_between(a, b) for a, b in pairs)
