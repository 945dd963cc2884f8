"""`driftloop tokens`: the table beside the app guide's estimate, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.conftest import Driftloop


def test_a_prompt_that_leaves_too_little_context_is_said_beside_the_documents_estimate(
    bundle: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    contract = tmp_path / "contract.toml"
    contract.write_text(
        'extends = "default"\nname = "small"\n'
        "[runtime]\ncontext = 70\nthreads = 1\nvision_threads = 1\n"
    )
    done = driftloop("tokens", bundle, "--contract", contract)
    assert done.returncode == 0, done.stderr
    rows = {line[:20].strip(): line.split() for line in done.stdout.splitlines() if line.strip()}
    assert rows["it fits"][-2:] == ["yes", "no"]
    assert rows["left for the answer"][-3:] == ["~11", "32", "12"]
    assert rows["prompt"][-3:] == ["~21", "32", "58"]
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("option", ["--image", "--contract"])
def test_a_file_that_is_not_there_is_one_line(
    bundle: Path, driftloop: Driftloop, tmp_path: Path, option: str
) -> None:
    done = driftloop("tokens", bundle, option, tmp_path / "none")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "none" in done.stderr
