import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.devices.runner.protocol import RunSettings
from driftloop.harness import ladder
from driftloop.harness.comparison.blame import Blame, blames, unanswered
from driftloop.harness.comparison.case_comparison import compare_case
from driftloop.harness.comparison.driven import of_hop
from driftloop.harness.comparison.terms import Terms, terms
from driftloop.harness.contract import Contract, load
from driftloop.harness.ladder import Hop, Who
from driftloop.harness.records.inquiry import Divergence, FileFault, Inquiry
from driftloop.harness.records.observation import Observation, Place
from driftloop.harness.records.record import BundleRecord, PhoneSide
from driftloop.harness.stage import Stage

from ..run_factory import (
    DRIVEN,
    TOLERANCE,
    attestation,
    driven_case,
    evidence,
    fault,
    flipped,
    observation,
    observations,
    phone_record,
    run_record,
    settings,
    token,
)

ARMS = ("torch:training", "torch", "desktop:f16", "desktop:q8_0", "desktop:q8_0+app")
PHONE = "phone:q8_0+app"
HOPS: dict[str, Hop] = {
    hop.name: hop for hop in ladder.hops(ladder.parse_ladder([*ARMS, PHONE]), ("PHONE1",))
}


def blamed(
    candidate: Sequence[Observation],
    hop: str = "quantization",
    inquiry: Inquiry | None = None,
    under: Mapping[Who, Terms] | None = None,
    failed: Sequence[Blame] = (),
) -> tuple[Blame, ...]:
    """`candidate` against as many cases of a reference that never changes."""
    found = inquiry or Inquiry()
    tolerance = TOLERANCE.shown_only if of_hop(HOPS[hop], found.driven) else TOLERANCE
    ours = observations("desktop:f16", len(candidate), evidence=evidence())
    cases = [compare_case(*pair, tolerance) for pair in zip(ours, candidate, strict=True)]
    return blames(HOPS[hop], cases, tolerance, found, DRIVEN, under or {}, failed)


def seen(n: int = 24, **over: object) -> list[Observation]:
    """The candidate's answers, clean except for `over`."""
    return observations("x", n, **({"evidence": evidence()} | over))


def mixed(changed: Mapping[int, dict[str, Any]], n: int = 24) -> list[Observation]:
    """Clean answers except at the keys of `changed`."""
    clean: dict[str, Any] = {"evidence": evidence()}
    return [observation("x", index, **(clean | changed.get(index, {}))) for index in range(n)]


BROKEN_EMBED = seen(evidence=evidence(embed=0.07, prefill=0.3))
FAR = {"embed": 0.5, "prefill": 0.9}
"""Total distances beyond every limit."""


def file_fault(quant: str = "q8_0", **over: object) -> FileFault:
    content: dict[str, Any] = {
        "half": "mmproj",
        "quant": quant,
        "file": f"mmproj-{quant}.gguf",
        "kind": "tensor",
        "name": "v.blk.1.ffn_down.weight",
        "stage": "embed",
        "layer": "vision layer 1 ffn",
        "detail": "all zeros",
    }
    return FileFault.model_validate(content | over)


def text_fault(**over: object) -> FileFault:
    text: dict[str, Any] = {
        "half": "text",
        "file": "text-q8_0.gguf",
        "name": "blk.0.attn_q.weight",
        "stage": "prefill",
        "layer": "text layer 0 attention",
    }
    return file_fault(**(text | over))


CHANGED = file_fault(kind="hash", name="mmproj-q8_0.gguf", layer=None)


def files(*faults: FileFault) -> Inquiry:
    return Inquiry(files=faults)


def driven(
    *errors: dict[str, float], files: Sequence[FileFault] = (), hop: str = "quantization"
) -> Inquiry:
    """The first cases driven, one for each of `errors`."""
    cases = [driven_case(HOPS[hop], index, one) for index, one in enumerate(errors)]
    return Inquiry(driven=tuple(cases), files=tuple(files))


