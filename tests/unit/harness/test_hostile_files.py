"""A pipe, a device, a folder or nothing in the place of any file, and documents made to break their
readers: one line that names the file, at once, and never more memory than the file has bytes."""

# ruff: noqa: E501  (the tables are read one case a line)

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from driftloop.devices import files
from driftloop.devices.hashing import file_sha256
from driftloop.harness import bundle, cases, checkpoint, contract, gates_file
from driftloop.harness.arms import app as app_lines
from driftloop.harness.audit import train_config
from driftloop.harness.audit.dataset import records
from driftloop.harness.bundle.checkpoint_files import read_json
from driftloop.harness.bundle.gguf_file import GgufFile
from driftloop.harness.errors import DriftloopError
from driftloop.harness.images import open_image
from driftloop.harness.listen import logcat
from driftloop.harness.preprocess.dump import read_dump
from driftloop.harness.records.journal import RunFolder

CONTRACT = contract.load("default")


class Reader(NamedTuple):
    name: str
    """Of the file that is read."""
    read: Callable[[Path], Any]


READERS: dict[str, Reader] = {
    "contract": Reader("c.toml", lambda path: contract.load(str(path))),
    "gates": Reader("gates.toml", gates_file.load),
    "images of a run": Reader("cases.csv", lambda path: cases.load_cases(str(path), ("fire",))),
    "images of a run, JSON": Reader("cases.jsonl", lambda path: cases.load_cases(str(path), ("fire",))),
    "an image": Reader("photo.jpg", open_image),
    "a dump": Reader("dump.rgb", read_dump),
    "the app's lines": Reader("app.jsonl", lambda path: app_lines.read(path, [], CONTRACT)),
    "a log": Reader("app.log", lambda path: list(logcat.of_file(path))),
    "a trainer's YAML": Reader("t.yaml", lambda path: train_config.read(path, CONTRACT)),
    "a trainer's JSON": Reader("t.json", lambda path: train_config.read(path, CONTRACT)),
    "a trainer's TOML": Reader("t.toml", lambda path: train_config.read(path, CONTRACT)),
    "a dataset's table": Reader("train.jsonl", lambda path: records.read(path, ("fire",))),
    "a checkpoint's config": Reader("config.json", lambda path: checkpoint.load(path.parent)),
    "a checkpoint's JSON": Reader("tokenizer.json", read_json),
    "a manifest": Reader("manifest.json", lambda path: bundle.load(path.parent)),
    "a GGUF": Reader("text.gguf", GgufFile),
    "a run": Reader("run.json", lambda path: RunFolder(path.parent).record()),
    "observations": Reader("observations.jsonl", lambda path: list(RunFolder(path.parent).read())),
}  # fmt: skip


def _deep(opening: str, closing: str) -> bytes:
    return (opening * 200_000 + closing * 200_000).encode()


PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a link to a pipe": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


def _line(reader: Reader, path: Path) -> str:
    with pytest.raises(DriftloopError) as refused:
        reader.read(path)
    line = str(refused.value)
    assert refused.value.exit_code == 2
    assert "\n" not in line
    assert len(line) < 600
    return line


@pytest.mark.timeout(20)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_by_name(name: str, place: str, tmp_path: Path) -> None:
    reader = READERS[name]
    PLACES[place](tmp_path / reader.name)
    line = _line(reader, tmp_path / reader.name)
    assert str(tmp_path) in line or reader.name in line


DOCUMENTS: dict[str, tuple[str, bytes, str]] = {
    "lists in lists": ("a checkpoint's config", _deep("[", "]"), "config.json cannot be read: nested too deeply"),
    "objects in objects": ("a checkpoint's JSON", _deep('{"a":', "}"), "tokenizer.json: cannot be read: nested too deeply"),
    "a key twice in a config": ("a checkpoint's config", b'{"a": 1, "a": 2}', "config.json cannot be read: the key 'a' stands twice"),
    "a key twice in a manifest": ("a manifest", b'{"files": {}, "files": {}}', "manifest.json: the key 'files' stands twice in one object; copy or"),
    "a key twice further in": ("a checkpoint's JSON", b'{"m": [{"b": 1, "c": 1, "b": 1}]}', "the key 'b' stands twice"),
    "a key twice in YAML": ("a trainer's YAML", b"lr: 1\nmax_length: 20\nmax_length: 2000\n", "t.yaml: not YAML: the key max_length stands twice in the table from line 1"),
    "a key twice in a trainer's JSON": ("a trainer's JSON", b'{"max_length": 20, "max_length": 2000}', "t.json: not JSON: the key 'max_length' stands twice"),
    "deep YAML": ("a trainer's YAML", _deep("[", "]"), "t.yaml: not YAML: nested too deeply"),
    "deep JSON of a trainer": ("a trainer's JSON", _deep("[", "]"), "t.json: not JSON: nested too deeply"),
    "a dotted key in a trainer's TOML": ("a trainer's TOML", b".".join([b"a"] * 100_000) + b" = 1", "t.toml: not TOML: a key of 100000 parts"),
    "deep gates": ("gates", b"x = " + b"[" * 5000, "nested too deeply"),
    "a deep manifest": ("a manifest", _deep("[", "]"), "manifest.json: nested too deeply"),
    "a list as manifest": ("a manifest", b"[]", "manifest.json: "),
    "a deep line of a table": ("images of a run, JSON", _deep("[", "]") + b"\n", "cases.jsonl:1: manifest: not JSON (nested too deeply)"),
    "a key twice in a line": ("images of a run, JSON", b'{"image": "a", "image": "b"}\n', "the key 'image' stands twice"),
    "a deep line of a dataset": ("a dataset's table", _deep("[", "]") + b"\n", "train.jsonl:1: not JSON (nested too deeply)"),
    "a deep run record": ("a run", _deep("[", "]"), "run.json: damaged"),
    "a Git LFS config": ("a checkpoint's config", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "config.json cannot be read: a Git LFS pointer in the place of the file; run `git lfs pull`"),
    "a Git LFS GGUF": ("a GGUF", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "a Git LFS tokenizer": ("a checkpoint's JSON", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "a config in another alphabet": ("a checkpoint's config", b"\xff\xfe\x00\xd8", "config.json cannot be read"),
    "a config that is a list": ("a checkpoint's config", b"[]", "config.json is not a JSON object"),
    "a tokenizer that is a text": ("a checkpoint's JSON", b'"text"', "not a JSON object"),
    "a NUL in a contract": ("contract", b'name = "\0"', "cannot be read"),
    "an empty GGUF": ("a GGUF", b"", "it is empty"),
}  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_made_to_break_its_reader_is_refused_in_one_line(
    name: str, tmp_path: Path
) -> None:
    of, content, said = DOCUMENTS[name]
    path = tmp_path / READERS[of].name
    path.write_bytes(content)
    assert said in _line(READERS[of], path)


def test_a_file_is_sized_before_it_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(files.Unfit, match=r"it has 1099511\.6 MB, and at most 268\.4 MB are read"):
        files.read(huge)
    (tmp_path / "pipe").symlink_to("/dev/zero")
    with pytest.raises(files.Unfit, match="a device, not a regular file"):
        file_sha256(tmp_path / "pipe")
    with pytest.raises(files.Unfit):
        files.copy(tmp_path / "pipe", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
