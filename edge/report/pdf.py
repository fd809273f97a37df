"""A document on A4 pages: text stays text, strips keep their scale when printed at 100 %."""

from __future__ import annotations

import os
import textwrap
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from edge.errors import AnyecgError
from edge.report.document import TEXT_MM, Block, Document, Facts, Heading, Plot, StripBlock, Table, Words
from edge.report.paper import FONTS, INCH, LEAD_IN, draw_paper, row_range, text
from edge.report.strip import FOOTER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

WIDTH, HEIGHT, MARGIN = 210, 297, 12
HEAD, FOOT = 16, 14
"""mm kept for the running head and the footer."""
ROW_MM, SMALL, NORMAL, LARGE = 4.4, 2.3, 2.7, 3.6
"""Height of a table row and of letters, mm."""
_CHARACTER = 0.52
"""Mean width of a letter as a share of its height times 1.0 (DejaVu Sans)."""
_WIDE = 0.57
"""The same, of the widest texts: digits and units."""
TOGETHER = 5
"""Lines of a paragraph that stay on one page."""
STRIP_ROW = (20, 50)
"""Least and greatest height of a lead in a strip, mm."""
INK, GREY, LINE, SHADE = "#101418", "#5d6770", "#c4ccd3", "#f2f5f7"


def write_pdf(document: Document, path: Path) -> int:
    """Write the document into `path`, whole or not at all; return the number of pages.

    Raises:
        AnyecgError: the file cannot be written.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    part = path.with_name(path.name + ".part")
    try:
        with (
            matplotlib.rc_context(FONTS),
            PdfPages(part, metadata={"Title": document.title, "Creator": "anyECG Edge", "CreationDate": None}) as pages,
        ):
            writer = _Writer(document, pages)
            for block, following in zip_longest(document.blocks, document.blocks[1:]):
                writer.add(block, following)
            writer.finish()
        part.replace(path)
    except OSError as error:
        raise AnyecgError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if part.exists():
            os.unlink(part)
    return writer.number


class _Writer:
    """Fills pages from the top."""

    def __init__(self, document: Document, pages: PdfPages) -> None:
        self._document, self._pages = document, pages
        self.number = 0
        self._figure: Figure | None = None
        self._page: Axes
        self._y = 0.0
        self._break()

    def add(self, block: Block, following: Block | None) -> None:
        """Write a block, on a new page where it does not fit; a heading stays with what follows it."""
        if isinstance(block, Heading):
            self._heading(block, following)
        elif isinstance(block, Words):
            self._words(block)
        elif isinstance(block, Table):
            self._table(block)
        elif isinstance(block, Facts):
            self._facts(block)
        elif isinstance(block, Plot):
            self._plot(block)
        else:
            self._strip(block)

    def finish(self) -> None:
        """Write the last page."""
        assert self._figure is not None
        self._pages.savefig(self._figure)

    def _break(self) -> None:
        from matplotlib.figure import Figure

        if self._figure is not None:
            self.finish()
        self.number += 1
        self._figure = Figure(figsize=(WIDTH / INCH, HEIGHT / INCH))
        page = self._figure.add_axes((0, 0, 1, 1))
        page.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
        page.axis("off")
        self._page = page
        size = LARGE if self.number == 1 else NORMAL
        title = self._document.title if self.number == 1 else self._document.running
        text(page, MARGIN, HEIGHT - 11, title, size=size, weight="bold")
        self._rule(HEIGHT - 13.5)
        self._rule(FOOT - 3)
        text(page, MARGIN, FOOT - 7, FOOTER, size=SMALL, color=GREY)
        text(page, WIDTH - MARGIN, FOOT - 7, f"page {self.number}", size=SMALL, ha="right", color=GREY)
        self._y = HEIGHT - HEAD

    def _rule(self, y: float, colour: str = LINE) -> None:
        self._page.plot([MARGIN, WIDTH - MARGIN], [y, y], color=colour, lw=0.4)

    def _room(self, height: float) -> None:
        if self._y - height < FOOT and self._y < HEIGHT - HEAD:
            self._break()

    def _heading(self, block: Heading, following: Block | None) -> None:
        if block.new_page and self._y < HEIGHT - HEAD:
            self._break()
        self._room(14 + following.height_mm if isinstance(following, Plot) else 40)
        self._y -= 7.5
        text(self._page, MARGIN, self._y, block.text, size=3.2, weight="bold")
        self._y -= 2.5

    def _words(self, block: Words) -> None:
        size = SMALL if block.small else NORMAL
        lines = textwrap.wrap(block.text, int(TEXT_MM / (size * _CHARACTER * (1.1 if block.strong else 1.0))))
        self._room(size * 1.7 * min(len(lines), TOGETHER))
        for words in lines:
            self._room(size * 1.7)
            self._y -= size * 1.7
            style = {"weight": "bold"} if block.strong else {}
            text(self._page, MARGIN, self._y, words, size=size, color=GREY if block.small else INK, **style)
        self._y -= 1.5

    def _facts(self, block: Facts) -> None:
        """Groups in two columns, name and value on a line."""
        column = (TEXT_MM - 8) / 2
        groups = [(title, [(n, v) for n, v in facts]) for title, facts in block.groups]
        for pair in (groups[i : i + 2] for i in range(0, len(groups), 2)):
            wrapped = [[(n, textwrap.wrap(v, 38) or [""]) for n, v in facts] for _, facts in pair]
            height = 7 + ROW_MM * max(sum(len(v) for _, v in facts) for facts in wrapped)
            self._room(height)
            for i, ((title, _), facts) in enumerate(zip(pair, wrapped, strict=True)):
                x, y = MARGIN + i * (column + 8), self._y - 5.5
                text(self._page, x, y, title, size=NORMAL, weight="bold")
                self._page.plot([x, x + column], [y - 1.6, y - 1.6], color=LINE, lw=0.4)
                for name, values in facts:
                    for n, value in enumerate(values):
                        y -= ROW_MM
                        text(self._page, x, y - 0.6, name if n == 0 else "", size=NORMAL, color=GREY)
                        text(self._page, x + 37, y - 0.6, value, size=NORMAL)
            self._y -= height + 1

    def _table(self, block: Table) -> None:
        self._header(block)
        for n, row in enumerate(block.rows):
            cells = [
                textwrap.wrap(cell, max(int(width / (SMALL * _WIDE)) - 1, 3)) or [""]
                for cell, width in zip(row, block.widths_mm, strict=True)
            ]
            height = ROW_MM + 3.4 * (max(map(len, cells)) - 1)
            if self._y - height < FOOT:
                self._break()
                self._header(block)
            bold = block.bold_last and n == len(block.rows) - 1
            self._row(block, cells, height, weight="bold" if bold else "normal")
        self._y -= 2

    def _header(self, block: Table) -> None:
        self._room(4 * ROW_MM)
        self._row(block, [[name] for name in block.columns], ROW_MM, color=GREY)
        self._rule(self._y)

    def _row(self, block: Table, cells: list[list[str]], height: float, **style: Any) -> None:
        x = float(MARGIN)
        for n, (lines, width) in enumerate(zip(cells, block.widths_mm, strict=True)):
            right = n >= block.left
            for k, words in enumerate(lines):
                at = x + width - 1 if right else x
                text(
                    self._page, at, self._y - 3.1 - 3.4 * k, words, size=SMALL, ha="right" if right else "left", **style
                )
            x += width
        self._y -= height

    def _plot(self, block: Plot) -> None:
        assert self._figure is not None
        self._room(block.height_mm + 2)
        self._y -= block.height_mm
        box = (MARGIN / WIDTH, self._y / HEIGHT, TEXT_MM / WIDTH, block.height_mm / HEIGHT)
        block.draw(self._figure, box)
        self._y -= 2

    def _strip(self, block: StripBlock) -> None:
        strip = block.strip
        rows = strip_rows(block)
        height = sum(round((high - low) * 10) + 5 for low, high in rows)
        self._room(height + 13)
        self._y -= 5
        text(self._page, MARGIN, self._y, block.caption, size=NORMAL, weight="bold")
        text(self._page, WIDTH - MARGIN, self._y, strip.when, size=SMALL, ha="right")
        self._y -= 4
        for t_s, kind in strip.beats:
            x = MARGIN + LEAD_IN + t_s * 25
            text(self._page, x, self._y + 0.4, kind, size=2, ha="center", weight="normal" if kind == "N" else "bold")
        bottom = self._y - height - 0.6
        draw_paper(self._page, strip, MARGIN, bottom, TEXT_MM - 1, rows)  # type: ignore[arg-type]
        self._y = bottom - 3


def strip_rows(block: StripBlock) -> list[tuple[float, float]]:
    """Return the millivolts each lead of a strip shows: lower the more leads there are."""
    least, most = STRIP_ROW
    leads = len(block.strip.leads)
    return [row_range(mv, least, most if leads < 3 else 30) for mv in block.strip.mv]
