"""What a run is worth: PASS, FAIL, INCONCLUSIVE or INFRA, and what is said of it."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from driftloop.harness import gates_file
from driftloop.harness.judgement.gate import GateResult
from driftloop.harness.judgement.verdict import Verdict, judge
from driftloop.harness.records.inquiry import FileFault, Inquiry
from driftloop.harness.records.observation import Conditions, Observation
from driftloop.harness.records.record import (
    ArmFailure,
    CaseRecord,
    RefusedRecord,
    RunRecord,
    Sampling,
    Stop,
)

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
DESKTOP = "desktop:f16"
MEMORY = Conditions(memory_peak_kib=500 * 1024)
N = 72
"""As many cases as the sequential test takes where none flips."""


def of_phone(*serials: str, virtual: bool = False, n: int = N, **over: object) -> RunRecord:
    phones = [phone_record(serial, virtual=virtual) for serial in serials or ("PHONE1",)]
    return run_record(ARMS, phones, **({"cases": case_records(n)} | over))


def host(n: int = N, **over: object) -> list[Observation]:
    return [seen for arm in ARMS[:-1] for seen in observations(arm, n, **over)]


def on_phone(serial: str = "PHONE1", n: int = N, **over: object) -> list[Observation]:
    return observations(PHONE_ARM, n, phone=serial, **({"conditions": MEMORY} | over))


def desktop(flips: Sequence[int] = (), n: int = N) -> list[Observation]:
    """The desktop's answers, of which those at `flips` are other words."""
    seen = observations(DESKTOP, n)
    for index in flips:
        seen[index] = flipped(DESKTOP, index)
    return seen


def judged(candidate: list[Observation], n: int = N, **over: object) -> Verdict:
    """Of torch and the desktop over `n` cases."""
    record = run_record(**({"cases": case_records(n)} | over))
    return judge(record, observations("torch", n) + candidate)


def gate(verdict: Verdict, name: str, arm: str = PHONE_ARM) -> GateResult:
    (found,) = [item for item in verdict.gates if item.name == name and item.arm == arm]
    return found


def failed(verdict: Verdict) -> set[str]:
    return {item.name for item in verdict.gates if item.outcome == "fail"}


def test_a_clean_run_passes_as_soon_as_the_test_can_decide() -> None:
    verdict = judge(of_phone(), host() + on_phone(evidence=evidence()))
    assert (verdict.verdict, verdict.exit_code) == ("PASS", 0)
    hops = ["conversion", "quantization", "runtime", "platform"]
    assert [hop.name for hop in verdict.hops] == hops
    assert gate(verdict, "agreement").why == (
        "decided after 72 images without a real flip (plan: accept 0.98, reject 0.94, errors "
        "0.050 and 0.050, at most 342 images)"
    )
    assert failed(verdict) == set()
    sessions = gate(verdict, "session_agreement")
    assert (sessions.hop, sessions.outcome, sessions.measured) == ("platform", "pass", 1.0)
    assert sessions.limit == pytest.approx(0.94**3)
    document = json.loads(verdict.model_dump_json())["hops"][0]
    assert document["sessions"] == 24
    assert document["session_agreement"].items() >= {"count": 24, "of": 24}.items()
    # An arm that ran no canaries is not judged by them.
    assert gate(verdict, "canary").outcome == "not judged"
    assert [item.arm for item in verdict.gates if item.name == "canary"] == [ARMS[-2], PHONE_ARM]


def trained() -> list[Observation]:
    """What `torch:training` said, with other pixels, tiles and prompt than the arms below."""
    other = {"pixels_sha256": "t" * 64, "grid": (2, 2), "image_tokens": 20, "prompt_ids": [7, -1]}
    return observations("torch:training", N, **other)


OF_TRAINING = run_record(("torch:training", "torch"), cases=case_records(N))


