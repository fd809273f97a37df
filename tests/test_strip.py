"""Strips: the millimetre is a millimetre, a gap is a gap, and every door to one says what is wrong."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from sqlalchemy import Connection
from store_kit import FS_HZ, NS, VT_AT, berlin, utc_ns

from edge.chunk import MISSING
from edge.errors import AnyecgError, BadInputError
from edge.report import paper, terminal
from edge.report.braille import plot
from edge.report.strip import FOOTER, Mark, Strip, of_event, of_record, of_wearer
from edge.sources.record import Record
from edge.store import queries

PX = paper.PX_PER_MM
SIGNAL_X = (paper.LEFT + paper.LEAD_IN) * PX


def square(fs_hz: float = 250.0, seconds: float = 10.0) -> Strip:
    """1 mV for 200 ms every second from 0.4 s on; nothing recorded from 6 to 8 s."""
    t = np.arange(round(seconds * fs_hz)) / fs_hz
    mv = np.where((t % 1.0 >= 0.4) & (t % 1.0 < 0.6), 1.0, 0.0).astype(np.float32)
    mv[(t >= 6) & (t < 8)] = np.nan
    return Strip(
        title="ann / $x_1$ naïve ★",  # neither markup nor an unknown glyph may break a page
        when="Sun 29 Mar 2026 06:10:00 CEST",
        start_ns=0,
        leads=("MLII",),
        fs_hz=fs_hz,
        mv=mv[None, :],
        beats=((0.5, "N"), (1.5, "V")),
        marks=(Mark("vt", 2.0, 4.0),),
    )


def pixels(strip: Strip, path: Path) -> NDArray[np.float64]:
    size = paper.write_png(strip, path)
    image = np.asarray(imread(path), float)[:, :, :3]
    assert (image.shape[1], image.shape[0]) == size
    return image


def is_colour(image: NDArray[np.float64], colour: str, tolerance: float = 0.02) -> NDArray[np.bool_]:
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.asarray(np.abs(image - wanted).max(axis=2) < tolerance)


def runs(line: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(int), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def test_the_file_says_its_resolution(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    paper.write_png(square(), path)
    data = path.read_bytes()
    at = data.index(b"pHYs")
    x, y, unit = struct.unpack(">IIB", data[at + 4 : at + 13])
    assert (x, y, unit) == (1000 * PX, 1000 * PX, 1)  # pixels per metre


def test_bold_lines_lie_5_mm_apart_and_thin_ones_1_mm(tmp_path: Path) -> None:
    image = pixels(square(), tmp_path / "a.png")
    row = image.shape[0] - (paper.BOTTOM * PX + 5)  # half a millimetre above the grid's floor
    bold = [a for a, _ in runs(is_colour(image, paper.MAJOR)[row])]
    assert set(np.diff(bold)) == {5 * PX}
    lines = is_colour(image, paper.MAJOR)[row] | is_colour(image, paper.MINOR)[row]
    centres = [(a + b) / 2 for a, b in runs(lines)]
    inside = np.diff([c for c in centres if c < SIGNAL_X + 50 * PX])
    assert np.abs(inside - PX).max() <= 1
    column = paper.LEFT * PX + 5
    heights = [a for a, _ in runs(is_colour(image, paper.MAJOR)[:, column])]
    assert set(np.diff(heights)) == {5 * PX}


def trace(image: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Dark and grey: the trace, not the blue and red of shade and grid."""
    return np.asarray(image.max(axis=2) < 0.35)


def test_one_millivolt_is_10_mm_high_and_one_second_25_mm_long(tmp_path: Path) -> None:
    image = pixels(square(), tmp_path / "a.png")
    dark = trace(image)
    body = dark[(paper.TOP + 5) * PX : -paper.BOTTOM * PX]
    high = body[:, SIGNAL_X + round(0.5 * 25 * PX)]
    low = body[:, SIGNAL_X + round(0.2 * 25 * PX)]
    top = np.mean(runs(high)[0])
    floor = np.mean(runs(low)[0])
    assert floor - top == pytest.approx(10 * PX, abs=1)
    plateau = body[round(top)]
    starts = [a for a, b in runs(plateau[SIGNAL_X:]) if b - a > 3 * PX]
    assert np.diff(starts)[:5] == pytest.approx(25 * PX, abs=2)


