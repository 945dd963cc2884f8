"""JSON lines that survive a kill, and errors that say where."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from driftloop.harness import jsonl
from driftloop.harness.errors import DatasetError, RunFolderError
from driftloop.harness.jsonl import Appender, lines_of, parsed


class Word(BaseModel):
    word: str


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "words.jsonl"


def read(path: Path) -> list[str]:
    return [one.word for one in jsonl.read(path, Word, DatasetError)]


def test_what_was_appended_is_read_again_without_the_torn_last_line(path: Path) -> None:
    with Appender(path, DatasetError) as file:
        file.append([Word(word="fire"), Word(word="wood")])
    path.write_bytes(path.read_bytes() + b'{"word": "wat')
    assert read(path) == ["fire", "wood"]
    with Appender(path, DatasetError) as file:
        file.append([Word(word="metal")])
    assert read(path) == ["fire", "wood", "metal"]


def test_a_file_that_does_not_exist_has_no_lines_unless_that_means_something(path: Path) -> None:
    assert read(path) == []
    with pytest.raises(DatasetError, match="prepare it first"):
        list(lines_of(path, DatasetError, missing="prepare it first"))


def test_errors_are_the_callers_own_and_say_where(path: Path) -> None:
    path.write_text('{"word": "fire"}\n{"word": 3}\n')
    with pytest.raises(DatasetError, match=r"words\.jsonl:2: damaged, .*: word: "):
        read(path)
    with pytest.raises(RunFolderError, match=r"^here: damaged"):
        parsed(Word, {"word": None}, "here", RunFolderError)
    path.unlink()
    path.mkdir()
    with pytest.raises(RunFolderError, match="cannot be read"):
        list(lines_of(path, RunFolderError))
    with pytest.raises(RunFolderError, match="cannot be written"):
        Appender(path, RunFolderError)
