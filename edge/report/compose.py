"""A Holter report in words, tables and pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import Connection

from edge.assistant.localtime import show_duration, show_minute
from edge.exchange.disguise import Disguise
from edge.report import chosen, disclosure, plots
from edge.report.chosen import NAMES, Choice
from edge.report.document import Block, Document, Facts, Heading, Plot, StripBlock, Table, Words
from edge.report.holter import UNREADABLE_RULES, Figures, Holter, Rate, pause_count, pause_s
from edge.report.hrv import Hrv
from edge.report.strip import FOOTER, MONITOR_HZ, ST_NOTE, of_span
from edge.rhythm.rules import Rule, Rules, rules_hash
from edge.store import queries
from edge.store.marks import Mark

NS = queries.NS
LEADS_SHOWN = 3
LITTLE = 0.8
"""With less of the period readable than this the report says so on top."""
WAITING_S = 60.0
"""More recorded than analysed than this is mentioned on top."""
MARK_NAMES = {
    "confirm": "confirmed",
    "false": "false alarm",
    "note": "note",
    "ack": "seen",
    "symptom": "symptom",
    "beat": "beat corrected",
    "episode": "episode corrected",
}
DASH = "–"


def compose(
    conn: Connection, holter: Holter, hide: Disguise, rules: Rules, card: dict[str, Any], *, disclose: bool = False
) -> Document:
    """Return the report.

    Args:
        conn: the database; strips are read from it while the document is being written.
        holter: the figures.
        hide: who is named and when it was.
        rules: the thresholds of the configuration.
        card: the model card of the encoder.
        disclose: add every minute of the signal.
    """
    period = f"{minute(holter.start_ns, hide)} to {minute(holter.end_ns, hide)}"
    blocks: list[Block] = [*_summary(holter, hide), *_days(holter, hide), *_hours(holter, hide)]
    blocks += _events(holter, hide)
    blocks += _strips(conn, holter, hide)
    blocks += _reviewed(holter, hide)
    blocks += _methods(holter, rules, card)
    if disclose:
        blocks += _disclosure(conn, holter, hide)
    return Document(f"Holter report: {hide.wearer}", f"{hide.wearer}   {period}", blocks)


def minute(utc_ns: int, hide: Disguise) -> str:
    """Return local date and time to the minute."""
    return show_minute(hide.time(utc_ns), hide.tz)


def _clock(utc_ns: int, hide: Disguise) -> str:
    return f"{hide.local(utc_ns):%a %H:%M}"


def bpm(value: float | None) -> str:
    """Return a heart rate as it is printed."""
    return DASH if value is None else f"{value:.0f}"


def rate(found: Rate | None, hide: Disguise) -> str:
    """Return a heart rate with its minute."""
    return DASH if found is None else f"{found.bpm:.0f} bpm at {_clock(found.at_ns, hide)}"


def per_cent(share: float | None) -> str:
    """Return a share; what is not zero does not look like zero."""
    if share is None:
        return DASH
    value = 100 * share
    return "0 %" if value == 0 else f"{value:.2g} %" if value < 0.995 else f"{value:.1f} %"


def ms(value: float | None) -> str:
    """Return milliseconds as they are printed."""
    return DASH if value is None else f"{value:.0f} ms"


def ectopic(figures: Figures, kind: str) -> str:
    """Return `1,234 (1.2 % of beats, 52 per hour)`."""
    count = figures.beats[kind]
    hourly = figures.per_hour(count)
    if not figures.all_beats or hourly is None:
        return DASH
    return f"{count:,} ({per_cent(figures.share(kind))} of beats, {hourly:.1f} per hour)"


def summary_facts(holter: Holter, hide: Disguise) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the key figures in groups."""
    total = holter.total
    period_s = (holter.end_ns - holter.start_ns) / NS
    devices = ", ".join(
        f"{hide.device(r.device)} ({', '.join(r.leads)}, {r.fs_hz:g} Hz)" for r in holter.recordings[:6]
    )
    readable = f"{show_duration(total.readable_s)} ({per_cent(total.readable_s / period_s)} of the period)"
    return [
        (
            "Recording",
            [
                ("Period", show_duration(period_s)),
                ("Recorded", show_duration(total.recorded_s)),
                ("Readable", readable),
                ("Device", devices),
            ],
        ),
        (
            "Heart rate",
            [
                ("Mean", DASH if total.mean_bpm is None else f"{total.mean_bpm:.0f} bpm"),
                ("Lowest", rate(total.lowest, hide)),
                ("Highest", rate(total.highest, hide)),
                ("Beats", f"{total.all_beats:,}"),
            ],
        ),
        ("Rhythm", _rhythm_facts(holter, hide)),
        ("Ventricular ectopy", _v_facts(holter, hide)),
        ("Supraventricular ectopy", _s_facts(holter, hide)),
        (f"Heart rate variability ({total.hrv.hours:.1f} h of NN)", _hrv_facts(total.hrv)),
    ]


