"""`driftloop.toml`, or `[tool.driftloop]` in `pyproject.toml`: what a team always passes.

    [run]
    phone = ["all"]
    gates = "ci/gates.toml"

    [dataset.prepare]
    seed = 7

    [tags]
    mid = ["R5CT10ABCDE", "emulator-*"]

One table a command, with its arguments and options under their long names. The command line wins.
`tags` name phones by their serials, for `--phone tag=mid`. The file is looked for in the folder
that `driftloop` is called in, to which its paths are relative.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from driftloop.devices import files
from driftloop.harness.errors import BadInput
from driftloop.harness.shipped import loads


class Command(Protocol):
    """What is read of a command of click, of which typer carries its own copy."""

    params: list[Any]


_PLACES = (("driftloop.toml", ()), ("pyproject.toml", ("tool", "driftloop")))
"""Files, the first of which counts, and the table that holds driftloop's own."""
_TAGS = "tags"


def defaults(folder: Path, command: Command) -> dict[str, Any]:
    """What the file in `folder` sets for `command` and those below it, by parameter, as click's
    `default_map` takes it. Empty where no file sets anything.

    Raises:
        BadInput: not TOML, or a table or key that is no command or option of driftloop.
    """
    path, tables, settings = _read(folder)
    return _of(command, settings, path, tables) if settings else {}


def tags(folder: Path) -> dict[str, list[str]]:
    """The serials, or patterns of them, by tag.

    Raises:
        BadInput: not TOML, or a tag that is no list of texts.
    """
    path, _, settings = _read(folder)
    found: dict[str, Any] = settings.get(_TAGS, {})
    for tag, serials in found.items():
        if not isinstance(serials, list) or not all(isinstance(one, str) for one in serials):
            raise BadInput(f"{path}: {_TAGS}.{tag} has to be a list of serials")
    return found


def _read(folder: Path) -> tuple[Path, tuple[str, ...], dict[str, Any]]:
    """The file that counts, the tables above driftloop's own, and what those hold."""
    for name, tables in _PLACES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            settings: Any = loads(files.read(path).decode("utf-8"))
        except (OSError, ValueError) as error:
            raise BadInput(f"{path}: {error}") from error
        for table in tables:
            settings = settings.get(table, {})
        if settings:
            return path, tables, settings
    return folder, (), {}


def _of(command: Command, settings: object, path: Path, tables: tuple[str, ...]) -> dict[str, Any]:
    where = f"{path}: [{'.'.join(tables)}]" if tables else f"{path}"
    if not isinstance(settings, dict):
        raise BadInput(f"{where} has to be a table: it names a command")
    below: dict[str, Command] = getattr(command, "commands", {})
    names = {
        max(one.opts, key=len).strip("-").replace("-", "_"): one.name for one in command.params
    }
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key == _TAGS and below:
            continue
        if key in below:
            found[key] = _of(below[key], value, path, (*tables, key))
        elif (name := names.get(key.replace("-", "_"))) is not None and not below:
            found[name] = value
        else:
            takes = ", ".join(sorted(below or names))
            raise BadInput(f"{where} takes no {key!r}; it takes {takes}")
    return found
