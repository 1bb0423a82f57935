"""What every page is made of: one file that loads nothing from anywhere, and its tags.

Whatever comes from outside (names, reasons, notes) goes through `text`. Should a tag slip through all the
same, the page's policy lets no script and no style act but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #59616d; --line: #dfe2e7; --paper: #fff;
  --wash: #f4f5f7; --accent: #0060a8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --soft: #a2a9b4; --line: #343a43;
  --paper: #14171b; --wash: #1d2126; --accent: #6cb6ff } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em;
  color: var(--ink); background: var(--paper) }
a { color: var(--accent) }
h1 { font-size: 1.5em }
h2 { font-size: 1.2em; margin-top: 2.2em; border-top: 1px solid var(--line); padding-top: 1em }
img { max-width: 100%; display: block; margin: .6em 0 } figure { margin: 0 }
figure > img { background: #fff }
figcaption, .note { color: var(--soft) }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(360px, 100%), 1fr)); gap: .8em }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums }
th, td { padding: .15em .8em; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child, td:first-child, .words { text-align: left }
"""


class Markup(str):
    """Tags, where other text would be escaped."""


def document(title: str, *parts: str, style: str = "", script: str = "") -> str:
    """A whole page. It may show pictures that it holds, and run `script` and nothing else."""
    style, title = STYLE + style, text(title)
    allowed = {"img-src": "data:", "style-src": _mark(style), "base-uri": "'none'", "form-action": "'none'"}
    allowed |= {"script-src": _mark(script)} if script else {}
    policy = "; ".join(["default-src 'none'", *(f"{name} {what}" for name, what in allowed.items())])
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style>"
    )
    body = "\n".join((f"<h1>{title}</h1>", *parts))
    end = f"<script>{script}</script>\n" if script else ""
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n{end}</body></html>\n'


def _mark(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def text(value: Any) -> Markup:
    """A cell's or an attribute's text: numbers as people read them, and nothing that acts.

    What shows nothing or turns the direction of writing is shown by its code.
    """
    if isinstance(value, Markup):
        return value
    plain = "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in _shown(value)
    )
    return Markup(html.escape(plain))


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return (
        f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def section(title: str, says: str, *parts: str) -> str:
    """A heading, a sentence in HTML, and what follows."""
    return "\n".join((f"<h2>{text(title)}</h2>", f"<p>{says}</p>", *parts))


def source(data: bytes, kind: str) -> str:
    """A picture's address: the picture itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def image(caption: str, data: bytes, kind: str = "png") -> str:
    """A picture with its caption."""
    said = text(caption)
    return f'<figure><img src="{source(data, kind)}" alt="{said}"><figcaption>{said}</figcaption></figure>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows under their heads; the first cell of each names it. On a narrow screen it is scrolled.

    Columns of Markup are words and stand to the left, others to the right.
    """
    rows = list(rows)
    words = {place for row in rows for place, cell in enumerate(row) if isinstance(cell, Markup)}
    marks = [' class="words"' if place in words else "" for place in range(len(head))]
    heads = "".join(
        f'<th scope="col"{mark}>{text(name)}</th>' for name, mark in zip(head, marks, strict=True)
    )
    lines = [
        "".join(f"<td{mark}>{text(cell)}</td>" for cell, mark in zip(row, marks, strict=True)) for row in rows
    ]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    inside = f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div class="wide"><table>\n{inside}</table></div>'


def note(said: str) -> str:
    """A sentence aside."""
    return f'<p class="note">{text(said)}</p>'
