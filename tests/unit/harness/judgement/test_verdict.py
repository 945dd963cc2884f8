"""What a run is worth: PASS, FAIL, INCONCLUSIVE or INFRA, and what is said of it."""

import json
import math
from typing import Any

import pytest

from harness import gates_file
from harness.judgement.gate import GateResult
from harness.judgement.verdict import Verdict, judge
from harness.records.inquiry import FileFault, Inquiry
from harness.records.observation import Conditions, Observation
from harness.records.record import ArmFailure, CaseRecord, RefusedRecord, RunRecord, Sampling, Stop

from ..run_factory import (
    LABELS,
    attestation,
    case_records,
    driven_case,
    evidence,
    fault,
    flipped,
    floor,
    observation,
    observations,
    phone_record,
    run_record,
    timings,
)

ARMS = ("torch", "desktop:f16", "desktop:q8_0", "desktop:q8_0+app", "phone:q8_0+app")
PHONE_ARM = ARMS[-1]
MEMORY = Conditions(memory_peak_kib=500 * 1024)
N = 72
"""As many cases as the sequential test takes where none flips."""


def of_phone(*serials: str, virtual: bool = False, n: int = N, **over: object) -> RunRecord:
    phones = [phone_record(serial, virtual=virtual) for serial in serials or ("PHONE1",)]
    return run_record(ARMS, phones, **({"cases": case_records(n)} | over))


def host(n: int = N) -> list[Observation]:
    return [seen for arm in ARMS[:-1] for seen in observations(arm, n)]


def on_phone(serial: str = "PHONE1", n: int = N, **over: object) -> list[Observation]:
    return observations(PHONE_ARM, n, phone=serial, **({"conditions": MEMORY} | over))


def gate(verdict: Verdict, name: str, arm: str = PHONE_ARM) -> GateResult:
    (found,) = [item for item in verdict.gates if item.name == name and item.arm == arm]
    return found


def failed(verdict: Verdict) -> set[str]:
    return {item.name for item in verdict.gates if item.outcome == "fail"}


def test_a_clean_run_passes_as_soon_as_the_test_can_decide() -> None:
    verdict = judge(of_phone(), host() + on_phone(evidence=evidence()))
    assert (verdict.verdict, verdict.exit_code) == ("PASS", 0)
    assert [hop.name for hop in verdict.hops] == [
        "conversion",
        "quantization",
        "runtime",
        "platform",
    ]
    assert gate(verdict, "agreement").why == (
        "decided after 72 images without a real flip (plan: accept 0.98, reject 0.94, errors "
        "0.050 and 0.050, at most 342 images)"
    )
    assert failed(verdict) == set()


def test_a_clean_run_of_24_cases_decides_nothing() -> None:
    verdict = judge(run_record(), observations("torch") + observations("desktop:f16"))
    assert verdict.verdict == "INCONCLUSIVE"


def trained(n: int = N, **over: object) -> list[Observation]:
    """What `torch:training` said, with other pixels, tiles and prompt than the arms below."""
    other = {"pixels_sha256": "t" * 64, "grid": (2, 2), "image_tokens": 20, "prompt_ids": [7, -1]}
    return observations("torch:training", n, **(other | over))


def of_training() -> RunRecord:
    return run_record(("torch:training", "torch"), cases=case_records(N))


def test_other_input_in_training_is_a_drift_of_the_contract_hop_that_no_gate_fails() -> None:
    verdict = judge(of_training(), trained() + observations("torch", N))
    (hop,) = verdict.hops
    assert (hop.name, hop.drift, hop.blame) == ("contract", True, "resize")
    assert verdict.verdict == "PASS"
    assert verdict.blames == hop.blames
    assert {item.name for item in verdict.gates if item.hop} == {
        "agreement",
        "session_agreement",
        "numeric_flips",
    }


def test_answers_that_training_would_have_given_otherwise_fail_the_contract_hop() -> None:
    flips = [flipped("torch", index) for index in range(4)]
    verdict = judge(of_training(), trained() + flips + observations("torch", N)[4:])
    assert verdict.verdict == "FAIL"
    assert gate(verdict, "agreement", "torch").outcome == "fail"
    assert verdict.reasons[0] == verdict.hops[0].blames[0].sentence
    assert any(reason.startswith("agreement (contract") for reason in verdict.reasons)


