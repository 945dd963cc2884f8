import math
from dataclasses import replace

import pytest

from devices.runner.protocol import DrivenLayer
from harness import ladder
from harness.comparison.blame.causes import cause_of, causes
from harness.comparison.blame.files import Explained, FaultyFile
from harness.comparison.blame.sentences import Told, sentence
from harness.comparison.case_comparison import CaseComparison, compare_case
from harness.comparison.driven import faults
from harness.records.inquiry import DrivenCase, FileFault
from harness.records.observation import Observation
from harness.stage import Stage

from ..run_factory import (
    DRIVEN,
    LABELS,
    TOLERANCE,
    driven_case,
    evidence,
    observation,
    observations,
    token,
)

ARMS = ("torch:training", "torch", "desktop:f16", "desktop:q8_0", "phone:q8_0")
HOPS = {hop.changes[0]: hop for hop in ladder.hops(ladder.parse_ladder(ARMS), ("emulator-5554",))}
ZEROS = FileFault(
    half="mmproj",
    quant="q8_0",
    file="mmproj-q8_0.gguf",
    kind="tensor",
    name="v.blk.1.ffn_down.weight",
    stage="embed",
    layer="vision layer 1 ffn",
    detail="all zeros",
)


def compared(candidate: list[Observation]) -> list[CaseComparison]:
    ours = observations("torch", len(candidate), evidence=evidence())
    return [compare_case(*pair, TOLERANCE) for pair in zip(ours, candidate, strict=True)]


def told(stage: Stage = "embed", of: int = 40, **changed: object) -> Told:
    """A cause of all cases on the quantization hop."""
    content = {"evidence": evidence(embed=0.071)} | changed
    cases = compared(observations("x", of, **content))
    return Told(
        hop=HOPS["quantization"],
        stage=stage,
        cause=cause_of(stage, cases, cases),
        tolerance=TOLERANCE,
        layer=None,
        explained=None,
        asked=(),
        runtime=(),
        pixels=None,
        names=("the reference", "desktop:q8_0"),
        confirmed=None,
    )


def of_driven(*driven: DrivenCase) -> Told:
    """What these cases of the quantization hop show."""
    (fault,) = faults(driven, DRIVEN)
    (cause,) = causes(compared(observations("x", 9)), [fault])
    return replace(told(fault.stage), cause=cause, layer=fault.layer, confirmed=True)


def zeros(one: Told) -> Explained:
    return Explained(FaultyFile(ZEROS.file, ZEROS.half, (ZEROS,)), ZEROS, one.cause, "embed")


def test_what_where_how_often_how_much_and_why() -> None:
    one = told()
    assert sentence(replace(one, layer="vision layer 1 ffn", explained=zeros(one))) == (
        "The image embeddings drift on the quantization hop, at vision layer 1 ffn, in 40 of 40 "
        "cases (7.1 % of their length, limit 1 %): v.blk.1.ffn_down.weight in mmproj-q8_0.gguf: "
        "all zeros."
    )


def test_a_phones_hop_names_the_phone() -> None:
    said = sentence(replace(told(), hop=HOPS["platform"]))
    assert "on the platform hop to emulator-5554, in 40 of 40 cases" in said


def test_arms_with_several_changes_between_them_are_named() -> None:
    (hop,) = ladder.hops(ladder.parse_ladder(["torch", "desktop:q8_0"]), ())
    assert "drift between torch and desktop:q8_0, in" in sentence(replace(told(), hop=hop))


def test_single_cases_are_called_so() -> None:
    cases = compared(
        [observation("x", 0, evidence=evidence(embed=0.5)), *observations("x", 24)[1:]]
    )
    one = replace(told(), cause=cause_of("embed", cases[:1], cases))
    assert "in 1 of 24 cases only" in sentence(one)


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ({1, 2}, "in every image of a session but the first, 16 of 24 cases"),
        ({2}, "in every third image of a session and no other, 8 of 24 cases"),
        ({0}, "in every first image of a session and no other, 8 of 24 cases"),
    ],
)
def test_places_in_a_session_are_named(positions: set[int], words: str) -> None:
    cases = compared(observations("x", 24))
    shown = [case for case in cases if case.position in positions]
    said = sentence(replace(told(), cause=cause_of("embed", shown, cases)))
    assert words in said
    assert ("previous image were left" in said) == (0 not in positions)