def test_other_input_in_training_is_a_drift_of_the_contract_hop_that_no_gate_fails() -> None:
    verdict = judge(OF_TRAINING, trained() + observations("torch", N))
    (hop,) = verdict.hops
    assert (hop.name, hop.drift, hop.blame) == ("contract", True, "resize")
    assert verdict.verdict == "PASS"
    assert verdict.blames == hop.blames
    gates = {item.name for item in verdict.gates if item.hop}
    assert gates == {"agreement", "session_agreement", "numeric_flips"}


def test_answers_that_differ_from_training_fail_the_contract_hop() -> None:
    flips = [flipped("torch", index) for index in range(4)]
    verdict = judge(OF_TRAINING, trained() + flips + observations("torch", N)[4:])
    assert verdict.verdict == "FAIL"
    assert gate(verdict, "agreement", "torch").outcome == "fail"
    assert verdict.reasons[0] == verdict.hops[0].blames[0].sentence
    assert any(reason.startswith("agreement (contract") for reason in verdict.reasons)


def test_verdict_json_has_the_fields_people_read() -> None:
    verdict = judge(of_phone(), host() + on_phone(prompt_ids=[1]))
    document = json.loads(verdict.model_dump_json())
    assert document["verdict"] == "FAIL"
    first = {"name": "conversion", "reference": "torch", "candidate": DESKTOP, "cases": N}
    assert document["hops"][0].items() >= (first | {"agreement": 1.0}).items()
    (blame,) = document["blames"]
    assert blame.keys() >= {"hop", "stage", "layer", "cases", "sentence", "confirmed"}
    assert (blame["hop"], blame["phone"], blame["stage"]) == ("platform", "PHONE1", "tokens")
    assert document["plan"].items() >= {"kind": "sequential", "most": 342, "clean": N}.items()
    assert Verdict.model_validate(document) == verdict


def test_flips_that_each_spoil_another_session_fail_where_images_alone_would_pass() -> None:
    gates, own = gates_file.load(), {"accept": 0.9, "reject": 0.8, "min_session_agreement": 0.95}
    hops = {"conversion": gates.hops.conversion.model_copy(update=own)}
    lax = gates.model_copy(update={"hops": gates.hops.model_copy(update=hops)})

    def outcomes(*places: int) -> dict[str, str]:
        verdict = judged(desktop(places, 102), 102, gates=lax)
        return {item.name: item.outcome for item in verdict.gates if item.hop}

    assert outcomes(7)["session_agreement"] == "pass"
    together, apart = outcomes(*range(60, 66)), outcomes(*range(60, 78, 3))
    assert (together["agreement"], together["session_agreement"]) == ("pass", "pass")
    assert (apart["agreement"], apart["session_agreement"]) == ("pass", "fail")


def test_real_flips_on_the_phone_fail_and_are_blamed_where_the_logits_are_the_same() -> None:
    def with_flips(**above: object) -> Verdict:
        seen = on_phone(evidence=evidence())
        same = {"conditions": MEMORY, "evidence": evidence()}
        seen[0:15:3] = [flipped(PHONE_ARM, i, "PHONE1", **same) for i in range(0, 15, 3)]
        return judge(of_phone(), host()[:-N] + observations(ARMS[-2], N, **above) + seen)

    known, unknown = with_flips(evidence=evidence()), with_flips()
    assert (known.verdict, known.exit_code) == (unknown.verdict, unknown.exit_code) == ("FAIL", 1)
    assert known.reasons[0] == known.hops[-1].blames[0].sentence
    assert known.reasons[1:] == unknown.reasons
    assert unknown.reasons[0].startswith("agreement (platform, desktop:q8_0+app -> phone")


CLOSE = {"label_logprobs": {"water": -0.69, "fire": -0.70}}


def undecided(flips: int, sure: Sequence[int] = ()) -> Verdict:
    """On a phone with a known floor, where the reference is undecided in every case but `sure`."""
    record = run_record(("desktop:q8_0", "phone:q8_0"), [phone_record()], cases=case_records(N))
    reference = observations("desktop:q8_0", N, **CLOSE)
    over = CLOSE | {"conditions": MEMORY}
    phone = observations("phone:q8_0", N, "PHONE1", **over)
    phone[:flips] = [flipped("phone:q8_0", index, "PHONE1", **over) for index in range(flips)]
    for index in sure:
        reference[index] = observation("desktop:q8_0", index)
        phone[index] = flipped("phone:q8_0", index, "PHONE1", conditions=MEMORY)
    return judge(record, reference + phone, Inquiry(floors=(floor("desktop:q8_0"),)))