def test_the_calibration_pulse_is_1_mv_for_200_ms(tmp_path: Path) -> None:
    image = pixels(square(), tmp_path / "a.png")
    lead_in = trace(image)[(paper.TOP + 5) * PX : -paper.BOTTOM * PX, paper.LEFT * PX : SIGNAL_X]
    rows = [r for r in range(lead_in.shape[0]) for a, b in runs(lead_in[r]) if b - a >= 5 * PX]
    columns = [c for c in range(lead_in.shape[1]) for a, b in runs(lead_in[:, c]) if b - a >= 9 * PX]
    top_row = min(rows)
    (plateau,) = [(a, b) for a, b in runs(lead_in[top_row]) if b - a >= 4 * PX]
    assert plateau[1] - plateau[0] == pytest.approx(5 * PX, abs=4)
    edge = runs(lead_in[:, columns[0]])[0]
    assert edge[1] - edge[0] == pytest.approx(10 * PX, abs=4)


def test_nothing_is_drawn_where_nothing_was_recorded(tmp_path: Path) -> None:
    image = pixels(square(), tmp_path / "a.png")
    body = trace(image)[(paper.TOP + 5) * PX : -paper.BOTTOM * PX]
    gap = body[:, SIGNAL_X + round(6.02 * 25 * PX) : SIGNAL_X + round(6.5 * 25 * PX)]
    signal = body[:, SIGNAL_X + round(5.02 * 25 * PX) : SIGNAL_X + round(5.5 * 25 * PX)]
    assert not gap.any()
    assert signal.any(axis=0).all()


def test_the_event_is_shaded_over_its_own_seconds_only(tmp_path: Path) -> None:
    image = pixels(square(), tmp_path / "a.png")
    row = image.shape[0] - (paper.BOTTOM + 8) * PX - 5
    blue = image[row, :, 2] - image[row, :, 0] > 0.02
    shaded = [(a, b) for a, b in runs(blue) if b - a > 3]
    first, last = shaded[0][0], shaded[-1][1]
    assert first == pytest.approx(SIGNAL_X + 2 * 25 * PX, abs=PX)
    assert last == pytest.approx(SIGNAL_X + 4 * 25 * PX, abs=PX)


def test_a_page_of_12_leads_for_a_minute_stays_within_bounds_at_half_the_resolution(tmp_path: Path) -> None:
    one = square(fs_hz=100.0, seconds=60.0)
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    many = Strip(one.title, one.when, 0, leads, one.fs_hz, np.repeat(one.mv, 12, axis=0), (), ())
    width, height = paper.write_png(many, tmp_path / "a.png")
    assert width * height < paper.MAX_PIXELS
    assert (width - (paper.LEFT + paper.RIGHT) * 5) / 5 == pytest.approx(60 * 25 + paper.LEAD_IN, abs=5)


def test_an_offset_or_a_spike_keeps_the_scale_and_the_page(tmp_path: Path) -> None:
    one = square()
    mv = one.mv + 40.0
    mv[0, 100] = 500.0
    spike = Strip(one.title, one.when, 0, one.leads, one.fs_hz, mv, (), ())
    _, height = paper.write_png(spike, tmp_path / "a.png")
    assert height <= (paper.TOP + paper.BOTTOM + paper.HEADROOM + paper.MAX_ROW) * PX
    empty = Strip(one.title, one.when, 0, one.leads, one.fs_hz, np.full_like(mv, np.nan), (), ())
    paper.write_png(empty, tmp_path / "b.png")


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(AnyecgError, match="cannot write"):
        paper.write_png(square(), tmp_path / "none" / "a.png")


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_terminal_strip_fits_its_width_and_shows_labels_span_gap_and_footer(columns: int, ascii_only: bool) -> None:
    lines = terminal.draw(square(), columns, ascii_only=ascii_only)
    assert max(len(line) for line in lines) <= columns
    assert FOOTER[:columns] in lines[-1]
    width = columns - terminal.AXIS
    labels = lines[2]
    assert labels.index("V") == terminal.AXIS + int(1.5 / 10 * width)
    assert any(line.strip().startswith("vt") for line in lines)
    hole = next(line for line in lines if "not record" in line or line.strip().startswith("not"))
    assert len(hole) - len(hole.lstrip()) == pytest.approx(terminal.AXIS + 0.6 * width, abs=1)
    drawing = lines[3 : 3 + terminal.ROWS]
    gap = slice(terminal.AXIS + int(0.62 * width), terminal.AXIS + int(0.78 * width))
    assert all(not line[gap].strip() for line in drawing)
    if ascii_only:
        assert all(line.isascii() for line in drawing)


