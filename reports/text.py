"""Untrusted text (model output, file names, serials) made safe to show.

Every writer shows such text through `visible` first, so that no control character, direction
override or lone surrogate can break or disguise a line. HTML is then escaped by Jinja2, XML by
ElementTree; Markdown has no such guard and gets `markdown_code`.
"""

from __future__ import annotations

from driftloop.devices.visible import visible as visible

_MARKDOWN_ACTIVE = frozenset("&<>|*_`[]\\~@#$:")


def markdown_code(text: str, limit: int | None = None) -> str:
    """`text` as inline code that holds in running text and in a table cell alike.

    Backticks would need a fence of their own length and cannot hold a pipe inside a table in every
    dialect, so this is a `<code>` element whose active characters are entities.
    """
    return f"<code>{markdown_text(text, limit)}</code>"


def markdown_text(text: str, limit: int | None = None) -> str:
    """`text` as running text, within one line or table cell."""
    shown = visible(text, limit)
    return "".join(
        f"&#{ord(character)};" if _is_active(shown, place) else character
        for place, character in enumerate(shown)
    )


def plain(text: str | None) -> str:
    """`text` as a reader would say it: nothing at all is named, so that no cell is empty."""
    if text is None:
        return "none"
    return visible(text) if text.strip() else "(empty)"


def _is_active(text: str, place: int) -> bool:
    """Whether Markdown may read the character at `place` as more than itself.

    Characters within a word (`phone:q8_0+app`) are left alone where that is safe, so that the
    source stays readable. A colon may start a link (`://`) or an emoji (`:fire:`).
    """
    character = text[place]
    before, after = text[max(0, place - 1) : place], text[place + 1 : place + 2]
    if character == ".":
        return text[max(0, place - 3) : place].lower() == "www"
    if character == "_":
        return not (before.isalnum() and after.isalnum())
    if character == ":":
        return after == "/" or (after.isalnum() and not before.isalnum())
    if character == " ":
        return not before or not after
    return character in _MARKDOWN_ACTIVE
