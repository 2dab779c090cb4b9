"""HTML that cannot be forgotten to be escaped: whatever is not `Html` already is text, and text is escaped.

Names of files come from strangers, so that there is no other way to put text on a page.
"""

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

VOID = frozenset({"br", "img", "link", "meta"})
"""Elements that have no end."""

UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""Control characters, and the halves of characters that stand for undecodable bytes in file names."""


class Html(str):
    """Markup that goes on the page as it is."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
"""What an element may hold: text (escaped), `Html`, any number of these, or nothing."""


def text(raw: str) -> Html:
    """Text as a page can show it; what cannot be printed becomes U+FFFD."""
    return Html(html.escape(UNPRINTABLE.sub("\ufffd", raw), quote=True))


def element(name: str, /, *children: Child, **attributes: str | None) -> Html:
    """An element.

    Args:
        name: its tag.
        children: what is inside.
        attributes: by name; `class_` is class and `aria_label` is aria-label. None leaves the attribute out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{join(children)}</{name}>")


def join(children: Child) -> Html:
    """Children one after the other."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return text(children)
    return Html("".join(join(child) for child in children))