def test_plots_draw_peaks_that_fall_between_columns() -> None:
    y = np.zeros(1000)
    y[503] = 1.0
    rows = plot(y, 20, 4, 0.0, 1.0, ascii_only=True)
    assert rows[0].count("*") >= 1
    assert rows[0].index("*") == 10
    assert plot([], 5, 2, 0, 1, ascii_only=True) == [" " * 5] * 2
    assert plot([float("nan")] * 9, 5, 2, 0, 1, ascii_only=False) == [" " * 5] * 2


def test_the_strip_of_an_event_shows_it_with_its_beats_and_local_time(conn: Connection) -> None:
    (event,) = queries.findings(conn, rules=("vt",))
    strip = of_event(conn, event["id"], 10.0)
    assert strip.when == "Sun 29 Mar 2026 06:09:58 CEST"
    assert [(m.label, m.start_s, m.end_s) for m in strip.marks] == [("vt", 2.0, 10.0)]
    assert strip.seconds == 10.0
    assert len(strip.beats) == 9
    known = strip.mv[0][np.isfinite(strip.mv[0])]
    assert known.max() == pytest.approx(1.0, abs=0.01)
    assert strip.as_json()["mv"]["MLII"][0] == pytest.approx(float(strip.mv[0][0]))


def test_a_long_event_is_shown_from_its_beginning(conn: Connection) -> None:
    strip = of_event(conn, "af-0000000000003", 10.0)
    assert [(m.label, m.start_s) for m in strip.marks] == [("af", 2.0)]
    assert strip.when == "Sun 29 Mar 2026 01:29:58 CET"


def test_a_strip_at_a_time_begins_there_and_marks_what_overlaps(conn: Connection) -> None:
    strip = of_wearer(conn, "ann", utc_ns(VT_AT) - 5 * NS, 20.0)
    assert strip.when == "Sun 29 Mar 2026 06:09:55 CEST"
    assert [(m.label, m.start_s, m.end_s) for m in strip.marks] == [("vt", 5.0, 13.0)]
    stored = np.isfinite(strip.mv[0])
    assert stored[: round(15 * FS_HZ)].all()
    assert not stored[round(15 * FS_HZ) :].any()  # the kit stores samples only until then


def test_wrong_strips_are_refused_with_what_would_do(conn: Connection) -> None:
    with pytest.raises(BadInputError, match="recordings reach from Fri 27 Mar 2026"):
        of_wearer(conn, "ann", utc_ns(berlin(20, 0)), 10.0)
    with pytest.raises(BadInputError, match="nothing of dan was recorded"):
        of_wearer(conn, "dan", utc_ns(VT_AT), 10.0)
    with pytest.raises(BadInputError, match="no wearer"):
        of_wearer(conn, "eve", utc_ns(VT_AT), 10.0)
    with pytest.raises(BadInputError, match=r"no lead 'V6'.*MLII"):
        of_wearer(conn, "ann", utc_ns(VT_AT), 10.0, "V6")
    with pytest.raises(BadInputError, match="choose 1 to 90 s"):
        of_wearer(conn, "ann", utc_ns(VT_AT), 91.0)
    with pytest.raises(BadInputError, match="choose 1 to 90 s"):
        of_event(conn, "af-0000000000001", float("nan"))
    with pytest.raises(BadInputError, match="no event"):
        of_event(conn, "abcdef", 10.0)


def test_a_record_on_disk_is_drawn_in_its_own_units() -> None:
    samples = np.tile(np.arange(1000, dtype=np.int32), (2, 1))
    samples[1, 600:] = MISSING
    record = Record("x", ("I", "II"), 100.0, (10.0, 5.0), samples, None, Path("x"))
    strip = of_record(record, 5.0, 8.0)
    assert strip.mv[0][0] == pytest.approx(5.0)
    assert strip.mv[1][0] == pytest.approx(2.5)
    assert np.isnan(strip.mv[1][100:]).all()
    assert strip.when == "from 5 s"
    with pytest.raises(BadInputError, match=r"lasts 10\.0 s"):
        of_record(record, 11.0, 13.0)


def test_a_real_record_makes_a_page(ecg_data: Path, tmp_path: Path) -> None:
    from edge.sources.record import read_record

    strip = of_record(read_record(ecg_data / "mitdb/200"), 10.0, 20.0)
    assert strip.leads == ("MLII", "V1")
    width, _ = paper.write_png(strip, tmp_path / "200.png")
    assert width == (paper.LEFT + paper.LEAD_IN + 250 + paper.RIGHT) * PX
