"""Markup as values: `el("p", text)` escapes everything that is not markup already.

What comes out is well-formed XML as well as HTML, so a test can parse a whole page strictly.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"meta", "br", "hr", "line", "rect", "circle", "path", "polyline", "polygon"})

# C0 controls (but tab and newline), DEL and the two non-characters cannot stand in XML: samples may hold any of them.
_VISIBLE = {
    **{code: chr(0x2400 + code) for code in range(32) if code not in (9, 10)},
    127: "\u2421",
    **dict.fromkeys((0xFFFE, 0xFFFF, *range(0xD800, 0xE000)), "\ufffd"),
}


class Html(str):
    """Text that is markup: it is not escaped again."""

    __slots__ = ()


Child = str | Iterable["Child"] | None


def escape(text: str) -> Html:
    """`text` as markup that shows it and does nothing else; control characters become visible symbols."""
    return Html(html.escape(text.translate(_VISIBLE)))


def join(children: Child) -> Html:
    """Children one after another: plain text escaped, markup as it is, None left out."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return escape(children)
    return Html("".join(join(child) for child in children))


def el(tag: str, *children: Child, **attributes: str | float | None) -> Html:
    """One element. Attributes: `class_` stands for class, other underscores for hyphens; None leaves one out."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"' for name, value in attributes.items() if value is not None
    )
    if tag in VOID and not children:
        return Html(f"<{tag}{shown}/>")
    return Html(f"<{tag}{shown}>{join(children)}</{tag}>")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}" if isinstance(value, int) else f"{value:.2f}".rstrip("0").rstrip(".")


def clip(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, and a note of how many there are when it is cut."""
    return text if len(text) <= limit else f"{text[:limit]}… [{limit:,} of {len(text):,} characters shown]"
