"""The TOML tables that come with driftloop."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def shipped(package: str, name: str) -> dict[str, Any]:
    """The TOML file `name` of `package`. Not to be changed: it is read once."""
    return tomllib.loads((resources.files(package) / name).read_text("utf-8"))