def short(found: Sequence[Blame]) -> list[tuple[str, str | None, int]]:
    return [(blame.stage, blame.layer, blame.cases) for blame in found]


def test_a_clean_hop_has_no_blame() -> None:
    assert blamed(seen()) == blamed([]) == ()


def test_a_cause_of_every_case_is_systematic_and_alone() -> None:
    (blame,) = blamed(BROKEN_EMBED)
    assert (blame.hop, blame.phone, blame.stage) == ("quantization", None, "embed")
    assert (blame.cases, blame.of, blame.systematic) == (24, 24, True)
    assert (blame.layer, blame.confirmed) == (None, None)


@pytest.mark.parametrize(
    ("cases", "changed", "systematic", "words"),
    [
        ([4], {"evidence": evidence(embed=0.5)}, False, "in 1 of 24 cases only"),
        (range(0, 24, 2), {"evidence": evidence(embed=0.5)}, True, "in 12 of 24 cases."),
        # All images but the first of a session; every third one; but not two third ones.
        (
            [i for i in range(24) if i % 3],
            {"evidence": evidence(prefill=0.5)},
            True,
            "every image of a session but the first",
        ),
        (
            range(2, 24, 3),
            {"evidence": evidence(embed=0.5)},
            True,
            "every third image of a session",
        ),
        ([2, 5], {"evidence": evidence(embed=0.5)}, False, "in 2 of 24 cases only"),
    ],
)
def test_a_cause_of_most_cases_or_of_a_position_is_systematic(
    cases: Sequence[int], changed: dict[str, Any], systematic: bool, words: str
) -> None:
    (blame,) = blamed(mixed(dict.fromkeys(cases, changed)))
    assert (blame.cases, blame.of, blame.systematic) == (len(cases), 24, systematic)
    assert words in blame.sentence


def test_a_branch_of_its_own_is_a_cause_of_its_own() -> None:
    found = blamed(seen(prompt_ids=[1], evidence=evidence(embed=0.5)))
    assert short(found) == [("embed", None, 24), ("tokens", None, 24)]


def test_few_cases_beside_a_systematic_cause_follow_from_it_or_come_after_it() -> None:
    later = [*BROKEN_EMBED[:5], observation("x", 5, evidence=evidence(prefill=0.3))]
    assert short(blamed([*later, *BROKEN_EMBED[6:]])) == [("embed", None, 23)]
    earlier = seen(evidence=evidence(prefill=0.3))
    earlier[5] = observation("x", 5, evidence=evidence(embed=0.5, prefill=0.3))
    found = blamed(earlier)
    assert short(found) == [("prefill", None, 23), ("embed", None, 1)]
    assert [blame.systematic for blame in found] == [True, False]


# Files


FFN, ATTENTION = "vision layer 1 ffn", "text layer 0 attention"
TOKEN = text_fault(kind="token", name="Ġfire", stage="tokens", layer=None)
MEAN = file_fault(kind="key", name="clip.vision.image_mean", stage="pixels", layer=None)
LATER = file_fault(name="v.blk.3.attn_q.weight", layer="vision layer 3 attention")
SLIGHT = seen(evidence=evidence(pixels=0.0005, embed=0.07, prefill=0.3))
BOTH = mixed(
    {i: {"evidence": evidence(prefill=0.3)} for i in range(8)}
    | {i: {"evidence": evidence(embed=0.5, prefill=0.3)} for i in range(8, 12)},
    12,
)