def _rhythm_facts(holter: Holter, hide: Disguise) -> list[tuple[str, str]]:
    total = holter.total
    af = holter.episodes.get("af", [])
    facts = [("AF burden", f"{per_cent(total.af_share)} of readable time" if total.readable_s else DASH)]
    facts.append(("AF episodes", _episodes(af, hide)))
    for rule, name in (("vt", "VT runs"), ("svt", "SVT runs"), ("vf", "VF or flutter"), ("asystole", "Asystole")):
        facts.append((name, _episodes(holter.episodes.get(rule, []), hide)))
    pauses = holter.episodes.get("pause", [])
    longest = max(pauses, key=pause_s, default=None)
    count = sum(pause_count(e) for e in pauses)
    facts.append(
        (
            "Pauses",
            "none" if longest is None else f"{count}, longest {pause_s(longest):.1f} s at {_start(longest, hide)}",
        )
    )
    for rule, name in (("bradycardia", "Bradycardia"), ("tachycardia", "Tachycardia")):
        if holter.episodes.get(rule):
            facts.append((name, _episodes(holter.episodes[rule], hide)))
    return facts


def _start(episode: Any, hide: Disguise) -> str:
    return _clock(episode.start_ns, hide)


def _episodes(found: Sequence[Any], hide: Disguise) -> str:
    if not found:
        return "none"
    longest = max(found, key=lambda e: e.seconds)
    return f"{len(found)}, longest {show_duration(longest.seconds)} at {_start(longest, hide)}"


def _run(holter: Holter, name: str, hide: Disguise) -> str:
    found = holter.patterns[name]
    if not found:
        return "none"
    longest = max(found, key=lambda p: p.beats)
    fastest = max(p.rate_bpm or 0 for p in found)
    at = _clock(int(holter.series.utc_ns[longest.first]), hide)
    return f"{len(found):,}, longest {longest.beats} beats at {at}, fastest {fastest:.0f} bpm"


def _v_facts(holter: Holter, hide: Disguise) -> list[tuple[str, str]]:
    p = holter.patterns
    return [
        ("Beats (V)", ectopic(holter.total, "V")),
        ("Single", f"{len(p['v_single']):,}"),
        ("Couplets", f"{len(p['couplet']):,}"),
        ("Runs of 3 or more", _run(holter, "v_run", hide)),
        ("Bigeminy", _gemini(holter, "bigeminy")),
        ("Trigeminy", _gemini(holter, "trigeminy")),
        ("Fusion beats (F)", f"{holter.total.beats['F']:,}"),
    ]


def _gemini(holter: Holter, name: str) -> str:
    found = holter.patterns[name]
    seconds = sum((holter.series.utc_ns[p.last - 1] - holter.series.utc_ns[p.first]) / NS for p in found)
    return f"{len(found):,} episodes, {show_duration(float(seconds))}" if found else "none"


def _s_facts(holter: Holter, hide: Disguise) -> list[tuple[str, str]]:
    return [
        ("Beats (S)", ectopic(holter.total, "S")),
        ("Single", f"{len(holter.patterns['s_single']):,}"),
        ("Couplets", f"{len(holter.patterns['s_couplet']):,}"),
        ("Runs of 3 or more", _run(holter, "s_run", hide)),
        ("Paced or unclassified (Q)", f"{holter.total.beats['Q']:,}"),
    ]


def _hrv_facts(hrv: Hrv) -> list[tuple[str, str]]:
    pnn50 = DASH if hrv.pnn50_percent is None else f"{hrv.pnn50_percent:.1f} %"
    index = DASH if hrv.triangular_index is None else f"{hrv.triangular_index:.0f}"
    return [
        ("Mean NN", ms(hrv.mean_nn_ms)),
        ("SDNN", ms(hrv.sdnn_ms)),
        ("SDANN, SDNN index", f"{ms(hrv.sdann_ms)}, {ms(hrv.sdnn_index_ms)}"),
        ("RMSSD", ms(hrv.rmssd_ms)),
        ("pNN50", pnn50),
        ("Triangular index", index),
    ]


