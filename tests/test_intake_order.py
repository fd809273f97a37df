"""Whatever the order of arrival, the recording is the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from intake_kit import FS_HZ, START_NS, Final, Gateway, Sender, wave

from edge.chunk import MISSING, Chunk
from edge.store.tables import gap, inbox
from edge.store.tables import recording as recording_table

SECOND_NS = 10**9
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Durability is not what these tests are about."""


def settle(chunks: list[Chunk], *, restart_after: int = -1, tick_after: frozenset[int] = frozenset()) -> Final:
    """Deliver `chunks`, with silences and a restart in between, and return the outcome."""
    with tempfile.TemporaryDirectory(dir=FAST) as folder, Gateway(Path(folder)) as gateway:
        for i, chunk in enumerate(chunks):
            gateway.send(chunk)
            if i in tick_after:
                gateway.quiet()
            if i == restart_after:
                gateway.close()
                gateway.open()
        gateway.quiet()
        gateway.quiet(120)
        assert not gateway.rows(inbox)
        return gateway.final()


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Chunk], list[Chunk]]:
    """Chunks of one or two boots with losses, and the same ones shuffled, repeated and late."""
    x = wave(4000)
    chunks: list[Chunk] = []
    device_ns = 0
    for boot in range(1, draw(st.integers(1, 2)) + 1):
        at = 2100 if chunks else 0
        sender = Sender(boot=boot, device_start_ns=device_ns - at * SECOND_NS // 100, at=at)
        device_ns = draw(st.integers(0, 10)) * SECOND_NS
        n = draw(st.integers(5, 50))
        lost_signal = draw(st.sets(st.integers(1, 11), max_size=3))
        lost_chunks = draw(st.sets(st.integers(1, 10), max_size=3))
        mine = []
        for i in range(12):
            if i in lost_signal:
                sender.at += draw(st.integers(2, 30))
            mine.append(sender.take(x[:, sender.at : sender.at + n]))
        chunks += [c for i, c in enumerate(mine) if i not in lost_chunks]
    by_boot = [[c for c in chunks if c.boot == boot] for boot in (1, 2)]
    shuffled: list[Chunk] = []
    for mine in by_boot:
        if mine:  # a recording's first chunk comes in time: room for it is an estimate (test below)
            first = mine[:1] if not shuffled else []
            shuffled += first + draw(st.permutations(mine[len(first) :]))
            shuffled += draw(st.lists(st.sampled_from(mine), max_size=4))
    if by_boot[1] and draw(st.booleans()):  # a straggler of the boot before
        straggler = shuffled.pop(draw(st.integers(1, len(by_boot[0]) - 1)))
        shuffled.append(straggler)
    return chunks, shuffled


@settings(max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(deliveries(), st.integers(-1, 20), st.frozensets(st.integers(0, 30), max_size=3))
def test_order_does_not_matter(
    both: tuple[list[Chunk], list[Chunk]], restart_after: int, tick_after: frozenset[int]
) -> None:
    chunks, shuffled = both
    assert settle(shuffled, restart_after=restart_after, tick_after=tick_after) == settle(chunks)


def test_the_reference_itself_is_right(tmp_path: Path) -> None:
    x = wave(1000)
    sender = Sender()
    chunks = sender.cut(x[:, :400], [100] * 4)
    sender.at = 450
    chunks += [sender.take(x[:, at : at + 50]) for at in range(450, 1000, 50)]
    expected = x.copy()
    expected[:, 400:450] = MISSING
    with Gateway(tmp_path) as gateway:
        gateway.send(*chunks)
        assert np.array_equal(gateway.samples(), expected)
        final = gateway.final()
    assert final.gaps == [(400, 450)]
    assert final.segments == [(0, 1, 5 * SECOND_NS, START_NS, "sender")]
    assert final.start_ns == START_NS


def test_a_hole_waits_for_its_chunk(tmp_path: Path) -> None:
    x = wave(500)
    a, b, c, d, e = Sender().cut(x, [100] * 5)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, c, e)
        assert gateway.final().end == 100
        assert gateway.intake.frontier("anna", "strap") == (1, 0)
        assert gateway.acknowledged == [(1, 0), (1, 2), (1, 4)]
        gateway.send(b)
        assert gateway.final().end == 300
        assert gateway.intake.frontier("anna", "strap") == (1, 2)
        gateway.send(d)
        assert np.array_equal(gateway.samples(), x)
        assert [s.horizon_sample for s in gateway.stored] == [100, 300, 500]
        assert all(s.changed_from is None for s in gateway.stored)
        assert gateway.count("gap", "late") == {"gap": 0, "late": 0}


def test_the_watermark_is_data_time(tmp_path: Path) -> None:
    x = wave(1400)
    chunks = Sender().cut(x, [100] * 14)
    with Gateway(tmp_path) as gateway:
        gateway.send(chunks[0], *chunks[2:11])
        assert gateway.final().end == 100  # 9 s newer than the hole
        gateway.send(chunks[11])
        assert gateway.final().end == 1200
        assert gateway.final().gaps == [(100, 200)]
        assert gateway.count("gap") == {"gap": 1}


def test_silence_decides_too(tmp_path: Path) -> None:
    x = wave(300)
    a, _, c = Sender().cut(x, [100] * 3)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, c)
        gateway.quiet(9.9)
        assert gateway.final().end == 100
        gateway.quiet(0.2)
        assert gateway.final().gaps == [(100, 200)]
        assert gateway.stored[-1].horizon_sample == 300