@pytest.mark.parametrize(
    ("candidate", "faults", "found", "words"),
    [
        # A faulty file explains the cause and names the layer, even if no case shows it.
        (BROKEN_EMBED, [file_fault()], [("embed", FFN, 24)], "v.blk.1.ffn_down.weight"),
        (seen(), [file_fault()], [("embed", FFN, 0)], "No case shows it"),
        # Several faults of one file are one blame, named after the first.
        (BROKEN_EMBED, [CHANGED, LATER, file_fault()], [("embed", FFN, 24)], "1 more"),
        # A file that only changed explains what its half can; one that changed nothing, nothing.
        (BROKEN_EMBED, [CHANGED], [("embed", None, 24)], "has changed since the bundle was made"),
        (seen(), [CHANGED], [], ""),
        # Two faulty files are two blames, and a text tensor does not explain other embeddings.
        (
            BROKEN_EMBED,
            [text_fault(), file_fault()],
            [("embed", FFN, 24), ("prefill", ATTENTION, 24)],
            "",
        ),
        (BROKEN_EMBED, [text_fault()], [("embed", None, 24), ("prefill", ATTENTION, 24)], ""),
        # A fault before the cause takes the blame where noise may hide it.
        (SLIGHT, [MEAN], [("pixels", None, 24)], ""),
        # A token fault shows where the ids differ.
        (seen(prompt_ids=[1, -1, -1, 9]), [TOKEN], [("tokens", None, 24)], ""),
        (seen(text="feu"), [TOKEN], [("decode", None, 24)], ""),
        # Two faulty files explain what fits them best.
        (BOTH, [file_fault(), text_fault()], [("prefill", ATTENTION, 8), ("embed", FFN, 4)], ""),
    ],
)
def test_faulty_files_explain_causes(
    candidate: list[Observation],
    faults: list[FileFault],
    found: list[tuple[str, str | None, int]],
    words: str,
) -> None:
    blames = blamed(candidate, inquiry=files(*faults))
    assert short(blames) == found
    assert all(words in blame.sentence for blame in blames)
    assert all(not blame.systematic and blame.of == 24 for blame in blames if blame.cases == 0)


def test_a_fault_that_the_reference_reads_too_is_not_this_hops() -> None:
    both = files(file_fault("f16"), file_fault("q8_0"))
    assert blamed(seen(), "quantization", both) == ()
    (blame,) = blamed(BROKEN_EMBED, "conversion", both)
    assert blame.layer == "vision layer 1 ffn"


def test_a_key_explains_an_earlier_stage_of_its_half() -> None:
    edge = file_fault(kind="key", name="clip.vision.preproc_image_size", stage="pixels", layer=None)
    tiled = seen(grid=(2, 2), image_tokens=20, evidence=evidence(tokens=20))
    (blame,) = blamed(tiled, inquiry=files(edge))
    assert blame.stage == "tile"
    assert "clip.vision.preproc_image_size" in blame.sentence
    assert "2x2 tiles and 20 image tokens, where the reference has one tile and 4" in blame.sentence


def test_a_remark_is_no_blame() -> None:
    remark = files(file_fault(kind="key", name="general.name", layer=None, remark=True))
    assert blamed(seen(), inquiry=remark) == ()
    (blame,) = blamed(BROKEN_EMBED, inquiry=remark)
    assert "general.name" not in blame.sentence


# Cases that only the reference could answer


REFERENCE, CANDIDATE = "desktop:q8_0", "desktop:q8_0+app"


def placed(seen: list[Observation]) -> dict[Place, Observation]:
    return {one.place: one for one in seen}


@pytest.mark.parametrize(
    ("kind", "tokens", "stage"),
    [
        ("image_decode", [], "resize"),
        ("encode", [], "embed"),
        ("tokenize", [], "tokens"),
        ("context_full", [], "prefill"),
        ("context_full", [token(10)], "decode"),
    ],
)
def test_unanswered_cases_are_blamed_on_the_stage_that_was_not_passed(
    kind: str, tokens: list[object], stage: Stage
) -> None:
    answered = placed(observations(REFERENCE, 9))
    silent = placed(observations(CANDIDATE, 9, error=fault(kind), tokens=tokens))
    (blame,) = unanswered(HOPS["runtime"], answered, silent)
    assert (blame.hop, blame.stage, blame.cases, blame.of) == ("runtime", stage, 9, 9)
    assert blame.systematic
    assert kind in blame.sentence
    single = placed(observations(CANDIDATE, 9)) | {(2, 2): silent[2, 2]}
    (blame,) = unanswered(HOPS["runtime"], answered, single)
    assert (blame.cases, blame.systematic) == (1, False)
    neither = placed(observations(REFERENCE, 9, error=fault(kind)))
    assert unanswered(HOPS["runtime"], neither, silent) == ()


