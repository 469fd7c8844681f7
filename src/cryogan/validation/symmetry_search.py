"""Which point groups two half maps that were made without symmetry have: a search through all, with their scores.

The half maps' self-rotation function is computed once: their correlation under turns by each angle of the groups about
the axes of a hemisphere, best over translations. A group in a frame is looked up in it rotation by rotation; the best
frame of each group that it does not rule out is refined, and scored as `rotated_halves` explains.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from cryogan.errors import InputError
from cryogan.physics.symmetry import group_generators, point_group
from cryogan.rotations import spread_rotations
from cryogan.validation.alignment import Comparison, Pose
from cryogan.validation.axes import common_centre, refine_frame
from cryogan.validation.checks import Array
from cryogan.validation.directional_fsc import half_sphere
from cryogan.validation.point_group_score import SymmetryScore
from cryogan.validation.rotated_halves import HalvesUnderRotation, rotations_in_map

GROUPS = (*(f"C{n}" for n in range(2, 9)), *(f"D{n}" for n in range(2, 8)), "T", "O", "I")
AXES = 400  # of a hemisphere: 7 degrees apart
FRAMES, LEAST_FRAMES = 20000, 300  # over all rotations, 8 degrees apart; of a group, which makes many equal
POSSIBLE = 0.3  # least correlation over that without it in the table, and
LIKELY = 0.7  # after refinement in the small box, of a group that is scored
ELSEWHERE = 30.0  # degrees: rotations so far from the map's symmetry are tried as chance,
ASTRAY = 15.0  # and left out if their refinement ends so near to it
TRIALS, ENOUGH = 8, 2  # rotations elsewhere that are tried, and scored


@dataclass(frozen=True)
class SymmetrySuggestion:
    """The point groups that half maps have, or nearly have.

    Attributes:
        scores: Of the groups that come into question, the largest groups first; never empty.
        finest_A: Finest resolution at which half maps were compared, A.
    """

    scores: tuple[SymmetryScore, ...]
    finest_A: float

    @property
    def supported(self) -> tuple[SymmetryScore, ...]:
        """Groups that the half maps have as far as they agree: the largest, and its subgroups."""
        return tuple(score for score in self.scores if score.holds)

    @property
    def near(self) -> tuple[SymmetryScore, ...]:
        """Groups that they nearly have, but for those within the suggested group."""
        order = len(point_group(self.suggested.symmetry)) if self.suggested else 1
        return tuple(score for score in self.scores if score.nearly_holds and order % len(point_group(score.symmetry)))

    @property
    def suggested(self) -> SymmetryScore | None:
        """The largest group that they have; None: there is none, or no group of these holds all that they have."""
        return self.supported[0] if self.supported and not self.is_round else None

    @property
    def is_round(self) -> bool:
        """Whether groups are supported that have no common one here: about an axis, any turn fits."""
        order = [len(point_group(score.symmetry)) for score in self.supported]
        return any(order[0] % other or order[0] == other for other in order[1:])


def suggest_symmetry(
    half1: npt.ArrayLike,
    half2: npt.ArrayLike,
    pixel_size: float,
    *,
    resolution_A: float | None = None,
    groups: Sequence[str] = GROUPS,
    seed: int = 0,
) -> SymmetrySuggestion:
    """Find the point groups that two half maps have which were made without symmetry, in any frame and place.

    Args:
        half1: Half map 1 (D, D, D).
        half2: Half map 2, in the frame of half map 1.
        pixel_size: A.
        resolution_A: Finest resolution compared; default: where the half maps' FSC falls below 0.143.
        groups: Names of the groups that are looked for.
        seed: Random rotations of the frames that are tried.

    Raises:
        InputError: The maps cannot be compared, or agree on too few shells (`HalvesUnderRotation`); or an unknown
            group.
    """
    if not groups or "C1" in groups:
        raise InputError("C1 is no symmetry to look for. Give other point groups, such as C2 or D2.")
    halves = HalvesUnderRotation(half1, half2, pixel_size, resolution_A)
    table = _SelfRotation(halves.coarse, groups)
    frames = _search(halves, table, groups, torch.Generator().manual_seed(seed))
    scores = [halves.score(symmetry, frame) for symmetry, frame in frames.items()]
    scores.sort(key=lambda score: (-len(point_group(score.symmetry)), -score.score))
    present = [score.symmetry for score in scores if score.holds or score.nearly_holds] or list(frames)
    taken = np.concatenate([rotations_in_map(frames[name], point_group(name)) for name in present])
    chance: dict[float, Array] = {}
    for score in scores:
        for angle in _angles(np.stack(group_generators(score.symmetry))):
            if angle not in chance:
                chance[angle] = _chance(halves, table.elsewhere(angle, taken), angle, taken)
    return SymmetrySuggestion(tuple(_with_chance(score, chance) for score in scores), halves.finest_A)


def symmetry_score(
    half1: npt.ArrayLike, half2: npt.ArrayLike, pixel_size: float, symmetry: str, *, resolution_A: float | None = None
) -> SymmetryScore:
    """Score one point group: the half maps' correlation with it, without it, and by chance.

    Args:
        half1: Half map 1 (D, D, D).
        half2: Half map 2, in the frame of half map 1.
        pixel_size: A.
        symmetry: Name of the point group.
        resolution_A: As for `suggest_symmetry`.

    Raises:
        InputError: As for `suggest_symmetry`.
    """
    return suggest_symmetry(half1, half2, pixel_size, resolution_A=resolution_A, groups=(symmetry,)).scores[0]


def _angles(rotations: Array) -> list[float]:
    """Return the different angles of rotations (n, 3, 3), radians, so rounded that equal ones are equal."""
    return [float(angle) for angle in np.unique(Rotation.from_matrix(rotations).magnitude().round(6))]


class _SelfRotation:
    """Correlation of two half maps under turns about the axes of a hemisphere, best over translations.

    Args:
        comparison: Of the half maps.
        groups: Names of the groups whose angles are measured.
    """

    def __init__(self, comparison: Comparison, groups: Sequence[str]) -> None:
        self._angles = np.array(_angles(np.concatenate([point_group(name)[1:] for name in groups])))
        self._axes = half_sphere(AXES)
        turns = Rotation.from_rotvec((self._angles[:, None, None] * self._axes).reshape(-1, 3))
        poses = comparison.try_rotations(turns.as_matrix(), 1)
        self._correlation = np.reshape([pose.correlation for pose in poses], (-1, AXES))
        self._shift = np.reshape([pose.shift for pose in poses], (-1, AXES, 3))
        self._nearest = KDTree(np.concatenate([self._axes, -self._axes]))

    def best_frame(self, symmetry: str, generator: torch.Generator) -> Pose:
        """Return the frame, and its centre, in which the group's rotations correlate best on average."""
        group = point_group(symmetry)
        vectors = Rotation.from_matrix(group[1:]).as_rotvec()
        angle = np.abs(np.linalg.norm(vectors, axis=1)[:, None] - self._angles).argmin(1)
        frames = spread_rotations(max(FRAMES // len(group), LEAST_FRAMES), group, generator).double().numpy()
        axes = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ frames  # (frames, rotations, 3)
        place = np.asarray(self._nearest.query(axes)[1])
        correlation = self._correlation[angle, place % AXES].mean(1)
        best = int(correlation.argmax())
        turns, shifts = frames[best].T @ group[1:] @ frames[best], self._shift[angle, place[best] % AXES]
        # The turn about the opposite axis is the inverse, whose shift takes this one back.
        back = -np.einsum("nij,nj->ni", turns, shifts)
        shifts = np.where(place[best][:, None] < AXES, shifts, back)
        return Pose(frames[best], common_centre(turns, shifts), float(correlation[best]))

    def elsewhere(self, angle: float, taken: Array) -> Iterator[Pose]:
        """Return where turns by an angle correlate best, of those that are not near the rotations (n, 3, 3) taken.

        Yields:
            Up to `TRIALS` frames whose z axis is that of the turn, with their centres, the best first.
        """
        row = int(np.argmin(np.abs(self._angles - angle)))
        turns: Array = Rotation.from_rotvec(self._angles[row] * self._axes).as_matrix()
        left = np.argsort(-self._correlation[row])
        left = left[[_distance(turns[index], taken) > ELSEWHERE for index in left]]
        for _ in range(TRIALS):
            if len(left):
                best = left[0]
                frame = Rotation.align_vectors([[0, 0, 1]], self._axes[best][None])[0].as_matrix()
                centre = common_centre(turns[best][None], self._shift[row, best][None])
                yield Pose(frame, centre, float(self._correlation[row, best]))
                same = np.stack([turns[best], turns[best].T])
                left = left[[_distance(turns[index], same) > ELSEWHERE for index in left]]


def _search(
    halves: HalvesUnderRotation, table: _SelfRotation, groups: Sequence[str], generator: torch.Generator
) -> dict[str, Pose]:
    """Return the best frame of each group that comes into question, at the box of `halves.fine`."""
    coarse, fine = halves.coarse, halves.fine
    without_it = float(coarse.overlap(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 1))
    frames = {name: table.best_frame(name, generator) for name in groups}
    for least, comparison in ((POSSIBLE, coarse), (LIKELY, fine)):
        least = min(least * without_it, max(frame.correlation for frame in frames.values()))
        frames = {
            name: _refined(comparison, frame, halves, np.stack(group_generators(name)))
            for name, frame in frames.items()
            if frame.correlation >= least
        }
    return frames


def _refined(comparison: Comparison, frame: Pose, halves: HalvesUnderRotation, generators: Array) -> Pose:
    """Refine a frame, whose centre is in voxels of `halves.coarse`, in that comparison."""
    start = replace(frame, shift=frame.shift * comparison.box / halves.coarse.box)
    return refine_frame(comparison, start, generators)


def _chance(halves: HalvesUnderRotation, trials: Iterable[Pose], angle: float, taken: Array) -> Array:
    """Return the highest ratios, (all shells, the coarser half of them), of a turn by an angle elsewhere.

    Args:
        halves: Half maps.
        trials: Frames whose z axis is that of the turn, the best first.
        angle: Radians.
        taken: (n, 3, 3), rotations of the map's symmetry; trials that end there are left out.
    """
    turn, found = Rotation.from_rotvec([0, 0, angle]).as_matrix()[None], [np.full(2, -np.inf)]
    for trial in trials:
        near = _refined(halves.coarse, trial, halves, turn)
        if len(found) <= ENOUGH and _distance(rotations_in_map(near, turn)[0], taken) > ASTRAY:
            frame = _refined(halves.fine, near, halves, turn)
            (rotation,) = rotations_in_map(frame, turn)
            found.append(halves.ratios(np.stack([rotation, rotation.T]), frame)[:2])
    return np.asarray(np.max(found, axis=0))


def _distance(turn: Array, others: Array) -> float:
    """Return the least angle in degrees between a rotation (3, 3) and others (n, 3, 3)."""
    cosine = (float(np.einsum("nij,ij->n", others, turn).max()) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _with_chance(score: SymmetryScore, chance: Mapping[float, Array]) -> SymmetryScore:
    """Enter the chance of a group: it needs all its generators, so that of the one that is least likely."""
    whole, coarse = np.min([chance[angle] for angle in _angles(np.stack(group_generators(score.symmetry)))], axis=0)
    return replace(score, chance=float(whole), chance_coarse=float(coarse))
