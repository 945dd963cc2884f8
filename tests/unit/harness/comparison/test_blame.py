import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.runner.protocol import RunSettings
from harness import ladder
from harness.comparison.attestation import Terms, terms
from harness.comparison.blame import Blame
from harness.comparison.blame.blamer import blames
from harness.comparison.case_comparison import compare_case
from harness.comparison.driven import of_hop
from harness.contract import Contract, load
from harness.ladder import Hop
from harness.records.inquiry import Divergence, FileFault, Inquiry
from harness.records.observation import Observation, Who
from harness.records.record import BundleRecord, PhoneSide

from ..run_factory import (
    DRIVEN,
    TOLERANCE,
    attestation,
    driven_case,
    evidence,
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
    unanswered: Sequence[Blame] = (),
) -> tuple[Blame, ...]:
    """`candidate` against as many cases of a reference that never changes."""
    found = inquiry or Inquiry()
    tolerance = TOLERANCE.shown_only if of_hop(HOPS[hop], found.driven) else TOLERANCE
    ours = observations("desktop:f16", len(candidate), evidence=evidence())
    cases = [compare_case(*pair, tolerance) for pair in zip(ours, candidate, strict=True)]
    return blames(HOPS[hop], cases, tolerance, found, DRIVEN, under or {}, unanswered)


def mixed(changed: Mapping[int, dict[str, Any]], n: int = 24) -> list[Observation]:
    """Clean answers, but those at the keys of `changed`, which say what."""
    clean: dict[str, Any] = {"evidence": evidence()}
    return [observation("x", index, **(clean | changed.get(index, {}))) for index in range(n)]


def broken_embed(n: int = 24, by: float = 0.07) -> list[Observation]:
    return observations("x", n, evidence=evidence(embed=by, prefill=0.3))


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


def files(*faults: FileFault) -> Inquiry:
    return Inquiry(files=faults)


def driven(
    *errors: dict[str, float], files: Sequence[FileFault] = (), hop: str = "quantization"
) -> Inquiry:
    """The first cases driven, one for each of `errors`."""
    cases = [driven_case(HOPS[hop], index, one) for index, one in enumerate(errors)]
    return Inquiry(driven=tuple(cases), files=tuple(files))


def test_a_clean_hop_has_no_blame() -> None:
    assert blamed(observations("x", evidence=evidence())) == ()
    assert blamed([]) == ()


def test_a_cause_of_every_case_is_systematic_and_alone() -> None:
    (blame,) = blamed(broken_embed())
    assert (blame.hop, blame.phone, blame.stage) == ("quantization", None, "embed")
    assert (blame.cases, blame.of, blame.systematic) == (24, 24, True)
    assert (blame.layer, blame.confirmed) == (None, None)


@pytest.mark.parametrize(("cases", "systematic"), [([4], False), (range(0, 24, 2), True)])
def test_a_cause_of_half_of_the_cases_is_systematic_and_one_of_few_is_not(
    cases: Sequence[int], systematic: bool
) -> None:
    (blame,) = blamed(mixed({index: {"evidence": evidence(embed=0.5)} for index in cases}))
    assert (blame.stage, blame.cases, blame.of) == ("embed", len(cases), 24)
    assert blame.systematic is systematic


def test_a_branch_of_its_own_is_a_cause_of_its_own() -> None:
    found = blamed(observations("x", prompt_ids=[1], evidence=evidence(embed=0.5)))
    assert [(blame.stage, blame.cases) for blame in found] == [("embed", 24), ("tokens", 24)]


def test_few_cases_of_a_later_stage_follow_from_a_systematic_cause_before_it() -> None:
    seen = broken_embed()
    seen[5] = observation("x", 5, evidence=evidence(prefill=0.3))
    (blame,) = blamed(seen)
    assert (blame.stage, blame.cases) == ("embed", 23)


def test_few_cases_of_an_earlier_stage_come_after_a_systematic_cause() -> None:
    seen = observations("x", evidence=evidence(prefill=0.3))
    seen[5] = observation("x", 5, evidence=evidence(embed=0.5, prefill=0.3))
    found = blamed(seen)
    assert [(blame.stage, blame.cases, blame.systematic) for blame in found] == [
        ("prefill", 23, True),
        ("embed", 1, False),
    ]