def test_verdict_json_has_the_fields_people_read() -> None:
    verdict = judge(of_phone(), host() + on_phone(prompt_ids=[1]))
    document = json.loads(verdict.model_dump_json())
    assert document["verdict"] == "FAIL"
    assert (
        document["hops"][0].items()
        >= {
            "name": "conversion",
            "reference": "torch",
            "candidate": "desktop:f16",
            "cases": N,
            "agreement": 1.0,
        }.items()
    )
    (blame,) = document["blames"]
    assert blame.keys() >= {"hop", "stage", "layer", "cases", "sentence", "confirmed"}
    assert (blame["hop"], blame["phone"], blame["stage"]) == ("platform", "PHONE1", "tokens")
    assert document["plan"].items() >= {"kind": "sequential", "most": 342, "clean": N}.items()
    assert Verdict.model_validate(document) == verdict


def test_session_agreement_is_a_gate_beside_image_agreement() -> None:
    verdict = judge(of_phone(), host() + on_phone())
    held = gate(verdict, "session_agreement")
    assert (held.hop, held.outcome, held.measured) == ("platform", "pass", 1.0)
    assert held.limit == pytest.approx(0.94**3)
    document = json.loads(verdict.model_dump_json())["hops"][0]
    assert document["sessions"] == 24
    assert document["session_agreement"].items() >= {"count": 24, "of": 24}.items()


def test_flips_that_each_spoil_another_session_fail_where_images_alone_would_pass() -> None:
    record = run_record(("desktop:q8_0", "desktop:q8_0+app"), cases=case_records(102))
    reference, arm = observations("desktop:q8_0", 102), "desktop:q8_0+app"
    gates = gates_file.load()
    runtime = gates.hops.runtime.model_copy(
        update={"accept": 0.9, "reject": 0.8, "min_session_agreement": 0.95}
    )
    lax = gates.model_copy(update={"hops": gates.hops.model_copy(update={"runtime": runtime})})

    def judged(*places: int) -> dict[str, str]:
        candidate = observations(arm, 102)
        for place in places:
            candidate[place] = flipped(arm, place)
        verdict = judge(record, reference + candidate, gates=lax)
        return {item.name: item.outcome for item in verdict.gates if item.hop}

    assert judged(7)["session_agreement"] == "pass"
    together, apart = judged(*range(60, 66)), judged(*range(60, 78, 3))
    assert (together["agreement"], together["session_agreement"]) == ("pass", "pass")
    assert (apart["agreement"], apart["session_agreement"]) == ("pass", "fail")


def test_real_flips_on_the_phone_fail_and_are_blamed_where_the_logits_are_the_same() -> None:
    def judged(**above: object) -> Verdict:
        seen = on_phone(evidence=evidence())
        seen[0:15:3] = [
            flipped(PHONE_ARM, i, "PHONE1", conditions=MEMORY, evidence=evidence())
            for i in range(0, 15, 3)
        ]
        runtime = observations(ARMS[-2], N, **above)
        return judge(of_phone(), host()[:-N] + runtime + seen)

    told, untold = judged(evidence=evidence()), judged()
    assert (told.verdict, told.exit_code) == (untold.verdict, untold.exit_code) == ("FAIL", 1)
    assert told.reasons[0] == told.hops[-1].blames[0].sentence
    assert told.reasons[1:] == untold.reasons
    assert untold.reasons[0].startswith("agreement (platform, desktop:q8_0+app -> phone")


def test_numeric_flips_do_not_fail_and_one_real_flip_only_asks_for_more_images() -> None:
    close, measured = {"water": -0.69, "fire": -0.70}, Inquiry(floors=(floor("desktop:q8_0"),))
    record = run_record(("desktop:q8_0", "phone:q8_0"), [phone_record()], cases=case_records(N))
    reference = observations("desktop:q8_0", N, label_logprobs=close)
    phone = observations("phone:q8_0", N, "PHONE1", label_logprobs=close, conditions=MEMORY)
    phone[0] = flipped("phone:q8_0", 0, "PHONE1", label_logprobs=close, conditions=MEMORY)
    verdict = judge(record, reference + phone, measured)
    assert verdict.verdict == "PASS"
    assert "72 of 72 cases are coin tosses, within 0.03 nats" in verdict.notes[0]
    assert "1 numeric flip in 72 cases" in gate(verdict, "numeric_flips", "phone:q8_0").why
    reference[0] = observation("desktop:q8_0", 0)
    phone[0] = flipped("phone:q8_0", 0, "PHONE1", conditions=MEMORY)
    verdict = judge(record, reference + phone, measured)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "27 more images without a flip would decide" in verdict.reasons[0]