def test_what_the_sender_gave_up_is_not_waited_for(tmp_path: Path) -> None:
    x = wave(300)
    sender = Sender()
    a, _ = sender.cut(x, [100] * 2)
    c = sender.take(x[:, 200:], oldest=2)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, c)
        assert gateway.final().gaps == [(100, 200)]
        assert gateway.intake.frontier("anna", "strap") == (1, 2)


def test_giving_up_later_decides_as_well(tmp_path: Path) -> None:
    x = wave(400)
    sender = Sender()
    a, _, c = sender.cut(x[:, :300], [100] * 3)
    d = sender.take(x[:, 300:], oldest=2)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, c)
        assert gateway.final().end == 100
        gateway.send(d)
        assert gateway.final().end == 400


def test_late_chunks_fill_their_gap_and_are_told(tmp_path: Path) -> None:
    x = wave(600)
    a, b, c, d, e, f = Sender().cut(x, [100] * 6)
    with Gateway(tmp_path) as gateway:
        gateway.send(a, e)
        gateway.quiet()
        assert gateway.final().gaps == [(100, 400)]
        gateway.send(c)
        assert gateway.final().gaps == [(100, 200), (300, 400)]
        assert gateway.stored[-1].changed_from == 200
        gateway.send(d)
        assert gateway.stored[-1].changed_from == 300
        gateway.send(b)
        gateway.send(f)
        assert gateway.rows(gap) == []
        assert np.array_equal(gateway.samples(), x)
        assert gateway.count("late", "overlap") == {"late": 3, "overlap": 0}
        assert gateway.stored[-1].changed_from is None
        assert gateway.intake.frontier("anna", "strap") == (1, 5)
        (recording,) = gateway.rows(recording_table)
        assert (recording.changed_from_sample, recording.changed_until_sample) == (100, 400)


def test_the_first_chunks_may_be_late(tmp_path: Path) -> None:
    x = wave(500)
    a, b, c, d, e = Sender().cut(x, [100] * 5)
    with Gateway(tmp_path) as gateway:
        gateway.send(d)
        assert gateway.final().end == 0
        gateway.quiet()
        assert gateway.final().gaps == [(0, 300)]  # room for what the sender says it holds
        assert gateway.final().start_ns == START_NS
        gateway.send(e, b, a, c)
        assert np.array_equal(gateway.samples(), x)
        assert gateway.final().segments == [(0, 1, 5 * SECOND_NS, START_NS, "sender")]
    other = settle([a, b, c, d, e])
    assert other.key == settle([d, a, b, c, e]).key


def test_first_chunk_far_ahead_of_what_was_given_up_starts_at_once(tmp_path: Path) -> None:
    sender = Sender(seq=700)
    with Gateway(tmp_path) as gateway:
        gateway.send(sender.take(wave(100), oldest=700))
        assert gateway.final().end == 100
        assert gateway.intake.frontier("anna", "strap") == (1, 700)


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """Every place to stop in a delivery with holes, late data and a second boot ends the same."""
    x = wave(2000)
    one = Sender().cut(x[:, :600], [100] * 6)
    two = Sender(boot=2, at=800, device_start_ns=-8 * SECOND_NS).cut(x[:, 800:1200], [100] * 4)
    order = [one[0], one[2], one[1], one[5], two[0], one[3], two[2], two[3], one[4], two[1]]
    outcomes = [settle(order, restart_after=i) for i in range(-1, len(order))]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    expected = x[:, :1200].copy()
    expected[:, 600:800] = MISSING
    assert np.array_equal(np.array(outcomes[0].samples), expected)
    assert FS_HZ == 100
