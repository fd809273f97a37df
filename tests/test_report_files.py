"""The report as files: what is printed, to scale, and nothing that runs or leaks."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from exchange_kit import PERIOD, START, new_state, run, short_record, value
from matplotlib.image import imread
from store_kit import build

from edge.errors import AnyecgError, BadInputError
from edge.report import paper
from edge.report.strip import FOOTER

ANN = ("--wearer", "ann", "--since", "2026-03-28", "--until", "2026-03-29")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = build(tmp_path_factory.mktemp("files"))
    run(state, "mark", "--wearer", "ann", "--at", "2026-03-29T06:10:01", "<script>alert(1)</script>")
    run(state, "review", "false", "af-0000000000001", "--note", "movement")
    return state


def pages(path: Path) -> list[str]:
    """Return the text of each page."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed: sudo make system")
    text = subprocess.run(["pdftotext", "-layout", path, "-"], capture_output=True, text=True, check=True).stdout
    return text.split("\f")[:-1]


@pytest.fixture(scope="module")
def printed(state: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    path = tmp_path_factory.mktemp("pdf") / "ann.pdf"
    run(state, "report", *ANN, "--pdf", path)
    return path, pages(path)


def test_every_page_says_whose_it_is_and_what_it_is_not(printed: tuple[Path, list[str]]) -> None:
    _, found = printed
    assert len(found) >= 3
    for number, page in enumerate(found, 1):
        assert FOOTER in page
        assert re.search(rf"page {number}\b", page)
        assert "ann" in page.splitlines()[0]


def test_the_pages_print_the_figures_of_the_json(state: Path, printed: tuple[Path, list[str]]) -> None:
    text = " ".join(" ".join(printed[1]).split())
    figures = value(state, "report", *ANN)
    assert f"{figures['beats']['V']:,} (" in text
    assert f"{100 * figures['af_share']:.1f} % of readable time" in text
    assert "Sun 29 Mar 2026, a day of 23 h: the clocks changed" in text
    assert "Sun 03:00 CEST" in text
    assert "Sun 02:00" not in text
    assert "false alarm" in text
    assert "movement" in text
    assert re.search(r"1 of \d+ events were reviewed; 1 were false alarms", text)
    assert f"1 of {sum(e['count'] for e in figures['events'].values()) + 1} events" in text
    assert "Task Force" in text
    assert "The thresholds below are today's" in text  # the kit's analysis used others
    assert "Trained on a few dozen wearers" in text
    assert "ST not interpretable" in text


def test_a_strip_in_the_report_is_to_scale(printed: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, found = printed
    number = next(n for n, page in enumerate(found, 1) if "Strips" in page)
    if shutil.which("pdftoppm") is None:
        pytest.skip("pdftoppm is not installed: sudo make system")
    command = ["pdftoppm", "-r", "254", "-png", "-f", str(number), "-l", str(number), path, tmp_path / "p"]
    subprocess.run(command, check=True)
    image = np.asarray(imread(next(tmp_path.glob("p*.png"))), float)[:, :, :3]
    wanted = np.array([int(paper.MAJOR[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    major = np.abs(image - wanted).max(axis=2) < 0.12
    row = int(np.argmax(major[: image.shape[0] // 2].sum(axis=1) > 0.7 * 1850)) + 25  # between two lines of the grid
    columns = np.flatnonzero(major[row])
    steps = np.diff(columns)[np.diff(columns) > 3]
    assert steps.size > 20
    assert np.median(steps) == pytest.approx(50, abs=1)  # 5 mm at 254 dpi


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_runs_nothing_and_fetches_nothing(state: Path, tmp_path: Path) -> None:
    run(state, "report", *ANN, "--html", tmp_path / "a.html")
    tags = Tags()
    tags.feed((tmp_path / "a.html").read_text())
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "iframe", "object", "embed", "form"}
    for tag, attributes in tags.seen:
        for name, value_ in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href") and value_:
                assert value_.startswith("#"), (tag, name, value_)
    assert "<script>alert(1)</script>" in " ".join(tags.words)  # as words
    assert FOOTER in " ".join(tags.words)
    assert {"svg", "table", "h2"} <= names


def test_a_hidden_report_names_nobody_and_no_day(state: Path, tmp_path: Path) -> None:
    run(state, "report", *ANN, "--deidentify", "--pdf", tmp_path / "a.pdf", "--html", tmp_path / "a.html")
    for text in (" ".join(pages(tmp_path / "a.pdf")), (tmp_path / "a.html").read_text()):
        for word in ("ann", "patch", "movement", "alert(1)", "Mar", "Berlin", "CEST", "af-0000000000002"):
            assert not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text), word
        assert "1985" in text
    shown = value(state, "report", *ANN, "--deidentify")
    assert shown["from"].startswith("1984-12-31") or shown["from"].startswith("1985-01-01")
    assert shown["beats"] == value(state, "report", *ANN)["beats"]


def test_two_periods_stand_side_by_side(state: Path, tmp_path: Path) -> None:
    first = ("--since", "2026-03-29T00:00", "--until", "2026-03-29T12:00", "--against", "2026-03-28")
    run(state, "report", "--wearer", "ann", *first, "--pdf", tmp_path / "a.pdf")
    text = " ".join(" ".join(pages(tmp_path / "a.pdf")).split())
    both = value(state, "report", "--wearer", "ann", *first)
    difference = both["b"]["beats"]["V"] - both["a"]["beats"]["V"]
    a, b = both["a"]["beats"]["V"], both["b"]["beats"]["V"]
    assert f"Ventricular beats {a} {b} {difference:+}" in text
    assert both["b"]["recorded_s"] == 11 * 3600  # the clocks changed that night
    previous = value(state, "report", "--wearer", "ann", *first[:4], "--against", "previous")
    assert previous["a"]["to"] == previous["b"]["from"]
    for wrong in ("tomorrow or so", "2026-03-29..2026-03-28"):
        with pytest.raises(BadInputError):
            run(state, "report", "--wearer", "ann", *first[:4], "--against", wrong, "--json")


def test_full_disclosure_holds_every_minute_of_a_real_recording(ecg_data: Path, tmp_path: Path) -> None:
    path, _ = short_record(ecg_data, tmp_path)
    state = new_state(tmp_path / "state")
    value(state, "import", path, "--wearer", "anna", "--device", "patch", "--start", START)
    run(state, "report", "--wearer", "anna", *PERIOD, "--full-disclosure", "--pdf", tmp_path / "a.pdf")
    last = pages(tmp_path / "a.pdf")[-1]
    assert re.findall(r"\b0[1-4]:\d\d\b", last)[-6:] == ["01:58", "01:59", "03:00", "03:01", "03:02", "03:03"]
    text = " ".join(pages(tmp_path / "a.pdf"))
    assert "Ventricular" in text
    assert "MLII" in text
    assert "V1" in text


def test_what_cannot_be_written_says_so_and_leaves_nothing(state: Path, tmp_path: Path) -> None:
    with pytest.raises(AnyecgError, match="cannot write"):
        run(state, "report", *ANN, "--pdf", tmp_path / "none" / "a.pdf")
    with pytest.raises(AnyecgError, match="cannot write"):
        run(state, "report", *ANN, "--html", tmp_path / "none" / "a.html")
    with pytest.raises(BadInputError, match="say what to write"):
        run(state, "report", *ANN)
    assert list(tmp_path.iterdir()) == []


def test_strips_are_written_as_svg_and_pdf_and_filtered(state: Path, tmp_path: Path) -> None:
    at = ("--wearer", "ann", "--at", "2026-03-29T06:09:55", "--seconds", "5")
    run(state, "strip", *at, "--svg", tmp_path / "a.svg", "--pdf", tmp_path / "a.pdf", "--monitor")
    (text,) = pages(tmp_path / "a.pdf")
    svg = (tmp_path / "a.svg").read_text()
    for words in (text, svg):
        assert "filter: 0.5-40 Hz, ST not interpretable" in words
        assert "CEST" in words
        assert FOOTER in words
    assert re.search(r'width="(\d+\.?\d*)pt"', svg)
    width_mm = float(re.search(r'width="(\d+\.?\d*)pt"', svg)[1]) / 72 * 25.4  # type: ignore[index]
    assert width_mm == pytest.approx(paper.LEFT + paper.LEAD_IN + 125 + paper.RIGHT, abs=0.5)
    with pytest.raises(BadInputError, match=r"must end in \.pdf"):
        run(state, "strip", *at, "--pdf", tmp_path / "a.txt")
    hidden = value(state, "strip", *at, "--deidentify")
    assert (hidden["wearer"], hidden["device"]) == ("X", "device-1")
    assert hidden["start"].startswith("1985-01-01")


def test_the_monitor_band_removes_drift_and_keeps_beats() -> None:
    from edge.report.strip import monitor_band

    t = np.arange(5000) / 250
    beats = np.exp(-(((t % 1.0) - 0.5) ** 2) / (2 * 0.015**2))
    mv = (beats + 1.5 + 0.8 * np.sin(2 * np.pi * 0.05 * t) + 0.1 * np.sin(2 * np.pi * 100 * t)).astype(np.float32)[None]
    mv[0, 2000:2300] = np.nan
    filtered, band = monitor_band(mv, 250.0)
    assert band == "0.5-40 Hz"
    assert np.isnan(filtered[0, 2000:2300]).all()
    assert np.isfinite(filtered[0, 2300:]).all()
    middle = filtered[0, 1000:1900]
    assert np.abs(np.median(middle)) < 0.15
    assert middle.max() == pytest.approx(1.0, abs=0.2)
    assert int(np.argmax(middle[:250])) == int(np.argmax(beats[1000:1250]))  # nothing is shifted
