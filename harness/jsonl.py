"""Records on disk: typed JSON documents, and JSON lines that survive a kill at any moment.

`fault` is the error of the caller's that is raised where a file cannot be used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from driftloop.devices import files
from driftloop.harness.errors import DriftloopError

_Model = TypeVar("_Model", bound=BaseModel)
_Fault = type[DriftloopError]


class Record(BaseModel):
    """The base of what files hold: immutable, no unknown fields, infinities as strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


def path_inside(folder: str) -> AfterValidator:
    """Of a field: a path relative to `folder`, whose name errors give, with `/` between its parts.
    Absolute paths and those that lead out are refused."""

    def checked(name: str) -> str:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or path.as_posix() != name:
            raise ValueError(f"{name!r} is not a plain path inside {folder}")
        return name

    return AfterValidator(checked)


class Appender:
    """The one writer of a file to which lines are only ever added; a context manager."""

    def __init__(self, path: Path, fault: _Fault) -> None:
        """Open `path` and cut off the torn last line of a killed writer."""
        self._path, self._fault = path, fault
        try:
            # Unbuffered: what write() took survives SIGKILL.
            self._file = path.open("ab+", buffering=0)
            self._file.seek(0)
            self._file.truncate(self._file.read().rfind(b"\n") + 1)
        except OSError as error:
            raise fault(f"{path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def append(self, records: Iterable[BaseModel]) -> None:
        """Write lines, all or none; on return they survive the end of this process."""
        rest = memoryview("".join(f"{one.model_dump_json()}\n" for one in records).encode())
        whole = self._file.seek(0, os.SEEK_END)
        try:
            while rest:  # a write may take less than all
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._file.truncate(whole)
            raise self._fault(f"{self._path} cannot be written: {error.strerror}") from error


def read(path: Path, model: type[_Model], fault: _Fault) -> Iterator[_Model]:
    """Every whole line of a file, typed; none where it does not exist."""
    return (parsed(model, line, where, fault) for where, line in lines_of(path, fault))


def lines_of(
    path: Path, fault: _Fault, *, missing: str | None = None
) -> Iterator[tuple[str, bytes]]:
    """The whole lines of a file, each with its place for an error; a torn last one is left out.

    A file that does not exist has none, unless `missing` says what that means.
    """
    try:
        with files.opened(path) as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        if missing is None:
            return
        raise fault(missing) from None
    except OSError as error:
        raise fault(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        yield f"{path}:{number}", line


def document(path: Path, model: type[_Model], fault: _Fault) -> _Model | None:
    """The JSON document at `path`, typed; None where there is no such file.

    Raises `fault` where the file cannot be read, or holds no `model`.
    """
    try:
        text = files.read(path).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise fault(f"{path} cannot be read: {error}") from error
    return parsed(model, text, str(path), fault)


def parsed(
    model: type[_Model], content: str | bytes | dict[str, Any], where: str, fault: _Fault
) -> _Model:
    """`content`, a JSON text or a table, as a `model`; the fault starts with `where` and names the
    field."""
    try:
        if isinstance(content, dict):
            return model.model_validate(content)
        return model.model_validate_json(content)
    except ValidationError as error:
        raise fault(
            f"{where}: damaged, or of another version of driftloop: {first_problem(error)}"
        ) from error


def first_problem(error: ValidationError) -> str:
    """The first field that is wrong and why, in one line: `pixels.size: Input should be ...`."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return f"{field}: {said}" if field else said