def _summary(holter: Holter, hide: Disguise) -> list[Block]:
    zone = "times of day are kept, dates are not" if hide.hidden else f"times are local ({holter.timezone})"
    blocks: list[Block] = [
        Words(
            f"{minute(holter.start_ns, hide)} to {minute(holter.end_ns, hide)}; {zone}. "
            "Read by software; beats and episodes corrected by people are listed under “Reviewed and corrected”."
        )
    ]
    share = holter.total.readable_s / max((holter.end_ns - holter.start_ns) / NS, 1e-9)
    if share < LITTLE:
        blocks.append(
            Words(
                f"Only {per_cent(share)} of the period could be read. What is not listed may have happened unseen.",
                strong=True,
            )
        )
    waiting_s = holter.coverage.recorded_s - holter.coverage.analysed_s
    if waiting_s > WAITING_S:
        blocks.append(Words(f"{show_duration(waiting_s)} of it have not been analysed yet.", strong=True))
    return [*blocks, Facts(summary_facts(holter, hide))]


def _days(holter: Holter, hide: Disguise) -> list[Block]:
    blocks: list[Block] = []
    for n, day in enumerate(holter.days):
        local = hide.local(day.start_ns)
        name = f"{local:%a} {local.day} {local:%b %Y}"
        forward = hide.local(day.end_ns - NS).replace(tzinfo=None) - hide.local(day.start_ns).replace(tzinfo=None)
        forward_ns = round(forward.total_seconds()) * NS - (day.end_ns - NS - day.start_ns) // NS * NS
        note = f", a day of {24 - forward_ns / NS / 3600:.4g} h: the clocks changed" if forward_ns else ""
        blocks.append(Heading(f"{name}{note}", new_page=n == 0 and len(holter.days) > 2))
        blocks.append(
            Plot(
                62,
                partial(plots.day, holter=holter, span=day, hide=hide),
                "heart rate, rhythm and ectopic beats over the day",
            )
        )
    blocks.append(
        Words(
            "Heart rate: mean per minute, band from lowest to highest 5-beat rate. Noise: unreadable, electrode off or "
            "not recorded. Ectopic beats per 10 minutes: ventricular upward, supraventricular downward.",
            small=True,
        )
    )
    return blocks


_COLUMNS = ("", "recorded", "readable", "mean", "min", "max", "beats", "V", "S", "pauses", "AF", "SDNN", "RMSSD")
_WIDTHS = (30.0, 15.0, 15.0, 12.0, 12.0, 12.0, 15.0, 13.0, 13.0, 12.0, 13.0, 12.0, 12.0)


def _row(name: str, f: Figures) -> tuple[str, ...]:
    hrv = (f"{v:.0f}" if v is not None else DASH for v in (f.hrv.sdnn_ms, f.hrv.rmssd_ms))
    if not f.readable_s:
        return (name, _hm(f.recorded_s), _hm(f.readable_s), *([DASH] * 10))
    return (
        name,
        _hm(f.recorded_s),
        _hm(f.readable_s),
        bpm(f.mean_bpm),
        bpm(f.lowest.bpm if f.lowest else None),
        bpm(f.highest.bpm if f.highest else None),
        f"{f.all_beats:,}",
        f"{f.beats['V']:,}",
        f"{f.beats['S']:,}",
        str(f.pauses),
        per_cent(f.af_share),
        *hrv,
    )


def _hm(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}"


def _hours(holter: Holter, hide: Disguise) -> list[Block]:
    blocks: list[Block] = []
    if len(holter.days) > 1:
        rows = []
        for day in holter.days:
            local, length_h = hide.local(day.start_ns), (day.end_ns - day.start_ns) / NS / 3600
            rows.append(_row(f"{local:%a} {local.day} {local:%b} ({length_h:.3g} h)", day))
        rows.append(_row("whole period", holter.total))
        blocks += [Heading("By day"), Table(_COLUMNS, rows, _WIDTHS, bold_last=True)]
    hourly = [
        _row(f"{hide.local(f.start_ns):%a %H:%M %Z}" if not hide.hidden else f"{hide.local(f.start_ns):%a %H:%M}", f)
        for f in holter.hours
    ]
    blocks.append(Heading("By hour"))
    blocks.append(Table(_COLUMNS, [*hourly, _row("whole period", holter.total)], _WIDTHS, bold_last=True))
    blocks.append(
        Words(
            "Recorded and readable in h:min, heart rates in bpm, AF as share of readable time, SDNN and RMSSD in ms.",
            small=True,
        )
    )
    return blocks


