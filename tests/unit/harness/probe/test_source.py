"""The probe's source: written once, into its package's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.harness.arms.app import AppLine
from driftloop.harness.errors import BadInput
from driftloop.harness.probe import Language, write


@pytest.mark.parametrize(("language", "name"), [("kotlin", "kt"), ("java", "java")])
def test_the_probe_lies_in_the_folders_of_its_package(
    tmp_path: Path, language: Language, name: str
) -> None:
    written = write(tmp_path, language)
    assert written == tmp_path / "dev" / "driftloop" / f"DriftloopProbe.{name}"
    assert written.read_text().startswith("package dev.driftloop")


@pytest.mark.parametrize("language", ["kotlin", "java"])
def test_every_field_that_it_writes_is_one_that_a_run_takes(
    tmp_path: Path, language: Language
) -> None:
    text = write(tmp_path, language).read_text()
    written = {part.split('"')[1] for part in text.split(".put(")[1:] if part.startswith('"')}
    assert {"image_sha256", "text", "pixels", "prompt_ids"} <= written <= set(AppLine.model_fields)


def test_a_probe_that_is_filled_in_is_not_overwritten(tmp_path: Path) -> None:
    written = write(tmp_path, "kotlin")
    written.write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        write(tmp_path, "kotlin")
    assert written.read_text() == "mine"


def test_a_folder_that_cannot_be_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("a file")
    with pytest.raises(BadInput, match="cannot be written"):
        write(tmp_path, "kotlin")