def test_a_cause_of_all_images_but_the_first_of_a_session_is_systematic() -> None:
    left = {i: {"evidence": evidence(prefill=0.5)} for i in range(24) if i % 3}
    (blame,) = blamed(mixed(left))
    assert blame.systematic
    assert "every image of a session but the first" in blame.sentence


def test_a_cause_of_every_third_image_alone_is_systematic() -> None:
    reused = {i: {"evidence": evidence(embed=0.5)} for i in range(24) if i % 3 == 2}
    (blame,) = blamed(mixed(reused))
    assert (blame.cases, blame.systematic) == (8, True)
    assert "every third image of a session" in blame.sentence


def test_two_third_images_are_no_pattern() -> None:
    few = {i: {"evidence": evidence(embed=0.5)} for i in (2, 5)}
    (blame,) = blamed(mixed(few))
    assert not blame.systematic


# Files


def test_a_faulty_file_explains_the_cause_and_names_the_layer() -> None:
    (blame,) = blamed(broken_embed(), inquiry=files(file_fault()))
    assert (blame.stage, blame.layer, blame.cases) == ("embed", "vision layer 1 ffn", 24)
    assert "v.blk.1.ffn_down.weight" in blame.sentence


def test_a_fault_that_the_reference_reads_too_is_not_this_hops() -> None:
    both = files(file_fault("f16"), file_fault("q8_0"))
    assert blamed(observations("x", evidence=evidence()), "quantization", both) == ()
    (blame,) = blamed(broken_embed(), "conversion", both)
    assert blame.layer == "vision layer 1 ffn"


def test_a_faulty_file_is_blamed_though_no_case_shows_it() -> None:
    (blame,) = blamed(observations("x", evidence=evidence()), inquiry=files(file_fault()))
    assert (blame.stage, blame.layer, blame.cases, blame.of) == (
        "embed",
        "vision layer 1 ffn",
        0,
        24,
    )
    assert not blame.systematic


def test_several_faults_of_one_file_are_one_blame_named_after_the_first() -> None:
    later = file_fault(name="v.blk.3.attn_q.weight", layer="vision layer 3 attention")
    changed = file_fault(kind="hash", name="mmproj-q8_0.gguf", layer=None)
    (blame,) = blamed(broken_embed(), inquiry=files(changed, later, file_fault()))
    assert blame.layer == "vision layer 1 ffn"
    assert "1 more" in blame.sentence


def test_a_file_that_only_changed_explains_what_its_half_can() -> None:
    changed = file_fault(kind="hash", name="mmproj-q8_0.gguf", layer=None)
    (blame,) = blamed(broken_embed(), inquiry=files(changed))
    assert (blame.stage, blame.cases) == ("embed", 24)
    assert "mmproj-q8_0.gguf has changed since the bundle was made" in blame.sentence


def test_a_file_that_only_changed_and_changed_nothing_is_not_blamed() -> None:
    changed = file_fault(kind="hash", name="mmproj-q8_0.gguf", layer=None)
    assert blamed(observations("x", evidence=evidence()), inquiry=files(changed)) == ()


def text_fault(**over: object) -> FileFault:
    text: dict[str, Any] = {
        "half": "text",
        "file": "text-q8_0.gguf",
        "name": "blk.0.attn_q.weight",
        "stage": "prefill",
        "layer": "text layer 0 attention",
    }
    return file_fault(**(text | over))


def test_two_faulty_files_are_two_blames() -> None:
    found = blamed(broken_embed(), inquiry=files(text_fault(), file_fault()))
    assert [(blame.stage, blame.layer, blame.cases) for blame in found] == [
        ("embed", "vision layer 1 ffn", 24),
        ("prefill", "text layer 0 attention", 24),
    ]


