from dataclasses import replace

import pytest

from harness import ladder
from harness.comparison.blaming.causes import cause_of
from harness.comparison.blaming.files import Explained, FaultyFile
from harness.comparison.blaming.sentences import Told, sentence
from harness.comparison.stages import CaseComparison, Stage, compare_case
from harness.records.inquiry import FileFault
from harness.records.observation import Observation

from ..run_factory import LABELS, TOLERANCE, evidence, observation, observations

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
        past_layers=False,
        explained=None,
        asked=(),
        runtime=(),
        names=("the reference", "desktop:q8_0"),
        confirmed=None,
    )


def zeros(one: Told) -> Explained:
    return Explained(FaultyFile(ZEROS.file, ZEROS.half, (ZEROS,)), ZEROS, one.cause, "embed")


def test_what_since_where_how_often_how_much_and_why() -> None:
    one = told()
    assert sentence(replace(one, layer="vision layer 1 ffn", explained=zeros(one))) == (
        "The picture's embeddings differ since vision layer 1 ffn on the quantization hop, in 40 "
        "of 40 cases (7.1e-02 of their length, 1.0e-02 is noise): v.blk.1.ffn_down.weight in "
        "mmproj-q8_0.gguf: all zeros."
    )


def test_a_phones_hop_names_the_phone() -> None:
    said = sentence(replace(told(), hop=HOPS["platform"]))
    assert "on the platform hop to emulator-5554, in 40 of 40 cases" in said


def test_arms_with_several_changes_between_them_are_named() -> None:
    (hop,) = ladder.hops(ladder.parse_ladder(["torch", "desktop:q8_0"]), ())
    assert "differ between torch and desktop:q8_0, in" in sentence(replace(told(), hop=hop))


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
    assert ("image before were left" in said) == (0 not in positions)


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
            "(a label's by 0.3 nats, 0.01 is noise).",
        ),
        (
            told("prefill", evidence=evidence(prefill=0.3)),
            "(3.0e-01 of their length, 5.0e-02 is noise).",
        ),
        (
            told("prefill", label_logprobs=LABELS | {"wood": float("nan")}),
            "(they are no finite numbers).",
        ),
        (
            told("embed", evidence=evidence(tokens=8)),
            "(of another shape, or no finite numbers).",
        ),
        (
            told("embed", evidence=evidence(embed=0.009)),
            "(9.0e-03 of their length, within noise; what follows from it is not).",
        ),
        (told("decode", text="feu"), "The same tokens are spelled otherwise on the quantization"),
        (told("label", label="fire"), "The same text is read as another label on the"),
    ],
)  # fmt: skip
def test_each_stage_has_its_own_measure(one: Told, words: str) -> None:
    assert words in sentence(one)


def test_what_was_asked_otherwise_is_said_of_both_sides() -> None:
    one = replace(
        told("resize"),
        hop=HOPS["contract"],
        names=("training", "the app"),
        asked=("resize recipe android, not lanczos", "centring float, not integer"),
    )
    assert sentence(one) == (
        "The app resizes otherwise than training on the contract hop, in 40 of 40 cases: "
        "resize recipe android, not lanczos; centring float, not integer."
    )


@pytest.mark.parametrize(
    ("stage", "confirmed", "words"),
    [
        ("embed", True, "Confirmed: it goes away with the reference's embeddings put in."),
        ("embed", False, "Not confirmed: something still differs with the reference's embeddings"),
        ("prefill", True, "Confirmed: it stays with the reference's embeddings and prompt ids"),
        ("prefill", False, "Not confirmed: in a run of its own it goes away with the reference's"),
    ],
)
def test_the_swap_test_has_a_sentence_of_its_own(stage: Stage, confirmed: bool, words: str) -> None:
    assert words in sentence(replace(told(stage), confirmed=confirmed))


def test_without_a_swap_test_nothing_is_said_of_one() -> None:
    assert "onfirmed" not in sentence(told())
    assert "onfirmed" not in sentence(replace(told("decode"), confirmed=True))
