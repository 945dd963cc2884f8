import math
from dataclasses import replace

import pytest

from driftloop.devices.runner.protocol import DrivenLayer
from driftloop.harness import ladder
from driftloop.harness.comparison.case_comparison import CaseComparison, compare_case
from driftloop.harness.comparison.causes import Explained, FaultyFile, cause_of, causes
from driftloop.harness.comparison.driven import faults
from driftloop.harness.comparison.sentences import Facts, sentence
from driftloop.harness.comparison.terms import Differences
from driftloop.harness.records.inquiry import DrivenCase, FileFault
from driftloop.harness.records.observation import Observation
from driftloop.harness.stage import Stage

from ..run_factory import (
    DRIVEN,
    LABELS,
    TOLERANCE,
    driven_case,
    evidence,
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


def facts(stage: Stage = "embed", of: int = 40, **changed: object) -> Facts:
    """A cause of all cases on the quantization hop."""
    content = {"evidence": evidence(embed=0.071)} | changed
    cases = compared(observations("x", of, **content))
    return Facts(
        hop=HOPS["quantization"],
        tolerance=TOLERANCE,
        differences=Differences(("the reference", "desktop:q8_0")),
        pixels=None,
        clean=False,
        cause=cause_of(stage, cases, cases),
        explained=None,
    )


def of_driven(*driven: DrivenCase) -> Facts:
    """What these cases of the quantization hop show."""
    (fault,) = faults(driven, DRIVEN)
    (cause,) = causes(compared(observations("x", 9)), [fault])
    return replace(facts(fault.stage), cause=cause)


def zeros(one: Facts) -> Explained:
    return Explained(FaultyFile(ZEROS.file, ZEROS.half, (ZEROS,)), ZEROS, one.cause, "embed")


def test_what_where_how_often_how_much_and_why() -> None:
    one = facts()
    assert sentence(replace(one, explained=zeros(one))) == (
        "Quantization changes the image embeddings from vision layer 1 ffn on. They are 7.1 % off "
        "(limit 1 %) in 40 of 40 cases. In mmproj-q8_0.gguf, v.blk.1.ffn_down.weight is wrong: all "
        "zeros."
    )


def test_the_phone_or_of_several_changes_the_candidate_is_named() -> None:
    said = sentence(replace(facts(), hop=HOPS["platform"]))
    assert said.startswith("The phone emulator-5554 changes the image embeddings. They are 7.1 %")
    (hop,) = ladder.hops(ladder.parse_ladder(["torch", "desktop:q8_0"]), ())
    said = sentence(replace(facts(), hop=hop))
    assert said.startswith("desktop:q8_0 changes the image embeddings.")
    assert "onfirmed" not in said, "without driven layers"


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ({1, 2}, "in every image of a session but the first (16 of 24 cases)"),
        ({2}, "in every third image of a session and no other (8 of 24 cases)"),
        ({0}, "in every first image of a session and no other (8 of 24 cases)"),
    ],
)
def test_places_in_a_session_are_named(positions: set[int], words: str) -> None:
    cases = compared(observations("x", 24))
    shown = [case for case in cases if case.position in positions]
    said = sentence(replace(facts(), cause=cause_of("embed", shown, cases)))
    assert words in said
    assert ("previous image were left" in said) == (0 not in positions)


def test_a_file_that_no_case_shows_is_said_to_be_faulty() -> None:
    one = facts()
    none = replace(one, cause=cause_of("embed", [], []), explained=zeros(one))
    assert sentence(none) == (
        "Quantization reads a faulty file, mmproj-q8_0.gguf. No case shows it. In "
        "mmproj-q8_0.gguf, v.blk.1.ffn_down.weight (vision layer 1 ffn) is wrong: all zeros."
    )


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (
            facts("tile", grid=(2, 2), image_tokens=20),
            "Quantization changes the tiling. There are 2x2 tiles and 20 image tokens, where the "
            "reference has one tile and 4, in 40 of 40 cases.",
        ),
        (
            facts("tokens", prompt_ids=[1, -1, -1, 2, 2]),
            "The prompt has 5 ids instead of 4, and id 4 is 2 instead of nothing, in 40 of 40",
        ),
        (
            facts("prefill", label_logprobs=LABELS | {"wood": -5.3}),
            "A label's log-probability is 0.3 nats off (limit 0.01) in 40 of 40 cases.",
        ),
        (
            facts("prefill", evidence=evidence(prefill=0.3)),
            "They are 30 % off (limit 5 %) in 40 of 40 cases.",
        ),
        (
            facts("prefill", label_logprobs=LABELS | {"wood": float("nan")}),
            "They are not finite in 40 of 40 cases.",
        ),
        (
            facts("embed", evidence=evidence(tokens=8)),
            "They have another shape, or values that are not finite, in 40 of 40 cases.",
        ),
        (
            facts("decode", tokens=[token(3)], text="feu", evidence=evidence()),
            "changes the generated tokens, although the first step's logits agree.",
        ),
        (
            facts("decode", tokens=[token(10)], evidence=evidence(prefill=0.5)),
            "Quantization chooses tokens, or ends answers, by another rule.",
        ),
        (facts("decode", text="feu"), "Quantization spells the same tokens differently."),
        (facts("label", label="fire"), "Quantization reads the same text as another label."),
    ],
)  # fmt: skip
def test_each_stage_has_its_own_measure(one: Facts, words: str) -> None:
    assert words in sentence(one)


def test_what_was_asked_differently_is_said_of_both_sides() -> None:
    one = replace(
        facts("resize"),
        hop=HOPS["contract"],
        differences=Differences(
            ("training", "the app"),
            {"resize": ("resize recipe android, not lanczos", "centring float, not integer")},
        ),
    )
    assert sentence(one) == (
        "The app resizes differently from training: resize recipe android, not lanczos; centring "
        "float, not integer. This shows in 40 of 40 cases."
    )


CLEAN = "Confirmed: given the reference's inputs, the rest of the vision encoder is clean."


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (
            {"vision layer 1 ffn": 0.071},
            "Quantization breaks the vision encoder at vision layer 1 ffn. Its output is 7.1 % off "
            f"(limit 2 %) in 2 of 2 driven cases. {CLEAN}",
        ),
        ({"embed": 0.5}, "at the projector. Its output is 50 % off (limit 2 %) in 2 of 2"),
        ({"text layer 0 ffn": 1e-4}, "at text layer 0 ffn. Its output is 0.01 % off (limit 0 %)"),
        (
            {"prefill": math.inf},
            "at the output matrix. Its output has another shape, or values that",
        ),
        (
            {"vision patches": 0.5, "embed": 0.4, "vision norm": 0.3},
            "Confirmed: it is the first of the vision encoder at fault; 2 more outputs are, each "
            "by itself.",
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
    [(0.05, 0.0, "scaled by +5 % (limit 2 %)"), (0.0, -0.05, "shifted by -5 % (limit 2 %)")],
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
def test_a_confirmed_input_is_named(stage: Stage, put_in: str) -> None:
    said = sentence(replace(facts(stage), clean=True))
    assert said.endswith(f" Confirmed: given the reference's {put_in}, every layer is clean.")
