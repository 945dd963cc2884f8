"""The training side beside the contract: the ladder's first hop, and what each change costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop import reports
from driftloop.devices.paths import cache_dir
from driftloop.fixtures import textures
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness import contract as contracts
from driftloop.harness import evaluation
from driftloop.harness.audit import impact
from driftloop.harness.audit.aspects import changed
from driftloop.harness.audit.findings import Value
from driftloop.harness.audit.impact import Change, Impact
from driftloop.harness.bundle import Bundle
from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.contract import Contract
from driftloop.harness.errors import RunFolderError
from driftloop.harness.progress import Unseen
from driftloop.harness.records.journal import RunFolder
from driftloop.harness.records.observation import Observation
from driftloop.harness.running.request import RunRequest
from driftloop.harness.running.run import evaluate
from driftloop.reports import summary

DEFAULT = contracts.load("default")
PICTURES = 6


@pytest.fixture(scope="module")
def own_cache(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No answer is there from before. The bundle comes first: it lies in the usual cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _answers_of_their_own(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(own_cache))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    textures.save(folder, PICTURES, seed=23)
    return str(folder / "labels.csv")


def ran(bundle: Bundle, photos: str, out: Path, training: str) -> tuple[HopResult, RunFolder]:
    arms = ("torch:training", "torch")
    request = RunRequest(bundle.path, photos, out, arms=arms, training=training)
    (hop,) = evaluate(request, Unseen()).verdict.hops
    return hop, RunFolder(out)


def of(folder: RunFolder, arm: str) -> list[Observation]:
    return [seen for seen in folder.read() if seen.arm == arm and seen.canary is None]


def test_a_training_side_of_its_own_drifts_in_pixels_tiles_and_prompt(
    tiny_bundle: Bundle, photos: str, tmp_path: Path
) -> None:
    hop, folder = ran(tiny_bundle, photos, tmp_path / "run", "as-trained")
    assert (hop.name, hop.reference, hop.candidate) == ("contract", "torch:training", "torch")
    assert (hop.cases, hop.drift, hop.blame) == (PICTURES, True, "resize")
    for part in (hop.pixels_equal, hop.grid_equal, hop.image_tokens_equal, hop.prompt_ids_equal):
        assert (part.count, part.of) == (0, PICTURES)
    recorded = {case.place: case.training_pixels_sha256 for case in folder.record().cases}
    for seen in of(folder, "torch:training"):
        assert seen.contract_sha256 == contracts.load("as-trained").sha256
        assert seen.pixels_sha256 == recorded[seen.place]
        assert (seen.grid, seen.image_tokens, seen.error) == ((2, 2), 20, None)
    assert {seen.contract_sha256 for seen in of(folder, "torch")} == {DEFAULT.sha256}
    reports.build(summary.of(evaluation.load(folder.path)))
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| <code>torch</code> | contract |" in report
    with pytest.raises(RunFolderError, match="training contract differs in"):
        ran(tiny_bundle, photos, tmp_path / "run", "default")


def test_training_under_the_apps_own_contract_gives_an_all_equal_hop(
    tiny_bundle: Bundle, photos: str, tmp_path: Path
) -> None:
    hop, folder = ran(tiny_bundle, photos, tmp_path / "run", "default")
    assert not hop.drift
    assert hop.agreement == 1.0
    assert hop.label_logprob_difference is not None
    assert hop.label_logprob_difference.maximum == 0.0
    assert all(seen.conditions.cached for seen in of(folder, "torch")), "answered twice"


def impacts(bundle: Bundle, photos: str, *changes: Change, **over: Contract) -> list[Impact]:
    checkpoint = checkpoints.load(bundle.checkpoint)
    return impact.impacts(checkpoint, DEFAULT, changes, photos, Unseen(), **over)


def change(aspect: str, found: Value, contract: Contract = DEFAULT) -> Change:
    other = changed(contract, aspect, found)
    assert other is not None
    return Change(aspect, found, other)


CHANNELS = change("channels", "bgr")
PROMPT_END = change("prompt_end", " ")
MAX_TOKENS = change("max_tokens", 128)
READING = change("answer_reading", "word")


def test_each_change_is_measured_worst_first_and_all_together_last(
    tiny_bundle: Bundle, photos: str
) -> None:
    together = change("prompt_end", " ", CHANNELS.contract)
    found = impacts(
        tiny_bundle, photos, MAX_TOKENS, PROMPT_END, CHANNELS, together=together.contract
    )
    assert [one.change for one in found] == [CHANNELS, PROMPT_END, MAX_TOKENS, None]
    worst = found[0]
    assert (worst.cases, worst.labelled, worst.unanswered) == (PICTURES, PICTURES, 0)
    assert worst.changed > 0
    assert worst.right_after < worst.right_before
    assert worst.mean_shift is not None
    assert worst.mean_shift > 0
    assert found[1].mean_shift != found[3].mean_shift != worst.mean_shift
    said = f"{worst.changed} of {PICTURES} answers change; {worst.right_before} -> "
    assert worst.text.startswith(said)
    assert found[2].text.endswith("labels shift by 0 nats (mean)")


def kept_answers() -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in cache_dir("results").rglob("*.json")}


def test_nothing_is_answered_twice_and_a_reading_asks_the_model_nothing(
    tiny_bundle: Bundle, photos: str
) -> None:
    first = impacts(tiny_bundle, photos, PROMPT_END)
    before = kept_answers()
    again = impacts(tiny_bundle, photos, READING, MAX_TOKENS, PROMPT_END)
    assert again[0] == first[0]
    assert kept_answers() == before


def test_without_a_change_nothing_runs(tiny_bundle: Bundle) -> None:
    assert impacts(tiny_bundle, "no images") == []


def test_a_value_that_makes_no_contract_is_no_change() -> None:
    assert changed(DEFAULT, "tiling", "often") is None