def _events(holter: Holter, hide: Disguise) -> list[Block]:
    rows = []
    for rule, found in sorted(holter.episodes.items()):
        longest = max(found, key=lambda e: e.seconds)
        total_s = sum(b - a for a, b in queries.merge([(e.start_ns, e.end_ns) for e in found])) / NS
        reviewed = sum(e.verdict is not None for e in found)
        rows.append(
            (
                rule.replace("_", " "),
                f"{len(found):,}",
                show_duration(total_s),
                show_duration(longest.seconds),
                _start(longest, hide),
                f"{reviewed} of {len(found)}",
            )
        )
    columns = ("event", "count", "in all", "longest", "at", "reviewed")
    blocks: list[Block] = [Heading("Events")]
    if not rows:
        return [*blocks, Words("None.")]
    return [*blocks, Table(columns, rows, (44.0, 20.0, 32.0, 32.0, 28.0, 30.0))]


def _caption(choice: Choice, hide: Disguise) -> str:
    parts = [NAMES[choice.type] + (f" ({choice.why})" if choice.why and choice.type != "symptom" else "")]
    if choice.type == "symptom" and hide.text(choice.why):
        parts.append(f"“{hide.text(choice.why)[:60]}”")
    if choice.rate_bpm is not None:
        parts.append(f"{choice.rate_bpm:.0f} bpm")
    if choice.note:
        parts.append(choice.note)
    if choice.seconds >= 1 and choice.type not in ("lowest", "highest", "v_single", "s_single"):
        parts.append(show_duration(choice.seconds))
    if choice.event_id:
        parts.append(f"event {hide.event(choice.event_id)[:8]}")
    return "   ".join(parts)


def _strips(conn: Connection, holter: Holter, hide: Disguise) -> list[Block]:
    choices, left_out = chosen.choose(holter)
    blocks: list[Block] = [Heading("Strips", new_page=True)]
    low, high = MONITOR_HZ
    note = (
        f"Symptoms, then per day and type the extreme, the longest and the second longest. 25 mm/s, 10 mm/mV, filtered "
        f"to {low:g}-{high:g} Hz: {ST_NOTE}. Letters are AAMI classes of beats."
    )
    blocks.append(Words(note + (f" {left_out} more strips were left out." if left_out else ""), small=True))
    by_id = {recording.id: recording for recording in holter.recordings}
    for choice in choices:
        recording = by_id.get(choice.recording_id)
        if recording is None:
            continue
        first = chosen.first_sample(choice, recording.fs_hz)
        strip = of_span(conn, recording, first, chosen.STRIP_S, monitor=True, disguise=hide)
        marks = tuple(mark for mark in strip.marks if mark.label != "ectopy_rate")  # it would shade everything
        shown = [n for n, row in enumerate(strip.mv) if np.isfinite(row).any()][:LEADS_SHOWN] or [0]
        strip = dataclasses.replace(strip, leads=tuple(strip.leads[n] for n in shown), mv=strip.mv[shown], marks=marks)
        blocks.append(StripBlock(_caption(choice, hide), strip))
    if not choices:
        blocks.append(Words("None."))
    return blocks


def _reviewed(holter: Holter, hide: Disguise) -> list[Block]:
    blocks: list[Block] = [Heading("Reviewed and corrected")]
    events = [e for found in holter.episodes.values() for e in found]
    verdicts = sum(e.verdict is not None for e in events) + len(holter.false_alarms)
    blocks.append(
        Words(
            f"{verdicts} of {len(events) + len(holter.false_alarms)} events were reviewed; {len(holter.false_alarms)} "
            "were false alarms and count nowhere in this report. The machine's own reading stays in the database."
        )
    )
    if holter.marks:
        rows = [_mark_row(mark, hide) for mark in holter.marks]
        columns = ("said", "about", "what", "note", "by")
        blocks.append(Table(columns, rows, (31.0, 31.0, 44.0, 58.0, 22.0), left=5))
    return blocks