FAILED = Blame(
    hop="quantization",
    phone=None,
    stage="prefill",
    layer=None,
    cases=24,
    of=24,
    systematic=True,
    sentence="It cannot answer: the logits are not finite.",
    confirmed=None,
)


def test_cases_without_an_answer_are_blamed_on_the_file_that_explains_them() -> None:
    faults = files(text_fault(detail="values that are not finite"))
    (blame,) = blamed([], inquiry=faults, failed=[FAILED])
    assert (blame.layer, blame.cases) == (ATTENTION, 24)
    assert blame.sentence.startswith("It cannot answer: the logits are not finite. In ")
    assert "values that are not finite" in blame.sentence


def test_a_file_that_shows_later_than_answers_ended_is_a_blame_of_its_own() -> None:
    moved = files(text_fault(kind="token", name="eos", stage="decode", layer=None))
    found = blamed([], inquiry=moved, failed=[FAILED])
    assert found[0] == FAILED
    assert short(found[1:]) == [("decode", None, 0)]


# Driven layers


def test_a_driven_layer_beyond_its_limit_is_blamed_and_confirmed() -> None:
    broken = driven({"vision layer 1 ffn": 0.3}, {"vision layer 1 ffn": 0.2}, {})
    (blame,) = blamed(seen(evidence=evidence(**FAR)), inquiry=broken)
    assert (blame.stage, blame.layer, blame.confirmed) == ("embed", "vision layer 1 ffn", True)
    assert (blame.cases, blame.of, blame.systematic) == (2, 3, True)
    unseen = blamed(seen(), inquiry=driven({"text layer 1 attention": 0.5}))
    assert short(unseen) == [("prefill", "text layer 1 attention", 1)], "no answer shows it"


def test_a_hop_whose_driven_layers_are_clean_has_no_drift_however_far_it_ends() -> None:
    moved = dict.fromkeys(("water", "land"), -1.0)
    far = seen(evidence=evidence(**FAR), label_logprobs=moved)
    far[3] = flipped("x", 3, evidence=evidence(**FAR))
    assert blamed(far, inquiry=driven({}, {})) == ()
    elsewhere = driven({}, {"embed": 0.5}, hop="runtime")
    assert [blame.confirmed for blame in blamed(far, inquiry=elsewhere)] == [None]


@pytest.mark.parametrize(
    ("changed", "stage"),
    [
        ({"pixels_sha256": "f" * 64}, "resize"),
        ({"grid": (2, 2), "image_tokens": 20, "evidence": evidence(tokens=20)}, "tile"),
        ({"evidence": evidence(pixels=0.1, **FAR)}, "pixels"),
        ({"prompt_ids": [1, -1, -1, 3]}, "tokens"),
    ],
)
def test_what_a_model_is_given_is_confirmed_where_its_layers_are_clean(
    changed: dict[str, Any], stage: str
) -> None:
    far = seen(**({"evidence": evidence(**FAR)} | changed))
    (blame,) = blamed(far, inquiry=driven({}, {}))
    assert (blame.stage, blame.cases, blame.confirmed) == (stage, 24, True)
    found = blamed(far, inquiry=driven({"text layer 0 attention": 0.5}))
    assert [(blame.stage, blame.confirmed) for blame in found] == [(stage, None), ("prefill", True)]


