"""The parts a report is made of, and what they look like on paper or in a browser is not their business."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.report.strip import Strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT_MM = 186
"""Width of everything: A4 less margins of 12 mm."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A section begins."""

    text: str
    new_page: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str
    small: bool = False
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are finished texts; numbers stand to the right."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    widths_mm: tuple[float, ...]
    left: int = 1
    """So many columns are text, the others numbers."""
    bold_last: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values in two columns."""

    groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]


@dataclass(frozen=True, slots=True)
class Plot:
    """Something drawn into a rectangle of a figure: left, bottom, width, height as shares of it."""

    height_mm: float
    draw: Callable[[Figure, tuple[float, float, float, float]], None]
    alt: str


@dataclass(frozen=True, slots=True)
class StripBlock:
    """A strip of at most 6.8 s at 25 mm/s under its caption."""

    caption: str
    strip: Strip


Block = Heading | Words | Table | Facts | Plot | StripBlock


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report."""

    title: str
    running: str
    """Whose and when, on every page."""
    blocks: Sequence[Block]