def test_a_text_tensor_does_not_explain_other_embeddings() -> None:
    found = blamed(broken_embed(), inquiry=files(text_fault()))
    assert [(blame.stage, blame.layer) for blame in found] == [
        ("embed", None),
        ("prefill", "text layer 0 attention"),
    ]


def test_a_fault_before_the_cause_takes_the_blame_where_noise_may_hide_it() -> None:
    mean = file_fault(kind="key", name="clip.vision.image_mean", stage="pixels", layer=None)
    slight = observations("x", evidence=evidence(pixels=0.0005, embed=0.07, prefill=0.3))
    (blame,) = blamed(slight, inquiry=files(mean))
    assert (blame.stage, blame.cases) == ("pixels", 24)


def test_a_key_explains_an_earlier_stage_of_its_half() -> None:
    edge = file_fault(kind="key", name="clip.vision.preproc_image_size", stage="pixels", layer=None)
    tiled = observations("x", grid=(2, 2), image_tokens=20, evidence=evidence(tokens=20))
    (blame,) = blamed(tiled, inquiry=files(edge))
    assert blame.stage == "tile"
    assert "clip.vision.preproc_image_size" in blame.sentence
    assert "2x2 tiles and 20 image tokens, where the reference has one tile and 4" in blame.sentence


def test_a_token_fault_shows_where_the_ids_differ() -> None:
    merged = text_fault(kind="token", name="Ġfire", stage="tokens", layer=None)
    (blame,) = blamed(observations("x", prompt_ids=[1, -1, -1, 9]), inquiry=files(merged))
    assert (blame.stage, blame.cases) == ("tokens", 24)
    (blame,) = blamed(observations("x", text="feu"), inquiry=files(merged))
    assert (blame.stage, blame.cases) == ("decode", 24)


def test_two_faulty_files_explain_what_fits_them_best() -> None:
    prefill = {i: {"evidence": evidence(prefill=0.3)} for i in range(8)}
    embed = {i: {"evidence": evidence(embed=0.5, prefill=0.3)} for i in range(8, 12)}
    found = blamed(mixed(prefill | embed, 12), inquiry=files(file_fault(), text_fault()))
    assert [(blame.stage, blame.cases) for blame in found] == [("prefill", 8), ("embed", 4)]


def test_a_remark_is_no_blame() -> None:
    remark = files(file_fault(kind="key", name="general.name", layer=None, remark=True))
    assert blamed(observations("x", evidence=evidence()), inquiry=remark) == ()
    (blame,) = blamed(broken_embed(), inquiry=remark)
    assert "general.name" not in blame.sentence