def test_a_leak_is_a_driven_fault_on_every_image_but_the_first() -> None:
    left = {"text layer 0 attention": 0.5}
    (blame,) = blamed(seen(), inquiry=driven({}, left, left))
    assert (blame.stage, blame.confirmed) == ("prefill", True)
    assert "as if something of the previous image were left" in blame.sentence


def test_what_is_not_finite_after_a_layer_at_fault_follows_from_it() -> None:
    broken = seen(evidence=evidence(**FAR, tokens=8))
    (blame,) = blamed(broken, inquiry=driven({"vision norm": math.inf}))
    assert (blame.stage, blame.layer) == ("embed", "vision norm")


@pytest.mark.parametrize("layer", ["vision layer 1 ffn", "vision layer 2 attention"])
def test_a_faulty_file_and_a_faulty_layer_meet_in_one_blame(layer: str) -> None:
    (blame,) = blamed(
        seen(evidence=evidence(**FAR)),
        inquiry=driven({layer: 0.3}, files=[text_fault(remark=True), file_fault()]),
    )
    assert (blame.layer, blame.cases, blame.confirmed) == (layer, 1, True)
    assert "v.blk.1.ffn_down.weight" in blame.sentence
    assert ("(vision layer 1 ffn)" in blame.sentence) == (layer != "vision layer 1 ffn")


def test_a_tensor_before_a_layer_at_fault_does_not_explain_it() -> None:
    inquiry = driven({"text layer 1 attention": 0.5}, files=[file_fault()])
    assert short(blamed(seen(evidence=evidence(**FAR)), inquiry=inquiry)) == [
        ("prefill", "text layer 1 attention", 1),
        ("embed", "vision layer 1 ffn", 0),
    ]


@pytest.mark.parametrize(
    ("margins", "stages"),
    [
        ((0.5, 0.5, 0.5), ["decode"]),
        ((None, 0.5, 0.01), ["decode"]),
        ((0.01, 0.01, 0.01), []),
        ((0.5, 0.01, 0.01), []),
    ],
)
def test_most_driven_answers_that_part_are_another_choice(
    margins: tuple[float | None, ...], stages: list[str]
) -> None:
    parted = {"index": 0, "reference_id": 10, "candidate_id": 11, "candidate_margin": None}
    cases = [
        driven_case(
            HOPS["quantization"],
            index,
            divergence=Divergence.model_validate(parted | {"reference_margin": margin}),
        )
        for index, margin in enumerate(margins)
    ]
    found = blamed(seen(), inquiry=Inquiry(driven=tuple(cases)))
    assert [blame.stage for blame in found] == stages
    assert all("3 driven cases" in blame.sentence for blame in found)


# What the arms were asked


def trained(training: Contract) -> Mapping[Who, Terms]:
    """The terms of a run whose training side has another contract."""
    return terms(run_record(ARMS, training=training))


def phone_given(
    side: PhoneSide | None = None, attested: RunSettings | None = None
) -> Mapping[Who, Terms]:
    record = run_record(
        [*ARMS, PHONE],
        [phone_record()],
        phone_side=side or PhoneSide(),
        attestations=(
            attestation("desktop:q8_0+app", settings=settings()),
            attestation(PHONE, phone="PHONE1", settings=attested or settings()),
        ),
    )
    return terms(record)


def test_another_recipe_is_named_with_the_app_and_what_it_does() -> None:
    contract = load("default")
    pixels = contract.pixels.model_copy(update={"recipe": "lanczos", "centring": "integer"})
    under = trained(contract.model_copy(update={"pixels": pixels}))
    (blame,) = blamed(observations("x", pixels_sha256="f" * 64), "contract", under=under)
    assert (blame.stage, blame.cases) == ("resize", 24)
    assert blame.sentence.startswith("The app resizes differently from training")
    assert "resize recipe android, not lanczos; centring float, not integer" in blame.sentence