def test_too_many_numeric_flips_fail() -> None:
    close, measured = {"water": -0.69, "fire": -0.70}, Inquiry(floors=(floor("desktop:q8_0"),))
    record = run_record(("desktop:q8_0", "phone:q8_0"), [phone_record()], cases=case_records(N))
    reference = observations("desktop:q8_0", N, label_logprobs=close)
    over = {"label_logprobs": close, "conditions": MEMORY}
    phone = [flipped("phone:q8_0", index, "PHONE1", **over) for index in range(20)]
    phone += observations("phone:q8_0", N, "PHONE1", **over)[20:]
    verdict = judge(record, reference + phone, measured)
    assert gate(verdict, "agreement", "phone:q8_0").outcome == "pass"
    assert gate(verdict, "numeric_flips", "phone:q8_0").outcome == "fail"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"pixels_sha256": "f" * 64}, "resize"),
        ({"grid": (2, 2)}, "tile"),
        ({"image_tokens": 8}, "tile"),
        ({"evidence": evidence(pixels=0.1)}, "pixels"),
        ({"evidence": evidence(embed=0.2)}, "embed"),
        ({"prompt_ids": [1]}, "tokens"),
        ({"evidence": evidence(prefill=0.2)}, "prefill"),
        ({"label_logprobs": LABELS | {"wood": -5.2}}, "prefill"),
        ({"label_logprobs": LABELS | {"wood": math.nan}}, "prefill"),
    ],
)
def test_each_stage_fails_by_itself_and_is_blamed_with_every_word_unchanged(
    changed: dict[str, Any], expected: str
) -> None:
    above = [seen for arm in ARMS[:-1] for seen in observations(arm, N, evidence=evidence())]
    seen = above + on_phone(**({"evidence": evidence()} | changed))
    verdict = judge(of_phone(), seen, Inquiry(floors=(floor(),)))
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {"blame", expected}
    assert [blame.stage for blame in verdict.blames] == [expected]
    assert verdict.reasons == (verdict.blames[0].sentence,)


def on_platform(errors: dict[str, float]) -> Inquiry:
    return Inquiry(driven=(driven_case(of_phone().hops[-1], 0, errors),))


def test_a_hop_of_clean_layers_passes_and_says_its_price() -> None:
    far = {"label_logprobs": LABELS | {"wood": -5.5}, "evidence": evidence(prefill=0.5)}
    clean = on_platform({"text layer 2 attention": 0.008})
    verdict = judge(of_phone(), host() + on_phone(**far), clean)
    assert verdict.verdict == "PASS"
    assert verdict.notes == (
        "platform on PHONE1: every layer is clean; its rounding costs 0.1 nats on average (0.5 at "
        "most) and 0 flips in 72 cases, most of it at text layer 2 attention",
    )
    unmeasured = of_phone()
    table = unmeasured.gates.driven.model_copy(update={"platform_cache": {}})
    held = unmeasured.gates.model_copy(update={"driven": table})
    assert judge(unmeasured, host() + on_phone(**far), clean, held).notes == ()


def test_a_driven_layer_beyond_its_limit_fails_with_every_word_unchanged() -> None:
    verdict = judge(of_phone(), host() + on_phone(), on_platform({"text layer 1 ffn": 0.4}))
    assert (verdict.verdict, failed(verdict)) == ("FAIL", {"blame", "prefill"})
    (blame,) = verdict.blames
    assert (blame.hop, blame.phone, blame.layer) == ("platform", "PHONE1", "text layer 1 ffn")
    assert verdict.reasons == (blame.sentence,)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"conditions": Conditions(memory_peak_kib=3 * 1024 * 1024)}, "memory_mib"),
        ({"timings_ms": timings(9000.0)}, "session_s"),
    ],
)
def test_what_the_phone_took_fails_by_itself(changed: dict[str, Any], expected: str) -> None:
    verdict = judge(of_phone(), host() + on_phone(**changed))
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {expected}