def unanswered_blame() -> Blame:
    return Blame(
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
    (blame,) = blamed([], inquiry=faults, unanswered=[unanswered_blame()])
    assert (blame.layer, blame.cases) == ("text layer 0 attention", 24)
    assert blame.sentence.startswith("It cannot answer: the logits are not finite. In ")
    assert "values that are not finite" in blame.sentence


def test_a_file_that_shows_later_than_answers_ended_is_a_blame_of_its_own() -> None:
    moved = files(text_fault(kind="token", name="eos", stage="decode", layer=None))
    found = blamed([], inquiry=moved, unanswered=[unanswered_blame()])
    assert found[0] == unanswered_blame()
    assert [(blame.stage, blame.cases) for blame in found[1:]] == [("decode", 0)]


# Driven layers


FAR = {"embed": 0.5, "prefill": 0.9}
"""Total distances beyond every limit."""


def test_a_driven_layer_beyond_its_limit_is_blamed_and_confirmed() -> None:
    broken = driven({"vision layer 1 ffn": 0.3}, {"vision layer 1 ffn": 0.2}, {})
    (blame,) = blamed(observations("x", evidence=evidence(**FAR)), inquiry=broken)
    assert (blame.stage, blame.layer, blame.confirmed) == ("embed", "vision layer 1 ffn", True)
    assert (blame.cases, blame.of, blame.systematic) == (2, 3, True)


def test_a_layer_is_blamed_though_no_answer_shows_it() -> None:
    (blame,) = blamed(
        observations("x", evidence=evidence()), inquiry=driven({"text layer 1 attention": 0.5})
    )
    assert (blame.stage, blame.layer, blame.cases) == ("prefill", "text layer 1 attention", 1)


def test_a_hop_whose_driven_layers_are_clean_has_no_drift_however_far_it_ends() -> None:
    moved = dict.fromkeys(("water", "land"), -1.0)
    seen = observations("x", evidence=evidence(**FAR), label_logprobs=moved)
    seen[3] = flipped("x", 3, evidence=evidence(**FAR))
    assert blamed(seen, inquiry=driven({}, {})) == ()
    elsewhere = driven({}, {"embed": 0.5}, hop="runtime")
    assert [blame.confirmed for blame in blamed(seen, inquiry=elsewhere)] == [None]


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
    seen = observations("x", **({"evidence": evidence(**FAR)} | changed))
    (blame,) = blamed(seen, inquiry=driven({}, {}))
    assert (blame.stage, blame.cases, blame.confirmed) == (stage, 24, True)
    found = blamed(seen, inquiry=driven({"text layer 0 attention": 0.5}))
    assert [(blame.stage, blame.confirmed) for blame in found] == [(stage, None), ("prefill", True)]


def test_a_leak_is_a_driven_fault_on_every_image_but_the_first() -> None:
    left = {"text layer 0 attention": 0.5}
    (blame,) = blamed(observations("x", evidence=evidence()), inquiry=driven({}, left, left))
    assert (blame.stage, blame.confirmed) == ("prefill", True)
    assert "as if something of the previous image were left" in blame.sentence


def test_what_is_no_number_after_a_layer_at_fault_follows_from_it() -> None:
    broken = evidence(**FAR, tokens=8)
    (blame,) = blamed(observations("x", evidence=broken), inquiry=driven({"vision norm": math.inf}))
    assert (blame.stage, blame.layer) == ("embed", "vision norm")


@pytest.mark.parametrize("layer", ["vision layer 1 ffn", "vision layer 2 attention"])
def test_a_faulty_file_and_a_faulty_layer_meet_in_one_blame(layer: str) -> None:
    (blame,) = blamed(
        observations("x", evidence=evidence(**FAR)),
        inquiry=driven({layer: 0.3}, files=[text_fault(remark=True), file_fault()]),
    )
    assert (blame.layer, blame.cases, blame.confirmed) == (layer, 1, True)
    assert "v.blk.1.ffn_down.weight" in blame.sentence
    assert ("(vision layer 1 ffn)" in blame.sentence) == (layer != "vision layer 1 ffn")


def test_a_tensor_before_a_layer_at_fault_does_not_explain_it() -> None:
    found = blamed(
        observations("x", evidence=evidence(**FAR)),
        inquiry=driven({"text layer 1 attention": 0.5}, files=[file_fault()]),
    )
    assert [(blame.stage, blame.layer, blame.cases) for blame in found] == [
        ("prefill", "text layer 1 attention", 1),
        ("embed", "vision layer 1 ffn", 0),
    ]


def parted(margin: float | None) -> Divergence:
    return Divergence(
        index=0, reference_id=10, candidate_id=11, reference_margin=margin, candidate_margin=None
    )


@pytest.mark.parametrize(
    ("margins", "stages"),
    [
        ((0.5, 0.5, 0.5), ["decode"]),
        ((None, 0.5, 0.01), ["decode"]),
        ((0.01, 0.01, 0.01), []),
        ((0.5, 0.01, 0.01), []),
    ],
)
def test_most_driven_answers_that_part_have_chosen_otherwise(
    margins: tuple[float | None, ...], stages: list[str]
) -> None:
    cases = [
        driven_case(HOPS["quantization"], index, divergence=parted(margin))
        for index, margin in enumerate(margins)
    ]
    seen = observations("x", evidence=evidence())
    found = blamed(seen, inquiry=Inquiry(driven=tuple(cases)))
    assert [blame.stage for blame in found] == stages
    assert all("3 driven cases" in blame.sentence for blame in found)


# What the arms were asked


def changed(base: str = "default", **parts: dict[str, Any]) -> Contract:
    asked = load(base)
    update = {
        name: getattr(asked, name).model_copy(update=values) for name, values in parts.items()
    }
    return asked.model_copy(update=update)


def trained_otherwise(training: Contract) -> Mapping[Who, Terms]:
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


def test_another_recipe_is_named_with_what_the_app_does_otherwise() -> None:
    under = trained_otherwise(changed(pixels={"recipe": "lanczos", "centring": "integer"}))
    (blame,) = blamed(observations("x", pixels_sha256="f" * 64), "contract", under=under)
    assert (blame.stage, blame.cases) == ("resize", 24)
    assert blame.sentence.startswith("The app resizes differently from training")
    assert "resize recipe android, not lanczos; centring float, not integer" in blame.sentence


def test_tiling_and_prompt_that_differ_with_the_recipe_are_causes_too() -> None:
    seen = observations(
        "x",
        pixels_sha256="f" * 64,
        grid=(4, 4),
        image_tokens=68,
        prompt_ids=[7, -1, -1, 2],
        evidence=evidence(tokens=68),
    )
    found = blamed(seen, "contract", under=trained_otherwise(load("as-trained")))
    assert [blame.stage for blame in found] == ["resize", "tile", "tokens", "decode"]
    assert found[-1].cases == 0
    assert "new tokens at most 32, not 128" in found[-1].sentence


def test_settings_that_differ_are_blamed_though_no_token_changed() -> None:
    hot = load("default").decoding.model_copy(update={"temperature": 0.7})
    under = phone_given(attested=settings(decoding=hot))
    (blame,) = blamed(observations("x", evidence=evidence()), "platform", under=under)
    assert (blame.phone, blame.stage, blame.cases) == ("PHONE1", "decode", 0)
    assert "the phone samples at temperature 0.7, the reference is greedy" in blame.sentence


def test_settings_that_differ_explain_other_tokens_beside_another_cause() -> None:
    under = phone_given(attested=settings(max_tokens=8))
    seen = observations("x", tokens=[token(3)], text="fire", evidence=evidence(embed=0.5))
    found = blamed(seen, "platform", under=under)
    assert [(blame.stage, blame.cases) for blame in found] == [("embed", 24), ("decode", 24)]


def test_a_cache_type_is_named_and_no_cause() -> None:
    under = phone_given(attested=settings(cache_type_k="q8_0"))
    (blame,) = blamed(observations("x", evidence=evidence(prefill=0.5)), "platform", under=under)
    assert blame.stage == "prefill"
    assert "K cache q8_0, not q4_0" in blame.sentence
    assert blamed(observations("x", evidence=evidence()), "platform", under=under) == ()


def test_the_phones_own_bundle_comes_in_on_the_platform_hop() -> None:
    other = BundleRecord(path="other", sha256="o" * 64, summary={})
    theirs = files(file_fault(owner="phone bundle"))
    (blame,) = blamed(broken_embed(), "platform", theirs, phone_given(PhoneSide(bundle=other)))
    assert (blame.hop, blame.layer) == ("platform", "vision layer 1 ffn")
    assert blamed(observations("x", evidence=evidence()), "quantization", theirs) == ()


def test_a_fault_of_the_runs_bundle_is_not_blamed_on_a_phone_that_reads_the_same() -> None:
    assert blamed(
        observations("x", evidence=evidence()), "platform", files(file_fault()), phone_given()
    ) == ()  # fmt: skip


def test_single_flips_without_any_other_difference_are_blamed_on_decoding() -> None:
    seen = mixed({3: {"tokens": [token(3)], "text": "fire", "label": "fire"}})
    (blame,) = blamed(seen)
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
    seen = mixed(dict(enumerate(changes)), len(changes))
    found = blamed(seen)
    assert bool(found) == any(change for change in changes)
    assert len({blame.stage for blame in found}) == len(found)
    for blame in found:
        assert 1 <= blame.cases <= blame.of == len(changes)
        assert blame.sentence.endswith(".")
    assert list(found) == sorted(found, key=lambda blame: not blame.systematic)
