"""Values as people write them into configurations and tables, in the audit's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

COLOURS: Final = {one: one for one in ("white", "black", "none", "edge", "reflect", "grey")} | {
    "zeros": "black", "constant": "black", "replicate": "edge", "symmetric": "reflect",
    "gray": "grey", "mean": "mean colour",
}  # fmt: skip
"""Padding colours and modes by the names that libraries have for them."""
_FILTERS: Final = {"linear": "bilinear", "cubic": "bicubic", "lanczos4": "lanczos"}
_TRUTHS: Final = {
    **dict.fromkeys(("true", "yes", "on", "enabled", "1"), True),
    **dict.fromkeys(("false", "no", "off", "disabled", "0"), False),
}
_SIDES: Final = re.compile(r"\s*(\d+)\s*(?:[xX*, ]\s*(\d+))?\s*(?:px|pixels)?\s*")
_OTHER_PICTURE: Final = re.compile(r"full|original|native|high-?res")


def number(value: object) -> float | None:
    """A number as it is; None for anything else, also for yes and no."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def numbers(value: object) -> list[float] | None:
    """A list of numbers, or one number as such a list."""
    written = value if isinstance(value, list) else [value]
    found = [float(level) for one in written if (level := number(one)) is not None]
    return found if found and len(found) == len(written) else None


def whole(value: object) -> int | None:
    """A whole number; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def truth(value: object) -> bool | None:
    """A yes or no, in words or not; None for anything else."""
    if isinstance(value, str):
        return _TRUTHS.get(value.strip().lower())
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def sides(value: object) -> tuple[int, ...]:
    """The sides of a picture: 256, [256, 256], "256x256", "256 px"; none where it is no size."""
    if isinstance(value, str):
        match = _SIDES.fullmatch(value)
        return tuple(int(one) for one in match.groups() if one) if match else ()
    if isinstance(value, list):
        return tuple(value) if all(isinstance(one, int) for one in value) else ()
    side = number(value)
    return (int(side),) if side is not None and side >= 1 else ()


def is_square(value: object, side: int) -> bool | None:
    """Whether a picture, known by its size or as `full resolution`, is the square of that side."""
    if found := sides(value):
        return set(found) == {side}
    is_other = isinstance(value, str) and _OTHER_PICTURE.search(value.lower())
    return False if is_other else None


def sampling(settings: Mapping[str, Any]) -> str:
    """`greedy`, or what is drawn from: `temperature 0.7, top-p 0.9`. As transformers reads them:
    without `do_sample` the rest has no effect, unless a temperature above 0 asks for it alone."""
    known = {key: one for key, value in settings.items() if (one := number(value)) is not None}
    temperature, asked = known.get("temperature"), settings.get("do_sample")
    draws = asked if isinstance(asked, bool) else (temperature or 0) > 0
    if not draws or temperature == 0:
        beams = known.get("num_beams", 1)
        return f"{beams:g} beams" if beams > 1 else "greedy"
    drawn = {"temperature": 1.0} | known
    keys = ("temperature", "top_p", "top_k", "min_p")
    return ", ".join(f"{key.replace('_', '-')} {drawn[key]:g}" for key in keys if key in drawn)


def filter_name(value: object) -> str | None:
    """A resize filter: Pillow's number or any library's name."""
    if not isinstance(value, str):
        from PIL.Image import Resampling

        return next((one.name.lower() for one in Resampling if one == whole(value)), None)
    name = re.split(r"[.:]", value.strip().lower())[-1].removeprefix("inter_")
    name = name.removeprefix("resampling_").replace("-", "_")
    return _FILTERS.get(name, name)


def colour(value: object) -> str | None:
    """A padding colour; None where `value` is none."""
    if isinstance(value, str):
        lowered = value.strip().lower()
        if match := re.fullmatch(r"#?([0-9a-f]{6})", lowered):
            return _named(list(bytes.fromhex(match[1])))
        return COLOURS.get(lowered)
    levels = numbers(value)
    if levels is None or len(levels) not in (1, 3, 4):
        return None
    scale = 255 if 0 < max(levels) <= 1 else 1
    scaled = [int(level * scale) for level in levels[:3]]
    return _named(scaled if isinstance(value, list) else scaled * 3)


def _named(levels: list[int]) -> str:
    if set(levels) <= {0} or set(levels) <= {255}:
        return "white" if levels[0] else "black"
    return f"rgb {' '.join(map(str, levels))}"