def test_a_faulty_file_that_no_case_shows_fails_with_its_blame() -> None:
    found = FileFault(
        half="text",
        quant="q8_0",
        file="text-q8_0.gguf",
        kind="tensor",
        name="blk.3.ffn_up.weight",
        stage="prefill",
        layer="text layer 3 ffn",
        detail="is q2_k where the other layers' are q8_0",
    )
    verdict = judge(of_phone(), host() + on_phone(), Inquiry(files=(found,)))
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {"blame"}
    assert verdict.reasons == tuple(blame.sentence for blame in verdict.blames)
    assert verdict.blames[0].layer == "text layer 3 ffn"


def test_three_images_decide_nothing() -> None:
    record = run_record(cases=case_records(3))
    seen = observations("torch", 3) + observations("desktop:f16", 3)
    verdict = judge(record, seen)
    assert (verdict.verdict, verdict.exit_code) == ("INCONCLUSIVE", 3)
    (reason,) = verdict.reasons
    assert "3 images without a real flip" in reason
    assert "69 more images without a flip would decide" in reason


def test_hops_that_lack_the_same_evidence_share_a_line() -> None:
    arms = ("torch", "desktop:f16", "desktop:q8_0")
    record = run_record(arms, cases=case_records(3))
    verdict = judge(record, [one for arm in arms for one in observations(arm, 3)])
    (reason,) = verdict.reasons
    assert reason.startswith("agreement (conversion, quantization): ")


def test_three_images_that_all_flip_fail_all_the_same() -> None:
    record = run_record(cases=case_records(3))
    wrong = [flipped("desktop:f16", index) for index in range(3)]
    assert judge(record, observations("torch", 3) + wrong).verdict == "FAIL"


def test_what_comes_after_the_decision_counts_only_where_it_leaves_no_doubt() -> None:
    record = run_record(cases=case_records(180))
    few, many = observations("desktop:f16", 180), observations("desktop:f16", 180)
    few[75] = flipped("desktop:f16", 75)
    many[75:105] = [flipped("desktop:f16", index) for index in range(75, 105)]
    passed = judge(record, observations("torch", 180) + few)
    assert passed.verdict == "PASS"
    held = gate(passed, "agreement", "desktop:f16")
    assert "decided after 72 images" in held.why
    assert "1 real flip in all 180 images" in held.why
    verdict = judge(record, observations("torch", 180) + many)
    assert gate(verdict, "agreement", "desktop:f16").outcome == "fail"


@pytest.mark.parametrize(
    ("n", "flips", "word"),
    [(N, 0, "PASS"), (N, 2, "INCONCLUSIVE"), (N, 5, "FAIL"), (24, 0, "INCONCLUSIVE")],
)
def test_a_fixed_sample_is_held_against_its_own_plan(n: int, flips: int, word: str) -> None:
    record = run_record(cases=case_records(n), sampling=Sampling(fixed=n))
    below = observations("desktop:f16", n)
    below[: 3 * flips : 3] = [flipped("desktop:f16", 3 * index) for index in range(flips)]
    verdict = judge(record, observations("torch", n) + below)
    assert verdict.verdict == word
    assert f"{n} images, fixed" in gate(verdict, "agreement", "desktop:f16").why
    assert verdict.plan is not None
    assert (verdict.plan.kind, verdict.plan.most) == ("fixed", n)


def test_a_fixed_sample_is_decided_early_only_where_the_rest_cannot_change_it() -> None:
    record = run_record(cases=case_records(N), sampling=Sampling(fixed=N))
    clean = judge(record, observations("torch", N) + observations("desktop:f16", N)[:60])
    assert gate(clean, "agreement", "desktop:f16").outcome == "inconclusive"
    wrong = [flipped("desktop:f16", index) for index in range(0, 15, 3)]
    assert judge(record, observations("torch", N) + wrong).verdict == "FAIL"


