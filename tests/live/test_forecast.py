"""When there is enough, by a line in closed form."""

from datetime import datetime

import pytest

from cryogan.live.forecast import Forecast

LINE = {"slope": 0.01, "at_zero": 0.0, "error": 0.002}  # 1/A for each doubling; 0.1 at 1,024 particles
NOON = datetime(2026, 3, 4, 12, 0).timestamp()


def test_the_line_gives_the_number_and_its_error_the_bounds() -> None:
    found = Forecast.of(LINE, 1 / 0.12)
    assert found is not None
    assert found.particles == pytest.approx(2**12)
    assert (found.least, found.most) == pytest.approx((2**11.8, 2**12.2))


def test_the_time_follows_from_the_rate() -> None:
    found = Forecast.of(LINE, 1 / 0.12)
    assert found is not None
    sentence = found.sentence(2048, 1024.0, NOON)
    assert "at about 14:00 (13:28 to 14:35)" in sentence
    assert "4100 particles" in sentence


@pytest.mark.parametrize(
    ("particles", "per_hour", "words"),
    [(5000, 100.0, "are enough"), (512, 100.0, "cannot be said"), (2048, 0.0, "none have come"), (2048, 1.0, "week")],
)
def test_what_cannot_be_said_is_not_said(particles: int, per_hour: float, words: str) -> None:
    found = Forecast.of(LINE, 1 / 0.12)
    assert found is not None
    assert words in found.sentence(particles, per_hour, NOON)


def test_a_resolution_that_does_not_grow_has_no_time() -> None:
    assert Forecast.of(LINE | {"slope": -0.001}, 5.0) is None
