"""Where an exported recording is cut: formats know one start time and one rate."""

from __future__ import annotations

import pytest

from edge.exchange.selection import CLOCK_JUMP_S, NS, _jumps
from edge.store.queries import ClockSegment, Recording

UTC0_NS = 1_790_000_000 * NS
FS_HZ = 130.0


def recording(*segments: ClockSegment, hours: float = 5.0) -> Recording:
    return Recording(
        id=1,
        key="k",
        wearer="anna",
        device="strap",
        leads=("ECG",),
        fs_hz=FS_HZ,
        uv_per_lsb=(1.0,),
        source="live",
        start_ns=UTC0_NS,
        end_sample=round(hours * 3600 * FS_HZ),
        last_received_ns=0,
        segments=segments,
    )


def test_an_even_clock_is_not_cut() -> None:
    small = ClockSegment(130_000, UTC0_NS + 1000 * NS + NS // 2, FS_HZ)
    assert _jumps(recording(ClockSegment(0, UTC0_NS, FS_HZ), small)) == []


def test_a_jump_is() -> None:
    later = ClockSegment(130_000, UTC0_NS + 1002 * NS, FS_HZ)
    back = ClockSegment(260_000, UTC0_NS + 1000 * NS, FS_HZ)
    assert _jumps(recording(ClockSegment(0, UTC0_NS, FS_HZ), later, back)) == [130_000, 260_000]


@pytest.mark.parametrize("rate_hz", [130.061, 129.9])
def test_a_true_rate_that_is_not_nominal_is_cut_whenever_it_has_run_off_a_second(rate_hz: float) -> None:
    one = recording(ClockSegment(0, UTC0_NS, rate_hz))
    borders = _jumps(one)
    per_sample_ns = abs(NS / rate_hz - NS / FS_HZ)
    assert len(borders) == int(one.end_sample * per_sample_ns / NS)
    for first, end in zip([0, *borders], [*borders, one.end_sample], strict=True):
        nominal_ns = (end - 1 - first) * NS / FS_HZ
        assert abs(one.to_utc_ns(end - 1) - one.to_utc_ns(first) - nominal_ns) <= CLOCK_JUMP_S * NS + 1


def test_segments_that_correct_a_drift_are_measured_from_the_start_of_the_run() -> None:
    rate_hz = FS_HZ * (1 - 200e-6)
    segments = [ClockSegment(n * 78_000, UTC0_NS + round(n * 78_000 * NS / rate_hz), FS_HZ) for n in range(30)]
    borders = _jumps(recording(*segments))
    assert borders == [9 * 78_000, 18 * 78_000, 27 * 78_000]
