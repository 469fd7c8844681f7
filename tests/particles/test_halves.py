"""The division of particles into two halves."""

import numpy as np
import pytest

from cryogan.particles.halves import half_rows


@pytest.mark.parametrize("count", [2, 7, 100])
def test_half_rows_part_the_set(count: int) -> None:
    first, second = half_rows(count, 1, 5), half_rows(count, 2, 5)
    assert sorted([*first, *second]) == list(range(count))
    assert abs(len(first) - len(second)) <= 1
    if count == 100:
        assert not np.array_equal(first, half_rows(count, 1, 6))
        np.testing.assert_array_equal(first, half_rows(count, 1, 5))
        assert 30 < (first < 50).sum() / len(first) * 100 < 70  # spread over the file
