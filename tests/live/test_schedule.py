"""When a map is made and from what, and which maps are thinned out."""

import pytest

from cryogan.live.schedule import Made, Pace, Start, is_due, start_of_next, superfluous

PACE = Pace(first=1500, growth=0.25, map_minutes=20)


def made(
    number: int, particles: int, start: Start = "last", verdict: str | None = "resolved", began: float = 0
) -> Made:
    return Made(number, began, particles, number, start, verdict)


@pytest.mark.parametrize(
    ("particles", "portion", "now", "due"),
    [(1874, 2, 0, False), (1875, 2, 0, True), (1501, 2, 1199, False), (1501, 2, 1200, True), (1500, 1, 9999, False)],
)
def test_a_map_is_due_after_a_quarter_more_or_a_time(particles: int, portion: int, now: float, due: bool) -> None:
    assert is_due(PACE, [made(1, 1500, "zero")], particles, portion, now) is due


def test_the_first_map_is_of_so_many() -> None:
    assert not is_due(PACE, [], 1499, 9, 1e6)
    assert is_due(PACE, [], 1500, 9, 0)


def test_from_zero_where_the_last_cannot_be_trusted_and_after_each_doubling() -> None:
    first = made(1, 1500, "zero")
    assert start_of_next([], 1500) == "zero"
    assert start_of_next([first], 1900) == "last"
    assert start_of_next([first, made(2, 1900)], 2999) == "last"
    assert start_of_next([first, made(2, 1900)], 3000) == "zero"
    assert start_of_next([first, made(2, 1900, verdict="undecided")], 2400) == "zero"
    assert start_of_next([first, made(2, 1900, verdict=None)], 2400) == "zero"
    shape = made(2, 1900, verdict="low-resolution-shape")
    assert start_of_next([first, shape], 2400) == "zero"  # an update has turned the verdict
    again = made(3, 2400, "zero", "low-resolution-shape")
    assert start_of_next([first, shape, again], 3000) == "last"


def test_a_day_of_maps_takes_little_room() -> None:
    maps, particles = [made(1, 1500, "zero")], 1500
    while particles < 1_000_000:
        particles = int(1.25 * particles)
        maps.append(made(len(maps) + 1, particles, start_of_next(maps, particles)))
    kept = [one for one in maps if one.number not in superfluous(maps, 3)]
    assert len(maps) == 31
    assert len(kept) <= 3 + 10  # one for each doubling, and the last
    assert maps[-3:] == kept[-3:]
    assert all(one.start == "zero" for one in kept[:-3])


def test_failed_maps_are_thinned_out_and_hide_none() -> None:
    maps = [made(1, 1500, "zero"), *(made(number, 2000, "zero", None) for number in range(2, 9))]
    assert superfluous(maps, 3) == list(range(2, 9))