def test_numeric_flips_do_not_fail_and_one_real_flip_only_asks_for_more_images() -> None:
    verdict = undecided(flips=1)
    assert verdict.verdict == "PASS"
    assert "72 of 72 cases are coin tosses, within 0.03 nats" in verdict.notes[0]
    assert "1 numeric flip in 72 cases" in gate(verdict, "numeric_flips", "phone:q8_0").why
    verdict = undecided(flips=20)
    assert gate(verdict, "agreement", "phone:q8_0").outcome == "pass"
    assert gate(verdict, "numeric_flips", "phone:q8_0").outcome == "fail", "too many"
    verdict = undecided(flips=0, sure=[0])
    assert verdict.verdict == "INCONCLUSIVE"
    assert "27 more images without a flip would decide" in verdict.reasons[0]


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
    seen = host(evidence=evidence()) + on_phone(**({"evidence": evidence()} | changed))
    verdict = judge(of_phone(), seen, Inquiry(floors=(floor(),)))
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {"blame", expected}
    assert [blame.stage for blame in verdict.blames] == [expected]
    assert verdict.reasons == (verdict.blames[0].sentence,)


def on_platform(errors: dict[str, float]) -> Inquiry:
    return Inquiry(driven=(driven_case(of_phone().hops[-1], 0, errors),))


def test_a_hop_of_clean_layers_passes_and_says_its_price() -> None:
    far = on_phone(label_logprobs=LABELS | {"wood": -5.5}, evidence=evidence(prefill=0.5))
    clean = on_platform({"text layer 2 attention": 0.008})
    verdict = judge(of_phone(), host() + far, clean)
    assert verdict.verdict == "PASS"
    assert verdict.notes == (
        "platform on PHONE1: every layer is clean; its rounding costs 0.1 nats on average (0.5 at "
        "most) and 0 flips in 72 cases, most of it at text layer 2 attention",
    )
    unmeasured = of_phone()
    table = unmeasured.gates.driven.model_copy(update={"platform_cache": {}})
    gates = unmeasured.gates.model_copy(update={"driven": table})
    assert judge(unmeasured, host() + far, clean, gates).notes == ()


FAULT = FileFault(
    half="text",
    quant="q8_0",
    file="text-q8_0.gguf",
    kind="tensor",
    name="blk.3.ffn_up.weight",
    stage="prefill",
    layer="text layer 3 ffn",
    detail="is q2_k where the other layers' are q8_0",
)


@pytest.mark.parametrize(
    ("inquiry", "gates", "layers"),
    [
        (
            on_platform({"text layer 1 ffn": 0.4}),
            {"blame", "prefill"},
            [("platform", "PHONE1", "text layer 1 ffn")],
        ),
        (Inquiry(files=(FAULT,)), {"blame"}, [("quantization", None, "text layer 3 ffn")]),
    ],
    ids=["a driven layer beyond its limit", "a faulty file that no case shows"],
)
def test_what_no_word_shows_fails_with_its_blame(
    inquiry: Inquiry, gates: set[str], layers: list[tuple[str, str | None, str]]
) -> None:
    verdict = judge(of_phone(), host() + on_phone(), inquiry)
    assert (verdict.verdict, failed(verdict)) == ("FAIL", gates)
    assert [(blame.hop, blame.phone, blame.layer) for blame in verdict.blames] == layers
    assert verdict.reasons == tuple(blame.sentence for blame in verdict.blames)


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


