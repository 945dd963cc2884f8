"""TOML tables: those that come with driftloop, and users' own."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from driftloop.devices import files
from driftloop.harness.errors import DriftloopError

_MOST_BYTES: Final = 2**18
_MOST_PARTS: Final = 100
"""Of a dotted key. tomllib keeps every beginning of one: 100,000 parts take gigabytes."""


@cache
def shipped(package: str, name: str) -> dict[str, Any]:
    """The TOML file `name` of `package`. Not to be changed: it is read once."""
    return tomllib.loads((resources.files(package) / name).read_text("utf-8"))


def toml_table(
    path: Path, what: str, fault: type[DriftloopError], missing: str = "no such file"
) -> dict[str, Any]:
    """A user's TOML file. Raises `fault` about `what` where it cannot be read."""
    try:
        return loads(files.read(path, _MOST_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise fault(f"{what}: {missing}") from None
    except (ValueError, OSError) as error:
        raise fault(f"{what} cannot be read: {error}") from error


def loads(text: str) -> dict[str, Any]:
    """A TOML document of others. Raises ValueError where it is none, or nested too deeply."""
    squeezed = re.sub(r"[ \t]", "", text)
    for part in re.split(r"[=\n\[\]{},]", squeezed):
        if (parts := len([name for name in part.split(".") if name])) > _MOST_PARTS:
            raise ValueError(f"a key of {parts} parts joined by dots; no table is so deep")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
