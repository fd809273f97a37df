"""A document as one HTML file: no script, nothing fetched; plots and strips are SVG."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

from edge.errors import AnyecgError
from edge.report.document import TEXT_MM, Block, Document, Facts, Heading, Plot, StripBlock, Table, Words
from edge.report.paper import FONTS, INCH, LEAD_IN, draw_paper, text
from edge.report.pdf import strip_rows
from edge.report.strip import FOOTER

_STYLE = """
:root{color-scheme:light}
body{font:14px/1.45 system-ui,sans-serif;color:#101418;background:#fff;max-width:186mm;margin:1.5em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin:1.6em 0 .4em;border-bottom:1px solid #c4ccd3}
table{border-collapse:collapse;width:100%;font-size:.86em;font-variant-numeric:tabular-nums}
th,td{padding:.15em .4em;text-align:right;vertical-align:top}
th{color:#5d6770;font-weight:600;border-bottom:1px solid #c4ccd3}
.figures{white-space:nowrap}.l{text-align:left}.total td{font-weight:600;border-top:1px solid #c4ccd3}
.small,footer{color:#5d6770;font-size:.85em}.strong{font-weight:600}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(18em,1fr));gap:0 2em}
.facts h3{font-size:1em;margin:1em 0 .2em;border-bottom:1px solid #c4ccd3}
dl{display:grid;grid-template-columns:10em 1fr;margin:0;font-size:.92em}dt{color:#5d6770}dd{margin:0}
figure{margin:1em 0;break-inside:avoid}figcaption{display:flex;justify-content:space-between;gap:1em;font-size:.9em}
svg{width:100%;height:auto}.scroll{overflow-x:auto}@page{size:A4;margin:12mm}
""".strip()


def write_html(document: Document, path: Path) -> int:
    """Write the document into `path`, whole or not at all; return its size in bytes.

    Raises:
        AnyecgError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with matplotlib.rc_context(FONTS), part.open("w", encoding="utf-8") as file:
            file.writelines(_lines(document))
        part.replace(path)
        return path.stat().st_size
    except OSError as error:
        raise AnyecgError(f"cannot write {path}: {error.strerror}") from None
    finally:
        if part.exists():
            os.unlink(part)


def _lines(document: Document) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield f"<title>{escape(document.title)}</title><style>{_STYLE}</style></head><body>\n"
    yield f"<h1>{escape(document.title)}</h1>\n"
    for block in document.blocks:
        yield _block(block) + "\n"
    yield f"<footer>{escape(FOOTER)}</footer></body></html>\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"<h2>{escape(block.text)}</h2>"
    if isinstance(block, Words):
        kind = "small" if block.small else "strong" if block.strong else ""
        return f'<p class="{kind}">{escape(block.text)}</p>'
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Facts):
        return _facts(block)
    if isinstance(block, Plot):
        return f"<figure>{_plot(block)}</figure>"
    caption = f"<strong>{escape(block.caption)}</strong><span>{escape(block.strip.when)}</span>"
    return f"<figure><figcaption>{caption}</figcaption>{_strip(block)}</figure>"


def _table(block: Table) -> str:
    def row(cells: tuple[str, ...], tag: str, kind: str = "") -> str:
        inside = "".join(
            f"<{tag}{' class=l' if n < block.left else ''}>{escape(cell)}</{tag}>" for n, cell in enumerate(cells)
        )
        return f"<tr{kind}>{inside}</tr>"

    last = len(block.rows) - 1
    rows = (row(r, "td", " class=total" if block.bold_last and n == last else "") for n, r in enumerate(block.rows))
    kind = " class=figures" if block.left == 1 else ""
    return f'<div class="scroll"><table{kind}>{row(block.columns, "th")}{"".join(rows)}</table></div>'


def _facts(block: Facts) -> str:
    groups = (
        f"<div><h3>{escape(title)}</h3><dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
        + "</dl></div>"
        for title, facts in block.groups
    )
    return f'<div class="facts">{"".join(groups)}</div>'


def _plot(block: Plot) -> str:
    figure = _figure(TEXT_MM, block.height_mm)
    block.draw(figure, (0.0, 0.0, 1.0, 1.0))
    return _svg(figure, block.alt)


def _strip(block: StripBlock) -> str:
    rows = strip_rows(block)
    height = sum(round((high - low) * 10) + 5 for low, high in rows) + 4
    figure = _figure(TEXT_MM, height)
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, TEXT_MM), ylim=(0, height))
    page.axis("off")
    draw_paper(page, block.strip, 0, 0, TEXT_MM - 1, rows)
    for t_s, kind in block.strip.beats:
        weight = "normal" if kind == "N" else "bold"
        text(page, LEAD_IN + t_s * 25, height - 2.6, kind, size=2, ha="center", weight=weight)
    return _svg(figure, block.caption)


def _figure(width_mm: float, height_mm: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width_mm / INCH, height_mm / INCH))


def _svg(figure: Any, alt: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(alt, quote=True)}"', 1)
