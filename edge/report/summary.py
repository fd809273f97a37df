"""The figures of a report as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edge.assistant.localtime import iso_utc
from edge.exchange.disguise import Disguise
from edge.report.holter import Figures, Holter, Rate


def as_json(holter: Holter, hide: Disguise) -> dict[str, Any]:
    """Return what the summary, the days and the hours say."""
    series, patterns = holter.series, holter.patterns
    return {
        "wearer": hide.wearer,
        "timezone": None if hide.hidden else holter.timezone,
        "devices": [hide.device(r.device) for r in holter.recordings],
        **_figures(holter.total, hide),
        "patterns": {
            name: {
                "count": len(found),
                "most_beats": max((p.beats for p in found), default=0),
                "fastest_bpm": max((p.rate_bpm or 0.0 for p in found), default=0.0),
                "seconds": sum(float(series.utc_ns[p.last - 1] - series.utc_ns[p.first]) / 1e9 for p in found),
            }
            for name, found in patterns.items()
        },
        "events": {
            rule: {"count": len(found), "longest_s": max(e.seconds for e in found)}
            for rule, found in sorted(holter.episodes.items())
        },
        "false_alarms": len(holter.false_alarms),
        "days": [_figures(day, hide) for day in holter.days],
        "hours": [_figures(hour, hide) for hour in holter.hours],
        "analyses": [
            {name: a[name] for name in ("encoder", "rules_hash", "code_version", "provider")} for a in holter.analyses
        ],
    }


def _figures(f: Figures, hide: Disguise) -> dict[str, Any]:
    def rate(found: Rate | None) -> dict[str, Any] | None:
        return None if found is None else {"bpm": found.bpm, "at": iso_utc(hide.time(found.at_ns))}

    return {
        "from": iso_utc(hide.time(f.start_ns)),
        "to": iso_utc(hide.time(f.end_ns)),
        "recorded_s": f.recorded_s,
        "readable_s": f.readable_s,
        "mean_bpm": f.mean_bpm,
        "lowest": rate(f.lowest),
        "highest": rate(f.highest),
        "beats": f.beats,
        "v_per_hour": f.per_hour(f.beats["V"]),
        "s_per_hour": f.per_hour(f.beats["S"]),
        "v_share": f.share("V"),
        "s_share": f.share("S"),
        "pauses": f.pauses,
        "af_s": f.af_s,
        "af_share": f.af_share,
        "hrv": asdict(f.hrv),
    }
