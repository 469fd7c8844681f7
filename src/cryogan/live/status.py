"""What the page of a collection shows, from its records."""

from collections.abc import Mapping, Sequence
from typing import Any

from cryogan.live.forecast import Forecast
from cryogan.live.records import Record, Records, Tally
from cryogan.live.schedule import SUPPORTED

WORST, SHOWN_ALERTS, LEAST_SHOWN = 12, 50, 5
COURSE = ("number", "began", "particles", "verdict", "held_out_A", "half_maps_A", "start", "cpu_seconds")
PORTION = ("arrived", "particles", "share", "defocus_A", "defocus_range_A", "snr")


def status_of(
    records: Records,
    first: int,
    target: float | None,
    alerts: Sequence[Record],
    particles: int,
    now: float,
    **live: Any,
) -> dict[str, Any]:
    """Return what the page shows, ready for JSON.

    Args:
        records: portions and maps.
        first: number of particles of the first map.
        target: resolution that is wanted, A.
        alerts: what was said.
        particles: number of particles.
        now: the time, seconds since 1970.
        live: state, task, title and number of waiting particles.
    """
    last, views = records.last_map, records.views
    portions = [records.portions[number] for number in sorted(records.portions)]
    return {
        "now": now,
        "particles": particles,
        "first": first,
        "target": target,
        "per_hour": round(records.per_hour(now)),
        "last_arrival": portions[-1]["arrived"] if portions else None,
        "verdict": "" if last is None else last["sentence"],
        "supported": last is not None and last["verdict"] in SUPPORTED,
        "of_map": None if last is None else {name: last[name] for name in COURSE},
        "changed": _changed(records),
        "enough": _enough(records, target, particles, now),
        "course": [{name: one.get(name) for name in COURSE} for _, one in sorted(records.maps.items())],
        "portions": [{name: one.get(name) for name in PORTION} for one in portions],
        "squares": _tallies(records.squares)[:WORST],
        "micrographs": _tallies(records.micrographs)[:WORST],
        "views": None
        if views is None
        else {name: views[name] for name in ("coverage", "all_views", "missing", "missing_about", "missing_within")},
        "alerts": list(alerts)[: -SHOWN_ALERTS - 1 : -1],
        **live,
    }


def _changed(records: Records) -> str:
    """Say what the last map has brought, in words."""
    made = [one for _, one in sorted(records.maps.items()) if one["verdict"] is not None]
    if len(made) < 2:
        return ""
    before, last = made[-2:]
    start = "from zero" if last["start"] == "zero" else f"from map {last['last']}"
    text = f"Map {last['number']}, {start}: {last['particles'] - before['particles']:+d} particles"
    pairs = (("held-out resolution", "held_out_A"), ("half maps", "half_maps_A"))
    for name, key in pairs:
        old, new = (f"{one[key]:.1f} A" if one[key] else "none" for one in (before, last))
        text += f"; {name} {old} before, {new} now" if old != new else f"; {name} {new} as before"
    return f"{text}."


def _enough(records: Records, target: float | None, particles: int, now: float) -> str:
    """Say when there will be enough particles, in words."""
    last = records.last_map
    if last is None or not last.get("reslog"):
        return "When there is enough cannot be said yet: it takes maps that held-out particles support."
    if target is None or last["reslog"]["line"] is None:
        sentence: str = last["reslog"]["sentence"]
        return sentence
    forecast = Forecast.of(last["reslog"]["line"], target)
    if forecast is None or not particles:
        return "The resolution does not grow with the number of particles: something else limits it."
    return forecast.sentence(particles, records.per_hour(now), now)


def _tallies(tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    """Return names, counts and shares of those that are not too few, the smallest share first."""
    worst_first = sorted(tallies.items(), key=lambda item: item[1].share)
    return [
        {"name": name, "count": tally.count, "share": round(tally.share, 3)}
        for name, tally in worst_first
        if tally.count >= LEAST_SHOWN
    ]
