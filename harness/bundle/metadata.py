"""Which keys of two GGUF files differ in a way that inference can feel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from harness.bundle.gguf_file import DESCRIPTIONS, GgufFile
from harness.bundle.gguf_header import Value

_MATTERS: Final = "general.architecture"
_SHOWN: Final = 8
"""Lists up to this length, and strings up to ten times it, are told whole."""


@dataclass(frozen=True)
class KeyDifference:
    """A key that differs. A long list or string is told from where it first differs."""

    key: str
    a: Any
    b: Any
    """None where the file has no such key."""


def differing_keys(a: GgufFile, b: GgufFile) -> list[KeyDifference]:
    """Ordered as `a` has them, then those that only `b` has."""
    names = [name for name in dict.fromkeys((*a.keys, *b.keys)) if _matters(name)]
    return [
        KeyDifference(name, *_told(a.get(name), b.get(name)))
        for name in names
        if a.get(name) != b.get(name)
    ]


def _matters(name: str) -> bool:
    return name == _MATTERS or not name.startswith(DESCRIPTIONS)


def _told(a: Value, b: Value) -> tuple[Value, Value]:
    if isinstance(a, list) and isinstance(b, list) and max(len(a), len(b)) > _SHOWN:
        at = _first_difference(a, b)
        return _entry(a, at), _entry(b, at)
    if isinstance(a, str) and isinstance(b, str) and max(len(a), len(b)) > 10 * _SHOWN:
        at = _first_difference(a, b)
        return _excerpt(a, at), _excerpt(b, at)
    return _alone(a), _alone(b)


def _first_difference(a: list[Value] | str, b: list[Value] | str) -> int:
    pairs = zip(a, b, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(a), len(b)))


def _entry(values: list[Value], at: int) -> str:
    found = repr(values[at]) if at < len(values) else "none"
    return f"{len(values)} entries, number {at}: {found}"


def _excerpt(text: str, at: int) -> str:
    return f"{len(text)} characters, from {at}: {text[at : at + 4 * _SHOWN]!r}"


def _alone(value: Value) -> Value:
    """One side where the other has nothing of the kind."""
    if isinstance(value, list) and len(value) > _SHOWN:
        return f"{len(value)} entries"
    if isinstance(value, str) and len(value) > 10 * _SHOWN:
        return f"{len(value)} characters"
    return value
