"""JSONL as a dataset's files use it: typed lines, and a writer that a kill can only interrupt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import DatasetError

_Model = TypeVar("_Model", bound=BaseModel)


class Record(BaseModel):
    """A line of one of a dataset's files."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Appender:
    """The one writer of a JSONL file to which lines are only ever added; a context manager."""

    def __init__(self, path: Path) -> None:
        """Open `path`; the torn last line of a killed writer is cut off.

        Raises:
            DatasetError: it cannot be written.
        """
        self._path = path
        try:
            self._file = path.open("ab+", buffering=0)
            self._file.seek(0)
            self._file.truncate(self._file.read().rfind(b"\n") + 1)
        except OSError as error:
            raise DatasetError(f"{path} cannot be written: {error.strerror}") from error

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def append(self, records: Iterable[Record]) -> None:
        """Write lines; on return they survive the end of this process.

        Raises:
            DatasetError: the disk refuses them.
        """
        rest = memoryview("".join(f"{one.model_dump_json()}\n" for one in records).encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise DatasetError(f"{self._path} cannot be written: {error.strerror}") from error


def lines_of(path: Path, missing: str) -> Iterator[tuple[str, bytes]]:
    """The whole lines of a JSONL file, each with its place for an error; a torn last one is left.

    Raises:
        DatasetError: the file cannot be read; where it does not exist, `missing` says so.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(missing) from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        yield f"{path}:{number}", line


def parsed(model: type[_Model], content: str | bytes | dict[str, Any], where: str) -> _Model:
    """`content`, a JSON text or a table, as a `model`.

    Raises:
        DatasetError: it is none; one line that starts with `where` and names the field.
    """
    try:
        if isinstance(content, dict):
            return model.model_validate(content)
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DatasetError(
            f"{where}: damaged, or of another version of driftloop: "
            f"{f'{field}: ' if field else ''}{first['msg']}"
        ) from error
