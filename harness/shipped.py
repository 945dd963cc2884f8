"""TOML tables: those that come with driftloop, and users' own."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from driftloop.harness.errors import DriftloopError


@cache
def shipped(package: str, name: str) -> dict[str, Any]:
    """The TOML file `name` of `package`. Not to be changed: it is read once."""
    return tomllib.loads((resources.files(package) / name).read_text("utf-8"))


def toml_table(
    path: Path, what: str, fault: type[DriftloopError], missing: str = "no such file"
) -> dict[str, Any]:
    """A user's TOML file. Raises `fault` about `what` where it cannot be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise fault(f"{what}: {missing}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise fault(f"{what} cannot be read: {error}") from error