def test_a_virtual_phones_time_and_memory_are_not_judged() -> None:
    slow = on_phone(timings_ms=timings(90000.0), conditions=Conditions(memory_peak_kib=2**23))
    verdict = judge(of_phone(virtual=True), host() + slow)
    assert verdict.verdict == "PASS"
    assert gate(verdict, "session_s").outcome == "not judged"
    assert gate(verdict, "session_s").measured == pytest.approx(270.0)
    assert gate(verdict, "memory_mib").outcome == "not judged"
    assert any("virtual" in note for note in verdict.notes)


def test_a_phone_that_was_throttled_throughout_leaves_its_time_undecided() -> None:
    hot = on_phone(conditions=MEMORY.model_copy(update={"throttled": True}))
    verdict = judge(of_phone(), host() + hot)
    assert verdict.verdict == "INCONCLUSIVE"
    why = gate(verdict, "session_s").why
    assert "72 throttled images left out" in why
    assert "22 more within the limit would decide" in why


def test_a_few_slow_sessions_ask_for_more_of_them() -> None:
    seen = on_phone()
    seen[:3] = [
        observation(PHONE_ARM, i, "PHONE1", timings_ms=timings(9000.0), conditions=MEMORY)
        for i in range(3)
    ]
    held = gate(judge(of_phone(), host() + seen), "session_s")
    assert held.outcome == "inconclusive"
    assert "14 more sessions within the limit would decide" in held.why


def test_a_case_without_an_answer_fails() -> None:
    broken = observation(PHONE_ARM, 0, "PHONE1", error=fault("context_full"), conditions=MEMORY)
    verdict = judge(of_phone(), [*host(), broken, *on_phone()[1:]])
    assert verdict.verdict == "FAIL"
    assert gate(verdict, "errors").why == "1 of 72 cases without an answer (context_full)"


def test_a_phone_that_could_not_deliver_is_infra_and_says_why() -> None:
    failure = ArmFailure(
        arm=PHONE_ARM, phone="PHONE1", kind="ConnectionLost", detail="PHONE1: the cable moved"
    )
    verdict = judge(of_phone(failures=(failure,)), host() + on_phone()[:6])
    assert (verdict.verdict, verdict.exit_code) == ("INFRA", 4)
    assert verdict.reasons == (
        "phone:q8_0+app on PHONE1: 66 of 72 observations missing: PHONE1: the cable moved",
    )


def test_a_phone_that_needed_no_more_images_owes_none() -> None:
    stop = Stop(arm=PHONE_ARM, phone="PHONE1", images=N, why="its agreement is decided")
    record = of_phone(n=102, stops=(stop,))
    verdict = judge(record, host(102) + on_phone())
    assert verdict.verdict == "PASS"
    assert (
        "phone:q8_0+app on PHONE1 stopped after 72 images: its agreement is decided"
        in verdict.notes
    )
    short = judge(record, host(102) + on_phone()[:60])
    assert [(one.missing, one.of) for one in short.undelivered] == [(12, N)]


def canary_records() -> tuple[CaseRecord, ...]:
    return (
        CaseRecord(
            id="black",
            path="",
            label=None,
            session=N // 3,
            position=0,
            pixels_sha256="0" * 64,
            canary="black",
        ),
    )


def a_canary(arm: str, phone: str | None = None, **over: object) -> Observation:
    return observation(
        arm, N, phone, **({"canary": "black", "case_id": "black", "conditions": MEMORY} | over)
    )


def test_canaries_are_owed_by_the_arms_that_run_as_the_app_does_and_judged_as_no_case() -> None:
    record = of_phone(canaries=canary_records())
    there = [
        a_canary(ARMS[-2], text="fire", label="fire"),
        a_canary(PHONE_ARM, "PHONE1", text="metal", label="metal"),
    ]
    verdict = judge(record, host() + on_phone() + there)
    assert {hop.cases for hop in verdict.hops} == {N}
    assert verdict.hops[-1].agreement == 1.0
    assert not verdict.undelivered
    owing = judge(record, host() + on_phone() + there[:1]).undelivered
    assert [(one.arm, one.missing, one.of) for one in owing] == [(PHONE_ARM, 1, N + 1)]


