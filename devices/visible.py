"""Text of others (file names, serials, tensor names, the words of adb and of models) as it may be
shown: no control character, direction override or lone surrogate breaks or disguises a line."""

from __future__ import annotations

import unicodedata
from typing import Final

_SHOWN: Final = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\x00": "␀", "\x1b": "␛"}
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
"""Categories of characters."""


def visible(text: str, limit: int | None = None) -> str:
    """`text` on one line with every invisible character spelled out; at most `limit` characters.

    Line breaks become ⏎; anything else invisible becomes its code point, such as ⟨U+202E⟩. The
    result is valid in XML 1.0 and can be encoded as UTF-8 whatever `text` contains.
    """
    shown = text if text.isascii() and text.isprintable() else "".join(map(_shown, text))
    if limit is not None and len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown


def visible_lines(text: str) -> str:
    """`text` with its line breaks kept, and each line as `visible` shows it."""
    return "\n".join(map(visible, text.split("\n")))


def _shown(character: str) -> str:
    if character in _SHOWN:
        return _SHOWN[character]
    if character != " " and unicodedata.category(character) in _INVISIBLE:
        return f"⟨U+{ord(character):04X}⟩"
    return character
