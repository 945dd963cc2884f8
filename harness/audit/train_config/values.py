"""Values as configurations write them, in the audit's own words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from harness.audit.train_config.file import Setting

COLOURS: Final = {
    "black": "black",
    "zeros": "black",
    "zero": "black",
    "constant": "black",
    "white": "white",
    "edge": "edge",
    "replicate": "edge",
    "reflect": "reflect",
    "symmetric": "reflect",
    "mean": "mean colour",
    "gray": "grey",
    "grey": "grey",
    "none": "none",
}
NO_TEMPLATE: Final = frozenset({"", "none", "null", "empty", "raw"})
FILTERS: Final = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's numbers."""
ANSWER: Final = re.compile(r"\{\{?\s*(?:label|target|answer|response|output|completion)\s*\}?\}")
_LABELS: Final = re.compile(
    r"\{\{?\s*(?:labels|classes|elements|categories|label_names|options)\s*\}?\}"
)
_CONTEXT: Final = re.compile(r"context:\s*\{", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\{\{?\s*(\w+)\s*\}?\}")
_TRUE, _FALSE = frozenset({"true", "yes", "on"}), frozenset({"false", "no", "off"})
_SHOWN: Final = 48


def is_about(setting: Setting, *words: str) -> bool:
    """One of the tables that the setting lies in, or its own key before its last word, is about
    one of `words`."""
    outside = (*setting.path[:-1], setting.key.rpartition("_")[0])
    return any(word in part for part in outside for word in words)


def side(value: object) -> int | None:
    """The side of a square: 256, [256, 256], "256x256"; the longer one where they differ."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return int(value) if value >= 1 else None
    if isinstance(value, list) and value and all(isinstance(one, int) for one in value):
        return int(max(value))
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*(?:[xX*,]\s*(\d+))?\s*(?:px)?\s*", value)
        return max(int(one) for one in match.groups() if one) if match else None
    return None


def truth(value: object) -> bool | None:
    """A yes or no, in words or not; None for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        lowered = value.strip().lower()
        return True if lowered in _TRUE else False if lowered in _FALSE else None
    return bool(value) if value in (0, 1) and isinstance(value, int) else None


def filter_name(value: object) -> str | None:
    """A resize filter: Pillow's number or any library's name."""
    if isinstance(value, int) and not isinstance(value, bool):
        return FILTERS[value] if 0 <= value < len(FILTERS) else None
    if not isinstance(value, str):
        return None
    name = re.split(r"[.:]", value.strip().lower())[-1].removeprefix("inter_")
    name = name.removeprefix("resampling_").replace("-", "_")
    known = {
        "linear": "bilinear",
        "cubic": "bicubic",
        "lanczos4": "lanczos",
        "antialias": "lanczos",
    }
    return known.get(name, name)


def colour(value: object) -> str | None:
    """A padding colour; None where `value` is none."""
    if isinstance(value, str):
        lowered = value.strip().lower()
        if match := re.fullmatch(r"#?([0-9a-f]{6})", lowered):
            return _named([int(match[1][at : at + 2], 16) for at in (0, 2, 4)])
        return COLOURS.get(lowered)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _named([int(value * 255) if 0 < value <= 1 else int(value)] * 3)
    numbers_found = numbers(value)
    if numbers_found is None or len(numbers_found) not in (1, 3, 4):
        return None
    scale = 255 if 0 < max(numbers_found) <= 1 else 1
    return _named([int(one * scale) for one in numbers_found[:3]])


def numbers(value: object) -> list[float] | None:
    """A list of numbers, or one number as such a list."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [float(value)]
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        return None
    return [float(one) for one in value]


def filled(template: str, labels: Sequence[str]) -> tuple[str, str]:
    """A prompt template with the labels filled in and the answer cut off, and the name of a
    variable that is left, if there is one."""
    answer = ANSWER.search(template)
    text = template[: answer.start()] if answer else template
    text = _LABELS.sub(", ".join(labels), text)
    if _CONTEXT.search(text):
        text = re.sub(r"(context:\s*)\{\{?\s*\w+\s*\}?\}", r"\1...", text, flags=re.IGNORECASE)
    left = [name for name in _VARIABLE.findall(text) if name not in ("image", "media")]
    return text, left[0] if left else ""


def shown(value: object) -> str:
    """A value in a few characters."""
    said = repr(value) if isinstance(value, str) else str(value)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def _named(levels: Sequence[int]) -> str:
    if set(levels) == {0}:
        return "black"
    if set(levels) == {255}:
        return "white"
    return f"rgb {' '.join(str(level) for level in levels)}"