def test_a_file_that_no_case_shows_is_said_to_be_faulty() -> None:
    one = told()
    none = replace(one, cause=cause_of("embed", [], []), explained=zeros(one))
    assert sentence(none) == (
        "mmproj-q8_0.gguf is faulty on the quantization hop, although no case shows it: "
        "v.blk.1.ffn_down.weight (vision layer 1 ffn) in mmproj-q8_0.gguf: all zeros."
    )


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (
            told("tile", grid=(2, 2), image_tokens=20),
            "The tiling differs on the quantization hop, in 40 of 40 cases "
            "(2x2 tiles and 20 image tokens against one tile and 4).",
        ),
        (
            told("tokens", prompt_ids=[1, -1, -1, 2, 2]),
            "(5 against 4 ids; the first that differs, at 4, is 2, not none).",
        ),
        (
            told("prefill", label_logprobs=LABELS | {"wood": -5.3}),
            "(a label's by 0.3 nats, limit 0.01).",
        ),
        (
            told("prefill", evidence=evidence(prefill=0.3)),
            "(30 % of their length, limit 5 %).",
        ),
        (
            told("prefill", label_logprobs=LABELS | {"wood": float("nan")}),
            "(they are not finite numbers).",
        ),
        (
            told("embed", evidence=evidence(tokens=8)),
            "(another shape, or no finite numbers).",
        ),
        (
            told("decode", tokens=[token(3)], text="feu", evidence=evidence()),
            "The generated tokens differ although the first step's logits agree on the",
        ),
        (
            told("decode", tokens=[token(10)], evidence=evidence(prefill=0.5)),
            "Tokens are chosen, or answers ended, by another rule on the quantization hop, in 40",
        ),
        (told("decode", text="feu"), "The same tokens are spelled differently on the quantization"),
        (told("label", label="fire"), "The same text is read as another label on the"),
    ],
)  # fmt: skip
def test_each_stage_has_its_own_measure(one: Told, words: str) -> None:
    assert words in sentence(one)


def test_what_was_asked_differently_is_said_of_both_sides() -> None:
    one = replace(
        told("resize"),
        hop=HOPS["contract"],
        names=("training", "the app"),
        asked=("resize recipe android, not lanczos", "centring float, not integer"),
    )
    assert sentence(one) == (
        "The app resizes differently from training on the contract hop, in 40 of 40 cases: "
        "resize recipe android, not lanczos; centring float, not integer."
    )


VISION = "every other output of the vision tower is clean."


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (
            {"vision layer 1 ffn": 0.071},
            "The image embeddings drift on the quantization hop, at vision layer 1 ffn, in 2 of 2 "
            "driven cases (off by 7.1 % of its own output, limit 2 %). Confirmed: driven along the "
            f"reference, {VISION}",
        ),
        ({"embed": 0.5}, "at the projector, in 2 of 2 driven cases (off by 50 % of its own"),
        ({"text layer 0 ffn": 1e-4}, "at text layer 0 ffn, in 2 of 2 driven cases (off by 0.01 %"),
        ({"prefill": math.inf}, "at the output matrix, in 2 of 2 driven cases (another shape, or"),
        (
            {"vision patches": 0.5, "embed": 0.4, "vision norm": 0.3},
            "Confirmed: driven along the reference, it is the first at fault, with 2 more outputs "
            "of the vision tower.",
        ),
    ],
)
def test_a_driven_layer_is_named_with_how_far_it_is_off(
    errors: dict[str, float], words: str
) -> None:
    assert words in sentence(
        of_driven(*[driven_case(HOPS["quantization"], i, errors) for i in (0, 1)])
    )


@pytest.mark.parametrize(
    ("gain", "shift", "words"),
    [(0.05, 0.0, "(scaled by +5 %, limit 2 %)"), (0.0, -0.05, "(shifted by -5 %, limit 2 %)")],
)
def test_the_measure_furthest_beyond_its_limit_is_said(
    gain: float, shift: float, words: str
) -> None:
    layer = DrivenLayer(name="text layer 1 attention", error=0.11, gain=gain, shift=shift)
    assert words in sentence(of_driven(driven_case(HOPS["quantization"], outputs=(layer,))))


@pytest.mark.parametrize(
    ("stage", "put_in"),
    [
        ("resize", "pixels"),
        ("tile", "tiles and prompt ids"),
        ("pixels", "pixel values"),
        ("tokens", "prompt ids"),
    ],
)
def test_what_a_model_is_given_is_confirmed_in_its_own_words(stage: Stage, put_in: str) -> None:
    said = sentence(replace(told(stage), confirmed=True))
    assert said.endswith(f" Confirmed: every layer is clean with the reference's {put_in} put in.")


def test_without_driven_layers_nothing_is_said_to_be_confirmed() -> None:
    assert "onfirmed" not in sentence(told())
