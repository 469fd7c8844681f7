"""Rotation, translation and hand that bring one map onto another."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import fft, ndimage, optimize
from scipy.spatial.transform import Rotation

from cryogan.errors import InputError
from cryogan.grids import centred_axis, centred_radius, falling_cosine
from cryogan.parallel.threads import map_in_threads
from cryogan.rotations import super_fibonacci
from cryogan.validation.checks import Array, cubic, half_frequency, positive
from cryogan.validation.resampling import fit_box, resample

COARSE_BOX = 24
FINE_BOX = 48
COARSE_ROTATIONS = 3000  # 16 degrees apart
CANDIDATES = 3
CANDIDATE_SPACING = 20.0  # degrees: two candidates closer than this would refine to the same place
BATCH = 250
MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Alignment:
    """Rigid transform that places a moving map on a reference: reference(r) ~ moving(M R^T (r - shift)).

    r = (x, y, z) is measured from voxel D//2. M is diag(-1, 1, 1), the hand change of
    `relion_image_handler --invert_hand`, if `mirrored`, and the identity otherwise.

    Attributes:
        rotation: R (3, 3), acting on (x, y, z); it turns the moving map, after the mirror, onto the reference.
            The identity is the zero of all angles.
        shift_A: (3,) translation in A along (x, y, z), after the rotation.
        mirrored: whether the hand was changed.
        correlation: correlation of the maps' Fourier coefficients within the searched band, in [-1, 1].
        correlation_other_hand: best correlation of the hand not chosen; NaN if it was not searched.
    """

    rotation: Array
    shift_A: Array
    mirrored: bool
    correlation: float
    correlation_other_hand: float

    @property
    def _mirror(self) -> Array:
        return MIRROR if self.mirrored else np.eye(3)

    def inverse(self) -> "Alignment":
        """Return the transform that places the reference on the moving map."""
        mirror = self._mirror
        return replace(
            self, rotation=mirror @ self.rotation.T @ mirror, shift_A=-mirror @ self.rotation.T @ self.shift_A
        )

    def apply(self, volume: npt.ArrayLike, pixel_size: float) -> npt.NDArray[np.float32]:
        """Transform the moving map into the reference's frame, on the moving map's own grid.

        Frequencies beyond Nyquist, in the corners of the transform, are cut: rotated, they would alias. The map
        is then interpolated by cubic splines on a grid twice as fine (Fourier zero padding), where its highest
        frequency is half of Nyquist.

        Args:
            volume: moving map (D, D, D).
            pixel_size: A.

        Returns:
            (D, D, D) float32; 0 where the box of the moving map does not reach.

        Raises:
            InputError: the map is not cubic or not finite.
        """
        array = cubic(volume, "moving map")
        box = array.shape[0]
        pixel_size = positive(pixel_size, "pixel size")
        transform = fft.rfftn(array) * (half_frequency(box) <= box / 2)
        array = fft.irfftn(transform, s=array.shape, axes=(0, 1, 2))
        fine = resample(array, pixel_size, 2 * box, pixel_size / 2)
        back = self._mirror @ self.rotation.T
        matrix = 2 * back[::-1, ::-1]  # SciPy counts z, y, x
        centre = box // 2 + self.shift_A[::-1] / pixel_size
        offset = fine.shape[0] // 2 - matrix @ centre
        return ndimage.affine_transform(
            fine.astype(np.float32), matrix, offset, output_shape=array.shape, order=3, mode="grid-constant"
        )


def align(
    moving: npt.ArrayLike,
    reference: npt.ArrayLike,
    pixel_size: float,
    *,
    hands: Sequence[int] = (1, -1),
    resolution_A: float | None = None,
    seed: int = 0,
) -> Alignment:
    """Find the rotation, translation and hand of a map that correlate best with a reference.

    Both maps are Fourier-cropped to 24 voxels; 3,000 rotations of a super-Fibonacci spiral (Alexa 2022, CVPR)
    are tried with all translations by FFT; the best 3 are refined by L-BFGS there and then at 48 voxels. The
    moving map is used within the sphere inscribed in its box. For a map with point-group symmetry any of the
    equivalent rotations may be found, and all are right: compare maps, or rotations up to the group.

    Args:
        moving: map to move (D, D, D).
        reference: map that stays (D, D, D).
        pixel_size: A, of both.
        hands: hands to search: 1 (as it is), -1 (mirrored) or both.
        resolution_A: finest resolution used, A; default: all.
        seed: random rotation of the spiral as a whole.

    Raises:
        InputError: the maps are not cubic, not finite, constant or of different shape (`resample` one first);
            other hands; or `resolution_A` leaves fewer than 3 shells.
    """
    maps = [cubic(moving, "moving map"), cubic(reference, "reference map")]
    pixel_size = positive(pixel_size, "pixel size")
    box = maps[0].shape[0]
    if maps[0].shape != maps[1].shape:
        raise InputError(f"The maps to align are {box} and {maps[1].shape[0]} voxels wide. Resample one.")
    for volume, name in zip(maps, ("moving", "reference"), strict=True):
        if np.ptp(volume) == 0:
            raise InputError(f"The {name} map is constant and cannot be aligned. Check its reconstruction.")
    if not hands or not set(hands) <= {1, -1}:
        raise InputError(f"The hands to search are {tuple(hands)}. Give 1 (as it is), -1 (mirrored) or both.")
    limit = math.inf if resolution_A is None else box * pixel_size / positive(resolution_A, "resolution limit")
    if limit < 3:
        raise InputError(f"Alignment at {resolution_A} A has under 3 shells. Give a finer resolution limit.")

    maps[0] = inscribed(maps[0])
    coarse = Comparison(maps[0], maps[1], min(box, COARSE_BOX), limit)
    fine = Comparison(maps[0], maps[1], min(box, FINE_BOX), limit)
    rotations = spiral(COARSE_ROTATIONS, seed)
    best = _search(coarse, fine, rotations, sorted(set(hands)))
    hand = max(best, key=lambda side: best[side].correlation)
    found = best[hand]
    return Alignment(
        rotation=found.rotation,
        shift_A=found.shift * pixel_size * box / fine.box,
        mirrored=hand == -1,
        correlation=found.correlation,
        correlation_other_hand=best[-hand].correlation if -hand in best else math.nan,
    )


@dataclass(frozen=True)
class Pose:
    """A rotation and shift of the moving map, and the correlation there."""

    rotation: Array  # (3, 3) acting on (x, y, z)
    shift: Array  # (3,) voxels along (x, y, z)
    correlation: float


class Comparison:
    """Correlation of two maps, Fourier-cropped to `box`, as a function of the pose of the first.

    Args:
        moving: map to move (D, D, D).
        reference: map that stays (D, D, D).
        box: voxels at which they are compared; at most D.
        limit: highest shell compared.
    """

    def __init__(self, moving: Array, reference: Array, box: int, limit: float) -> None:
        self.box = box
        band = min(limit, box // 2 - 1)
        axis = torch.from_numpy(centred_axis(box))
        half = torch.cartesian_prod(axis, axis, torch.arange(box // 2 + 1))
        half = half[(half.square().sum(1) <= band**2) & (half.abs().sum(1) > 0)]
        self.index = ((half[:, 0] % box) * box + half[:, 1] % box) * (box // 2 + 1) + half[:, 2]
        self.frequency = half.flip(1).double()  # (N, 3), x, y, z
        # The half transform holds the plane kx = 0 whole and all else once.
        self.weight = torch.where(self.frequency[:, 0] == 0, 1.0, 2.0).double()
        self.moving = _spectrum(_cropped(moving, box))
        transform = fft.rfftn(fft.ifftshift(_cropped(reference, box)))
        target = torch.from_numpy(transform).flatten()[self.index]
        self.target = target / self._norm(target)

    def try_rotations(self, rotations: Array, hand: int) -> list[Pose]:
        """Find the best translation, to a voxel, for each of the rotations (n, 3, 3), by FFT."""
        poses = []
        box, spectrum, target = self.box, self.moving.float(), self.target.to(torch.complex64)
        for first in range(0, len(rotations), BATCH):
            batch = torch.from_numpy(rotations[first : first + BATCH])
            moved = self._rotated(batch, hand, spectrum)
            moved = moved / self._norm(moved)[:, None]
            product = torch.zeros(len(batch), box * box * (box // 2 + 1), dtype=torch.complex64)
            product[:, self.index] = target * moved.conj()
            product = product.view(-1, box, box, box // 2 + 1)
            score = torch.fft.irfftn(product, s=(box, box, box), norm="forward")
            value, place = score.flatten(1).max(1)
            shift = np.stack(np.unravel_index(place.numpy(), (box, box, box))[::-1], 1).astype(np.float64)
            shift -= box * (shift >= (box + 1) // 2)
            poses += [
                Pose(rotation, best, float(top))
                for rotation, best, top in zip(batch.numpy(), shift, value, strict=True)
            ]
        return poses

    def refine(self, start: Pose, hand: int) -> Pose:
        """Refine a pose to the nearest maximum of the correlation over rotation and translation."""
        return self.maximise(start, lambda rotation, shift: self.overlap(rotation, shift, hand))

    def maximise(self, start: Pose, correlation: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Pose:
        """Find the maximum nearest to a pose by L-BFGS.

        Args:
            start: pose at the start.
            correlation: differentiable function of a rotation (3, 3) and a shift (3,), voxels.
        """
        first = torch.from_numpy(start.rotation)

        def loss(values: Array) -> tuple[float, Array]:
            step = torch.from_numpy(values.copy()).requires_grad_()
            overlap = correlation(self.small_rotation(step[:3]) @ first, step[3:])
            (gradient,) = torch.autograd.grad(-overlap, step)
            return -float(overlap.detach()), gradient.numpy()

        origin = np.concatenate([np.zeros(3), start.shift])
        result = optimize.minimize(loss, origin, jac=True, method="L-BFGS-B", options={"maxiter": 60})
        rotation = self.small_rotation(torch.from_numpy(np.asarray(result.x[:3]))) @ first
        return Pose(rotation.numpy(), np.asarray(result.x[3:]), -float(result.fun))

    def overlap(self, rotation: torch.Tensor, shift: torch.Tensor, hand: int) -> torch.Tensor:
        """Correlation at a rotation (3, 3) and a shift (3,) in voxels; differentiable."""
        moved = self._rotated(rotation[None], hand, self.moving)[0]
        phase = (self.frequency @ shift) * (-2 * math.pi / self.box)
        moved = moved * torch.polar(torch.ones_like(phase), phase)
        overlap: torch.Tensor = (self.weight * (self.target.conj() * moved).real).sum() / self._norm(moved)
        return overlap

    def by_shell(self, rotation: Array, shift: Array) -> Array:
        """Correlation of the maps in each shell round(|k|), (box // 2,), 0 beyond the limit.

        Args:
            rotation: of the moving map, (3, 3).
            shift: of the moving map, after the rotation, voxels (3,).
        """
        moved = self._rotated(torch.from_numpy(rotation)[None], 1, self.moving)[0]
        phase = (self.frequency @ torch.from_numpy(shift)) * (-2 * math.pi / self.box)
        product = (self.target.conj() * moved * torch.polar(torch.ones_like(phase), phase)).real
        shell = self.frequency.norm(dim=1).round().long()

        def total(values: torch.Tensor) -> torch.Tensor:
            return torch.bincount(shell, self.weight * values, minlength=self.box // 2)

        norm = (total(moved.abs().square()) * total(self.target.abs().square())).sqrt()
        curve: Array = (total(product) / norm.clamp(min=torch.finfo(norm.dtype).tiny)).numpy()
        return curve

    def small_rotation(self, step: torch.Tensor) -> torch.Tensor:
        """Rotation (3, 3) by a vector (3,) of which one unit moves density at a quarter of the box by a voxel."""
        turn = step / (self.box / 4)
        zero = torch.zeros((), dtype=torch.float64)
        cross = torch.stack([zero, -turn[2], turn[1], turn[2], zero, -turn[0], -turn[1], turn[0], zero])
        rotation: torch.Tensor = torch.linalg.matrix_exp(cross.view(3, 3))
        return rotation

    def _rotated(self, rotations: torch.Tensor, hand: int, spectrum: torch.Tensor) -> torch.Tensor:
        """Coefficients (B, N) of the moving map, mirrored and rotated: F(M R^T k)."""
        points = self.frequency @ rotations
        if hand == -1:
            points = points @ torch.from_numpy(MIRROR)
        size = spectrum.shape[-1]
        # The padded transform has two samples for each frequency, 0 at size // 2.
        grid = (2 * points + size // 2) * (2 / (size - 1)) - 1
        values = torch.nn.functional.grid_sample(
            spectrum, grid.to(spectrum.dtype)[None, :, :, None], mode="bilinear", align_corners=True
        )
        return torch.complex(values[0, 0, :, :, 0], values[0, 1, :, :, 0])

    def _norm(self, coefficients: torch.Tensor) -> torch.Tensor:
        return (coefficients.real**2 + coefficients.imag**2).matmul(self.weight.to(coefficients.real.dtype)).sqrt()


def _search(coarse: Comparison, fine: Comparison, rotations: Array, hands: Sequence[int]) -> dict[int, Pose]:
    """Find the best pose of each hand: all rotations at the coarse box, the best few refined at both."""

    def refine(start: tuple[int, Pose]) -> tuple[int, Pose]:
        hand, pose = start
        near = coarse.refine(pose, hand)
        return hand, fine.refine(Pose(near.rotation, near.shift * fine.box / coarse.box, near.correlation), hand)

    starts = [(hand, pose) for hand in hands for pose in _candidates(coarse.try_rotations(rotations, hand))]
    found = map_in_threads(refine, starts)
    return {hand: max((p for side, p in found if side == hand), key=lambda pose: pose.correlation) for hand in hands}


def _candidates(poses: Sequence[Pose]) -> list[Pose]:
    """Return the few best poses that are apart from each other."""
    chosen: list[Pose] = []
    for pose in sorted(poses, key=lambda pose: -pose.correlation):
        if len(chosen) < CANDIDATES and all(
            angle_between(pose.rotation, other.rotation) > CANDIDATE_SPACING for other in chosen
        ):
            chosen.append(pose)
    return chosen


def angle_between(first: Array, second: Array) -> float:
    """Angle in degrees between two rotations (3, 3)."""
    cosine = (float(np.trace(first.T @ second)) - 1) / 2
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def spiral(count: int, seed: int) -> Array:
    """Rotations (count, 3, 3) spread evenly over SO(3), all turned by one random rotation."""
    turn = Rotation.from_quat(np.random.default_rng(seed).standard_normal(4)).as_matrix()
    spread: Array = turn @ super_fibonacci(count)
    return spread


def inscribed(volume: Array) -> Array:
    """Subtract a map's background and mask it by the inscribed sphere, so that no rotation moves corners in."""
    box = volume.shape[0]
    edge = max(2.0, box / 16)
    distance = centred_radius(box, axes=3)
    background = volume[(distance > box // 2 - edge) & (distance <= box // 2)].mean()
    inside: Array = (volume - background) * falling_cosine(distance, box // 2 - edge, edge)
    return inside


def _cropped(volume: Array, box: int) -> Array:
    """Fourier-crop a map to (box, box, box)."""
    return resample(volume, box / volume.shape[0], box, 1.0)


def _spectrum(volume: Array) -> torch.Tensor:
    """Real and imaginary part (1, 2, 2D, 2D, 2D) of the transform, zero-padded twice, frequency 0 at index D.

    Trilinear interpolation between its samples multiplies the map by sinc^2 along each axis: divided out
    here.
    """
    box = volume.shape[0]
    sinc = np.sinc(centred_axis(box) / (2 * box)) ** 2
    corrected = volume / (sinc[:, None, None] * sinc[:, None] * sinc)
    transform = fft.fftshift(fft.fftn(fft.ifftshift(fit_box(corrected, 2 * box))))
    return torch.from_numpy(np.stack([transform.real, transform.imag])[None])
