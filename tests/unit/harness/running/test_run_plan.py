"""What a run is, decided before anything runs: its arms, and the pixels each side of it gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from driftloop.fixtures import awkward
from driftloop.harness import contract as contracts
from driftloop.harness import ladder
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract
from driftloop.harness.errors import BadInput, CaseError
from driftloop.harness.progress import Progress, Unseen
from driftloop.harness.running import run_plan
from driftloop.harness.running.request import RunRequest
from driftloop.harness.running.run_plan import Plan
from driftloop.harness.training.record import RECORD_NAME, HeldOut, Settings, TrainingRecord

from ..bundle_factory import Miniature

DEFAULT = contracts.load("default")
BOTH = ("torch:training", "torch")


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "cache"))
    return Miniature().write(tmp_path / "bundle")


@pytest.fixture
def request_(bundle: Bundle, tmp_path: Path) -> RunRequest:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        awkward.picture(300 + seed, 200, seed=seed).save(photos / f"{seed}.png")
    return RunRequest(bundle.path, str(photos), tmp_path / "run", arms=BOTH, quant="f16")


def planned(request: RunRequest, progress: Progress | None = None, **over: object) -> Plan:
    changed = replace(request, **over)  # type: ignore[arg-type]
    return run_plan.plan(changed, [], progress or Unseen())


class Said(Unseen):
    """Progress that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def trained_under(contract: Contract, checkpoint: Path) -> None:
    """Leave beside the checkpoint what `driftloop train` says of its training."""
    record = TrainingRecord(
        contract=contract,
        settings=Settings(),
        steps=1,
        labels=contract.answer.labels,
        train_images=1,
        held_out_images=1,
        dataset_sha256="d" * 64,
        checkpoint="base",
        checkpoint_sha256="c" * 64,
        step=1,
        held_out=HeldOut(right=1, cases=1, unread=0, label_logprob=-0.1),
        versions={},
    )
    (checkpoint / RECORD_NAME).write_text(record.model_dump_json())


def test_the_training_sides_arm_gets_its_own_pixels_in_the_same_places(
    request_: RunRequest,
) -> None:
    plan = planned(request_, training="as-trained")
    ours, theirs = plan.sides.of("app"), plan.sides.of("training")
    assert theirs.contract == contracts.load("as-trained") == plan.record.training
    assert ours.images.keys() == theirs.images.keys()
    for case in plan.record.cases:
        place = case.place
        assert ours.images[place].case_id == theirs.images[place].case_id == case.id
        assert case.pixels_sha256 == ours.images[place].pixels_sha256
        assert case.training_pixels_sha256 == theirs.images[place].pixels_sha256
        assert case.pixels_sha256 != case.training_pixels_sha256


def test_the_run_folder_keeps_both_sides_pixels(request_: RunRequest, tmp_path: Path) -> None:
    plan = planned(request_, training="as-trained")
    for side in plan.sides.by_role.values():
        run_plan.keep_pixels(side.images.values(), tmp_path / "kept")
    hashes = {(case.pixels_sha256, case.training_pixels_sha256) for case in plan.record.cases}
    canaries = {case.pixels_sha256 for case in plan.record.canaries}
    kept = {path.stem for path in (tmp_path / "kept").iterdir()}
    assert kept >= {name for pair in hashes for name in pair} | canaries


def test_each_side_keeps_its_answers_under_its_own_contract(request_: RunRequest) -> None:
    training, torch = ladder.parse_ladder(BOTH)
    plan = planned(request_, training="as-trained")
    assert plan.arm_key(training) != plan.arm_key(torch)
    plan = planned(request_, training="default")
    assert plan.arm_key(training) == plan.arm_key(torch)


def test_a_picture_that_one_side_refuses_takes_no_part_on_either(request_: RunRequest) -> None:
    # 256 / 12544 * 49 is 1 in the app's float32 and just below it in Python's float64.
    Image.new("RGB", (12544, 49)).save(Path(request_.images) / "long.png")
    assert len(planned(request_, arms=("torch",)).record.cases) == 4
    with pytest.raises(CaseError, match=r"long\.png: zero-side"):
        planned(request_, training="as-trained")
    plan = planned(request_, training="as-trained", skip_bad=True)
    assert len(plan.record.cases) == 3
    assert [Path(bad.path).name for bad in plan.record.refused] == ["long.png"]


def test_the_canaries_stand_in_two_sessions_after_the_last(request_: RunRequest) -> None:
    plan = planned(request_, arms=("torch",))
    names = ["black", "mirror", "twice", "twice", "reversed", "reversed", "again"]
    assert [case.canary for case in plan.record.canaries] == names
    assert [case.session for case in plan.record.canaries] == [1, 1, 1, 1, 2, 2, 2]
    assert plan.record.canaries[-1].id == plan.record.cases[0].id


def test_a_fixed_number_of_images_is_drawn_by_the_seed(request_: RunRequest) -> None:
    two = planned(request_, arms=("torch",), fixed=2)
    assert len(two.record.cases) == two.record.sampling.fixed == 2
    drawn = {
        tuple(one.id for one in planned(request_, arms=("torch",), fixed=2, seed=s).record.cases)
        for s in range(9)
    }
    assert len(drawn) > 1
    with pytest.raises(BadInput, match=r"--fixed 4: .* holds only 3 images"):
        planned(request_, arms=("torch",), fixed=4)
    with pytest.raises(BadInput, match=r"--fixed 0: "):
        planned(request_, arms=("torch",), fixed=0)


def test_what_is_for_phones_needs_a_phone_in_the_ladder(request_: RunRequest) -> None:
    with pytest.raises(BadInput, match=r"--phone-contract.* are for phones"):
        planned(request_, arms=("torch",), phone_contract="as-shipped")


def test_the_plan_of_the_agreement_is_told_before_anything_runs(request_: RunRequest) -> None:
    said = Said()
    planned(request_, said, training="default")
    with pytest.raises(BadInput, match="holds only 3 images"):
        planned(request_, said, training="default", fixed=259)
    sequential, fixed = said.lines
    assert sequential.startswith("agreement: a sequential test")
    assert "at 0.98" in sequential
    assert "a fixed sample of 259 images" in fixed


def test_the_training_side_is_read_beside_the_checkpoint_and_stands_first_where_it_differs(
    request_: RunRequest, bundle: Bundle
) -> None:
    request = replace(request_, arms=())
    assert planned(request).record.arms[0] == "torch"
    assert planned(request, training="default").record.arms[:2] == BOTH
    runtime = DEFAULT.runtime.model_copy(update={"context": 2048})
    trained_under(DEFAULT.model_copy(update={"runtime": runtime}), bundle.checkpoint)
    assert planned(request).record.arms[0] == "torch", "a phone's runtime is no difference"
    trained_under(contracts.load("as-shipped"), bundle.checkpoint)
    found = planned(request).record
    assert (found.training, found.arms[:2]) == (contracts.load("as-shipped"), BOTH)
    assert planned(request, contract="as-shipped").record.arms[0] == "torch"
    assert planned(request_, training="default").record.training == DEFAULT


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({}, "not known how the checkpoint was trained; name .* --training NAME|FILE"),
        ({"arms": ("torch",), "training": "default"}, "--training is for the arm torch:training"),
        ({"training": "nowhere.toml"}, "no such file; built in are"),
    ],
)
def test_a_training_side_that_cannot_be_told_is_refused_in_one_line(
    request_: RunRequest, over: dict[str, object], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        planned(request_, **over)
    assert "\n" not in str(caught.value)