def test_three_images_decide_nothing_unless_they_all_flip() -> None:
    verdict = judged(desktop(n=3), 3)
    assert (verdict.verdict, verdict.exit_code) == ("INCONCLUSIVE", 3)
    (reason,) = verdict.reasons
    assert "3 images without a real flip" in reason
    assert "69 more images without a flip would decide" in reason
    assert judged(desktop(range(3), 3), 3).verdict == "FAIL"


def test_hops_that_lack_the_same_evidence_share_a_line() -> None:
    record = run_record(ARMS[:3], cases=case_records(3))
    verdict = judge(record, [one for arm in ARMS[:3] for one in observations(arm, 3)])
    (reason,) = verdict.reasons
    assert reason.startswith("agreement (conversion, quantization): ")


def test_what_comes_after_the_decision_counts_only_where_it_leaves_no_doubt() -> None:
    few, many = judged(desktop([75], 180), 180), judged(desktop(range(75, 105), 180), 180)
    assert few.verdict == "PASS"
    agreement = gate(few, "agreement", DESKTOP)
    assert "decided after 72 images" in agreement.why
    assert "1 real flip in all 180 images" in agreement.why
    assert gate(many, "agreement", DESKTOP).outcome == "fail"


@pytest.mark.parametrize(
    ("n", "flips", "word"),
    [(N, 0, "PASS"), (N, 2, "INCONCLUSIVE"), (N, 5, "FAIL"), (24, 0, "INCONCLUSIVE")],
)
def test_a_fixed_sample_is_judged_by_its_own_plan(n: int, flips: int, word: str) -> None:
    verdict = judged(desktop(range(0, 3 * flips, 3), n), n, sampling=Sampling(fixed=n))
    assert verdict.verdict == word
    assert f"{n} images, fixed" in gate(verdict, "agreement", DESKTOP).why
    assert verdict.plan is not None
    assert (verdict.plan.kind, verdict.plan.most) == ("fixed", n)


def test_a_fixed_sample_is_decided_early_only_where_the_rest_cannot_change_it() -> None:
    clean = judged(desktop()[:60], sampling=Sampling(fixed=N))
    assert gate(clean, "agreement", DESKTOP).outcome == "inconclusive"
    wrong = [flipped(DESKTOP, index) for index in range(0, 15, 3)]
    assert judged(wrong, sampling=Sampling(fixed=N)).verdict == "FAIL"


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
    seen = on_phone(timings_ms=timings(9000.0))[:3] + on_phone()[3:]
    session = gate(judge(of_phone(), host() + seen), "session_s")
    assert session.outcome == "inconclusive"
    assert "14 more sessions within the limit would decide" in session.why


def test_a_case_without_an_answer_fails() -> None:
    broken = observation(PHONE_ARM, 0, "PHONE1", error=fault("context_full"), conditions=MEMORY)
    verdict = judge(of_phone(), [*host(), broken, *on_phone()[1:]])
    assert verdict.verdict == "FAIL"
    assert gate(verdict, "errors").why == "1 of 72 cases without an answer (context_full)"


def test_a_phone_that_could_not_deliver_is_infra_unless_it_did_later() -> None:
    failure = ArmFailure(
        arm=PHONE_ARM, phone="PHONE1", kind="ConnectionLost", detail="PHONE1: the cable moved"
    )
    verdict = judge(of_phone(failures=(failure,)), host() + on_phone()[:6])
    assert (verdict.verdict, verdict.exit_code) == ("INFRA", 4)
    assert verdict.reasons == (
        "phone:q8_0+app on PHONE1: 66 of 72 observations missing: PHONE1: the cable moved",
    )
    assert judge(of_phone(failures=(failure,)), host() + on_phone()).verdict == "PASS"


def test_a_phone_that_needed_no_more_images_owes_none() -> None:
    stop = Stop(arm=PHONE_ARM, phone="PHONE1", images=N, why="its agreement is decided")
    record = of_phone(n=102, stops=(stop,))
    verdict = judge(record, host(102) + on_phone())
    assert verdict.verdict == "PASS"
    note = "phone:q8_0+app on PHONE1 stopped after 72 images: its agreement is decided"
    assert note in verdict.notes
    short = judge(record, host(102) + on_phone()[:60])
    assert [(one.missing, one.of) for one in short.undelivered] == [(12, N)]


