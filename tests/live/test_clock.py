"""A clock that is set back or forward."""

from cryogan.live.clock import Clock


def test_time_does_not_follow_a_clock_that_is_set() -> None:
    wall, ticks = [1000.0], [50.0]
    clock = Clock(0.0, lambda: wall[0], lambda: ticks[0])
    ticks[0] += 10
    wall[0] -= 5000
    assert clock.now() == 1010.0
    wall[0] += 90000
    ticks[0] += 5
    assert clock.now() == 1015.0


def test_a_start_never_goes_back() -> None:
    assert Clock(2000.0, lambda: 1000.0, lambda: 0.0).now() == 2000.0
    assert Clock(500.0, lambda: 1000.0, lambda: 0.0).now() == 1000.0
