"""The table `[latency.trial]` of a gates file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import gates_file
from harness.errors import GatesError
from harness.gates_file import TrialRule


def test_a_file_says_only_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "gates.toml"
    file.write_text("[memory]\nmax_peak_mib = 1.0\n[latency.trial]\nmargin = 0.05\nmax_runs = 9\n")
    assert gates_file.load(file).latency.trial == TrialRule(margin=0.05, max_runs=9)
    assert gates_file.load().latency.trial == TrialRule()
    file.write_text("[errors]\nmax_per_arm = 1\n")
    assert gates_file.load(file).latency.trial == TrialRule()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[latency.trial]\nmargin = 0.2\n", "latency.trial: .*must be above margin"),
        ("[latency.trial]\nruns = 3\n", r"latency\.trial\.runs"),
        ("[latency", "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_the_key(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "gates.toml"
    file.write_text(text)
    with pytest.raises(GatesError, match=said):
        gates_file.load(file)
    with pytest.raises(GatesError, match="no such file"):
        gates_file.load(tmp_path / "nowhere.toml")