def _mark_row(mark: Mark, hide: Disguise) -> tuple[str, ...]:
    what = MARK_NAMES.get(mark.kind, mark.kind)
    if mark.kind == "beat":
        right = (mark.value or {}).get("type")
        what = f"beat is {right}" if right else "no beat here"
    elif mark.kind == "episode":
        what = f"is {(mark.value or {}).get('rule', '?')}"
    if mark.undone_ns is not None:
        what += " (undone)"
    when = "" if hide.hidden else f"{hide.local(mark.written_ns):%d %b %H:%M}"
    about = f"{hide.local(mark.at_ns):%d %b %H:%M:%S}"
    return when, about, what, hide.text(mark.note), hide.text(mark.author)


def _methods(holter: Holter, rules: Rules, card: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = [Heading("Methods and limits")]
    versions = [
        f"encoder {a['encoder']} ({a['provider']}), rules {a['rules_hash']}, anyECG Edge {a['code_version']}"
        for a in holter.analyses
    ]
    blocks.append(Words("Read by: " + ("; ".join(versions) or "nothing yet") + "."))
    own = rules_hash(rules)
    if any(a["rules_hash"] != own for a in holter.analyses):
        blocks.append(Words(f"The thresholds below are today's ({own}); part was read with others.", strong=True))
    unread_s = sum(e.seconds for rule in UNREADABLE_RULES for e in holter.episodes.get(rule, ()))
    covered = holter.coverage
    blocks.append(
        Words(
            f"Coverage: {show_duration(covered.recorded_s)} recorded, {show_duration(covered.analysed_s)} analysed, "
            f"{show_duration(covered.readable_s)} readable; {show_duration(unread_s)} electrode off, flat or "
            "unreadable. Rates and shares are of readable time. Beats two devices saw at once count once. "
            "Lowest and highest heart rate: means of 5 RR intervals. Patterns "
            "as in the 2017 ISHNE-HRS consensus on ambulatory ECG."
        )
    )
    blocks.append(
        Words(
            "Heart rate variability: Task Force of the ESC and the NASPE, Circulation 93:1043 (1996), time domain, on "
            "NN intervals: both beats normal, adjacent, readable between, outside AF and tachycardias, 0.4 to 2.0 s "
            "and within 20 % of the mean of 40 neighbours (PhysioNet HRV toolkit). Deep breathing, noise and missed "
            "ectopic beats change RMSSD and pNN50 first."
        )
    )
    rows = []
    for name, group in rules.groups():
        if isinstance(group, Rule) and group.enabled:
            values = (
                f"{f.name} {getattr(group, f.name):g} {f.metadata['unit']}".strip()
                for f in dataclasses.fields(group)
                if "unit" in f.metadata and f.name not in ("merge_s", "update_s")
            )
            rows.append((name.replace("_", " "), group.severity, ", ".join(values)))
    blocks.append(Table(("rule", "severity", "thresholds"), rows, (26.0, 20.0, 140.0), left=3))
    limits = [str(limit) for limit in card.get("limits", [])]
    blocks.append(Words(f"Known limits of encoder {card.get('checkpoint', '?')}: " + " ".join(limits)))
    measured = card.get("metrics", {}).get("mitdb gross", {})
    if measured:
        parts = (
            f"{name} sensitivity {measured[key]['se']:g} %, positive predictive value {measured[key]['ppv']:g} %"
            for key, name in (("qrs", "QRS"), ("V", "V beats"), ("S", "S beats"), ("af_seconds", "AF seconds"))
            if key in measured
        )
        blocks.append(Words("On the test records of the MIT-BIH Arrhythmia Database: " + "; ".join(parts) + "."))
    blocks.append(Words(f"{FOOTER}. It does not replace the reading of the ECG by a physician.", strong=True))
    return blocks


def _disclosure(conn: Connection, holter: Holter, hide: Disguise) -> list[Block]:
    blocks: list[Block] = []
    for at_ns in range(holter.start_ns, holter.end_ns, disclosure.PAGE_NS):
        draw = partial(disclosure.draw, conn=conn, holter=holter, hide=hide, at_ns=at_ns)
        blocks.append(Heading(f"Full disclosure from {minute(at_ns, hide)}", new_page=True))
        blocks.append(Plot(232, draw, f"every minute from {minute(at_ns, hide)}"))
    return blocks