def test_tiling_and_prompt_that_differ_with_the_recipe_are_causes_too() -> None:
    other = {"pixels_sha256": "f" * 64, "grid": (4, 4), "image_tokens": 68}
    answers = seen(prompt_ids=[7, -1, -1, 2], evidence=evidence(tokens=68), **other)
    found = blamed(answers, "contract", under=trained(load("as-trained")))
    assert [blame.stage for blame in found] == ["resize", "tile", "tokens", "decode"]
    assert found[-1].cases == 0
    assert "new tokens at most 32, not 128" in found[-1].sentence


def test_settings_that_differ_are_blamed_though_no_token_changed() -> None:
    hot = load("default").decoding.model_copy(update={"temperature": 0.7})
    under = phone_given(attested=settings(decoding=hot))
    (blame,) = blamed(seen(), "platform", under=under)
    assert (blame.phone, blame.stage, blame.cases) == ("PHONE1", "decode", 0)
    assert "the phone samples at temperature 0.7, the reference is greedy" in blame.sentence


def test_settings_that_differ_explain_other_tokens_beside_another_cause() -> None:
    under = phone_given(attested=settings(max_tokens=8))
    other = seen(tokens=[token(3)], text="fire", evidence=evidence(embed=0.5))
    found = blamed(other, "platform", under=under)
    assert short(found) == [("embed", None, 24), ("decode", None, 24)]


def test_a_cache_type_is_named_and_no_cause() -> None:
    under = phone_given(attested=settings(cache_type_k="q8_0"))
    (blame,) = blamed(seen(evidence=evidence(prefill=0.5)), "platform", under=under)
    assert blame.stage == "prefill"
    assert "K cache q8_0, not q4_0" in blame.sentence
    assert blamed(seen(), "platform", under=under) == ()


def test_the_phones_own_bundle_comes_in_on_the_platform_hop() -> None:
    other = BundleRecord(path="other", sha256="o" * 64, summary={})
    theirs = files(file_fault(owner="phone bundle"))
    (blame,) = blamed(BROKEN_EMBED, "platform", theirs, phone_given(PhoneSide(bundle=other)))
    assert (blame.hop, blame.layer) == ("platform", "vision layer 1 ffn")
    assert blamed(seen(), "quantization", theirs) == ()
    same = blamed(seen(), "platform", files(file_fault()), phone_given())
    assert same == (), "a fault of the run's bundle, which the phone reads too"


def test_single_flips_without_any_other_difference_are_blamed_on_decoding() -> None:
    (blame,) = blamed(mixed({3: {"tokens": [token(3)], "text": "fire", "label": "fire"}}))
    assert (blame.stage, blame.cases, blame.systematic) == ("decode", 1, False)


CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"pixels_sha256": "f" * 64},
    {"grid": (2, 2), "image_tokens": 20, "evidence": evidence(tokens=20)},
    {"evidence": evidence(pixels=0.1, embed=0.1, prefill=0.1)},
    {"evidence": evidence(embed=0.012, prefill=0.1)},
    {"evidence": evidence(embed=0.009, prefill=0.1)},
    {"prompt_ids": [1, -1, -1, 3]},
    {"tokens": [token(3)], "text": "fire", "label": "fire"},
    {"text": "Feuer", "label": None},
    {"label": "fire"},
)


@given(st.lists(st.sampled_from(CHANGES), max_size=12))
def test_whatever_drifts_is_blamed_and_nothing_else(changes: list[dict[str, Any]]) -> None:
    found = blamed(mixed(dict(enumerate(changes)), len(changes)))
    assert bool(found) == any(change for change in changes)
    assert len({blame.stage for blame in found}) == len(found)
    for blame in found:
        assert 1 <= blame.cases <= blame.of == len(changes)
        assert blame.sentence.endswith(".")
    assert list(found) == sorted(found, key=lambda blame: not blame.systematic)