def test_a_canary_that_fails_on_the_phone_fails_the_release_and_is_kept() -> None:
    """The phone answers a black picture as it answers the photographs."""
    there = [
        a_canary(ARMS[-2], label_logprobs=LABELS | {"land": -1.0}),
        a_canary(PHONE_ARM, "PHONE1"),
    ]
    verdict = judge(of_phone(canaries=canary_records()), host() + on_phone() + there)
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {"canary"}
    assert gate(verdict, "canary").outcome == "fail"
    assert gate(verdict, "canary").why.startswith("black: ")
    kept = {(one.arm, one.name): one.outcome for one in verdict.canaries}
    assert kept[PHONE_ARM, "black"] == "fail"


def test_an_arm_that_ran_no_canaries_is_not_judged_by_them() -> None:
    verdict = judge(of_phone(), host() + on_phone())
    assert gate(verdict, "canary").outcome == "not judged"
    assert [item.arm for item in verdict.gates if item.name == "canary"] == [ARMS[-2], PHONE_ARM]


def test_a_silent_fallback_fails_and_names_what_was_asked_for() -> None:
    attested = attestation("desktop:f16", llama_commit="another", backends=["CPU"])
    record = run_record(cases=case_records(N), attestations=(attested,))
    verdict = judge(record, observations("torch", N) + observations("desktop:f16", N))
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {"attestation"}
    assert "llama.cpp commit: asked for" in gate(verdict, "attestation", "desktop:f16").why
    assert "ran another" in gate(verdict, "attestation", "desktop:f16").why
    assert gate(verdict, "attestation", "torch").outcome == "not judged"
    assert [one.what for one in verdict.mismatches] == ["llama.cpp commit"]


def test_a_run_that_was_killed_is_infra_until_it_is_repeated() -> None:
    verdict = judge(run_record(), observations("torch"))
    assert verdict.verdict == "INFRA"
    assert "repeat its command" in verdict.reasons[0]


def test_a_proven_failure_stays_one_when_another_phone_vanished() -> None:
    wrong = [flipped(PHONE_ARM, index, "A") for index in range(N)]
    assert judge(of_phone("A", "B"), host() + wrong).verdict == "FAIL"


def test_a_failure_that_was_made_good_does_not_count() -> None:
    failure = ArmFailure(arm=PHONE_ARM, phone="PHONE1", kind="ConnectionLost", detail="once")
    assert judge(of_phone(failures=(failure,)), host() + on_phone()).verdict == "PASS"


def test_one_arm_alone_is_inconclusive() -> None:
    verdict = judge(run_record(("torch",)), observations("torch"))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "nothing to compare" in verdict.reasons[0]
    assert verdict.plan is None


def test_a_reference_that_never_says_a_label_proves_nothing() -> None:
    mute = {"text": "hm", "label": None}
    record = run_record(cases=case_records(N))
    verdict = judge(
        record, observations("torch", N, **mute) + observations("desktop:f16", N, **mute)
    )
    assert verdict.verdict == "INCONCLUSIVE"
    assert "holds a label" in verdict.reasons[0]


def test_a_proven_loss_of_accuracy_fails_and_too_few_labels_claim_nothing() -> None:
    few = run_record(cases=case_records(24, label="water"))
    verdict = judge(few, observations("torch") + observations("desktop:f16"))
    assert gate(verdict, "accuracy", "desktop:f16").outcome == "not judged"
    assert verdict.accuracy_losses[0].claim == "inconclusive"
    assert (
        "accuracy of desktop:f16: INCONCLUSIVE, 24 labelled cases carry no claim, "
        "46 more would at this rate" in verdict.notes
    )
    assert verdict.confusions[0].counts[0][0] == 24
    many = run_record(cases=case_records(N, label="water"))
    wrong = [flipped("desktop:f16", index) for index in range(N)]
    verdict = judge(many, observations("torch", N) + wrong)
    assert gate(verdict, "accuracy", "desktop:f16").outcome == "fail"


def test_notes_say_that_no_phone_took_part_and_what_was_refused() -> None:
    refused = (RefusedRecord(path="x.png", kind="truncated", detail="half a file"),)
    seen = observations("torch") + observations("desktop:f16")
    verdict = judge(run_record(refused=refused), seen)
    assert verdict.notes == ("no phone took part", "1 image refused and left out")
