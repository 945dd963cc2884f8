"""`driftloop-app.toml`: settled once, held against the contract, and watched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from driftloop.harness import contract as contracts
from driftloop.harness.audit import app
from driftloop.harness.audit.findings import Finding
from driftloop.harness.errors import AuditError

from .reading import APPS

ENGINE = "llama/src/main/cpp/llama-android.cpp"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(APPS / "as_shipped", tmp_path / "app")


def audited(folder: Path, *, update: bool = False) -> tuple[dict[str, Finding], list[str]]:
    found, notes = app.read(folder, contracts.load("default"), update=update)
    return {finding.aspect: finding for finding in found}, notes


def settle(folder: Path, old: str, new: str) -> None:
    file = folder / app.CONFIRMED_IN
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def test_the_first_audit_writes_the_file_and_the_next_reads_it(folder: Path) -> None:
    first, notes = audited(folder)
    assert any("26 of 35 aspects stand" in note for note in notes)
    assert first["image_size"].value is None
    settle(folder, "# image_size = {", "image_size = {")
    second, notes = audited(folder)
    assert notes == []
    assert second["image_size"].value == 256
    assert "confirmed in driftloop-app.toml: private const val TARGET" in second["image_size"].note


def test_a_value_written_by_hand_counts_without_a_line(folder: Path) -> None:
    audited(folder)
    settle(folder, "# alpha: ", 'alpha = "composited"\nlimit_counts_prompt = false\n# ')
    found, _ = audited(folder)
    assert (found["alpha"].value, found["limit_counts_prompt"].value) == ("composited", False)


def test_a_confirmed_line_that_changed_is_said_and_read_anew(folder: Path) -> None:
    audited(folder)
    engine = folder / ENGINE
    engine.write_text(engine.read_text().replace("n_ctx           = 1024", "n_ctx = 2048"))
    found, _ = audited(folder)
    assert found["context"].value == 2048
    assert "has changed; it was: ctx_params.n_ctx           = 1024;" in found["context"].note
    again, notes = audited(folder, update=True)
    assert again["context"].value == 2048
    assert "context: 1024 is now 2048" in notes
    assert "has changed" not in audited(folder)[0]["context"].note


def test_a_confirmed_line_that_is_gone_leaves_its_aspect_open(folder: Path) -> None:
    audited(folder)
    engine = folder / ENGINE
    engine.write_text(engine.read_text().replace("ctx_params.n_ctx ", "// none "))
    found, _ = audited(folder)
    assert found["context"].value is None
    assert found["context"].is_open


def test_a_confirmed_line_may_move(folder: Path) -> None:
    audited(folder)
    engine = folder / ENGINE
    engine.write_text("// one line more\n" + engine.read_text())
    assert "has changed" not in audited(folder)[0]["context"].note


def test_a_text_of_several_lines_is_watched_as_a_whole(folder: Path) -> None:
    audited(folder)
    for file in folder.rglob("ElementClassifier.kt"):
        file.write_text(file.read_text().replace('\nElement:"""', '\nAnswer:"""'))
    found, _ = audited(folder)
    assert "stands for has changed" in found["prompt_words"].note
    assert str(found["prompt_words"].value).endswith("Answer:")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image_size = {", "cannot be read"),
        ("colour = 3", "'colour' is none of"),
        ("image_size = '256'", "write it as the contract does, 256"),
        ("image_size = { at = 'a.kt:3' }", "image_size has no value"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(text: str, said: str, folder: Path) -> None:
    (folder / app.CONFIRMED_IN).write_text(text)
    with pytest.raises(AuditError) as refused:
        audited(folder)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