BLACK = CaseRecord(
    id="black",
    path="",
    label=None,
    session=N // 3,
    position=0,
    pixels_sha256="0" * 64,
    canary="black",
)


def a_canary(arm: str, phone: str | None = None, **over: object) -> Observation:
    content = {"canary": "black", "case_id": "black", "conditions": MEMORY} | over
    return observation(arm, N, phone, **content)


def test_canaries_are_owed_by_the_arms_that_run_as_the_app_does_and_judged_as_no_case() -> None:
    record = of_phone(canaries=(BLACK,))
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
    other = a_canary(ARMS[-2], label_logprobs=LABELS | {"land": -1.0})
    there = [other, a_canary(PHONE_ARM, "PHONE1")]
    verdict = judge(of_phone(canaries=(BLACK,)), host() + on_phone() + there)
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {"canary"}
    assert gate(verdict, "canary").outcome == "fail"
    assert gate(verdict, "canary").why.startswith("black: ")
    kept = {(one.arm, one.name): one.outcome for one in verdict.canaries}
    assert kept[PHONE_ARM, "black"] == "fail"


def test_a_silent_fallback_fails_and_names_what_was_asked_for() -> None:
    attested = attestation(DESKTOP, llama_commit="another", backends=["CPU"])
    verdict = judged(desktop(), attestations=(attested,))
    assert verdict.verdict == "FAIL"
    assert failed(verdict) == {"attestation"}
    assert "llama.cpp commit: asked for" in gate(verdict, "attestation", DESKTOP).why
    assert "ran another" in gate(verdict, "attestation", DESKTOP).why
    assert gate(verdict, "attestation", "torch").outcome == "not judged"
    assert [one.what for one in verdict.mismatches] == ["llama.cpp commit"]


def test_a_run_that_was_killed_is_infra_until_it_is_repeated() -> None:
    verdict = judged([])
    assert verdict.verdict == "INFRA"
    assert "repeat its command" in verdict.reasons[0]


def test_a_proven_failure_stays_one_when_another_phone_vanished() -> None:
    wrong = [flipped(PHONE_ARM, index, "A") for index in range(N)]
    assert judge(of_phone("A", "B"), host() + wrong).verdict == "FAIL"


def test_one_arm_alone_is_inconclusive() -> None:
    verdict = judge(run_record(("torch",)), observations("torch"))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "nothing to compare" in verdict.reasons[0]
    assert verdict.plan is None


def test_a_reference_that_never_says_a_label_proves_nothing() -> None:
    mute = [one for arm in ARMS[:2] for one in observations(arm, N, text="hm", label=None)]
    verdict = judge(run_record(cases=case_records(N)), mute)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "holds a label" in verdict.reasons[0]


def test_a_proven_loss_of_accuracy_fails_and_too_few_labels_claim_nothing() -> None:
    verdict = judged(desktop(n=24), 24, cases=case_records(24, label="water"))
    assert gate(verdict, "accuracy", DESKTOP).outcome == "not judged"
    assert verdict.accuracy_losses[0].claim == "inconclusive"
    assert (
        "accuracy of desktop:f16: INCONCLUSIVE, 24 labelled cases carry no claim, "
        "46 more would at this rate" in verdict.notes
    )
    assert verdict.confusions[0].counts[0][0] == 24
    verdict = judged(desktop(range(N)), cases=case_records(N, label="water"))
    assert gate(verdict, "accuracy", DESKTOP).outcome == "fail"


def test_24_cases_decide_nothing_and_notes_say_what_was_not_there() -> None:
    refused = (RefusedRecord(path="x.png", kind="truncated", detail="half a file"),)
    verdict = judged(desktop(n=24), 24, refused=refused, remarks=("2 are copies",))
    assert verdict.verdict == "INCONCLUSIVE"
    assert verdict.notes == ("no phone took part", "1 image refused and left out", "2 are copies")
