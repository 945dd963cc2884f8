"""The tables that come with driftloop's audits, and the patterns in them."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


@cache
def shipped(package: str, name: str) -> dict[str, Any]:
    """The TOML file `name` of `package`."""
    return tomllib.loads((resources.files(package) / name).read_text("utf-8"))
