import json
import math
from typing import Any

import pytest

from harness.judging import GateResult
from harness.observation import Conditions, Observation
from harness.record import ArmFailure, RefusedRecord
from harness.verdict import Verdict, judge

from .run_factory import (
    LABELS,
    case_records,
    fault,
    flipped,
    observation,
    observations,
    phone_record,
    run_record,
    timings,
)

ARMS = ("torch", "desktop:f16", "desktop:q8_0", "desktop:q8_0+app", "phone:q8_0+app")
PHONE_ARM = ARMS[-1]
MEMORY = Conditions(memory_peak_kib=500 * 1024)


def host() -> list[Observation]:
    return [seen for arm in ARMS[:-1] for seen in observations(arm)]


def on_phone(serial: str = "PHONE1", **over: object) -> list[Observation]:
    return observations(PHONE_ARM, phone=serial, **({"conditions": MEMORY} | over))


def gate(verdict: Verdict, name: str, arm: str = PHONE_ARM) -> GateResult:
    (found,) = [item for item in verdict.gates if item.name == name and item.arm == arm]
    return found


def test_a_clean_run_of_24_cases_passes() -> None:
    verdict = judge(run_record(ARMS, [phone_record()]), host() + on_phone())
    assert (verdict.verdict, verdict.exit_code) == ("PASS", 0)
    assert [hop.name for hop in verdict.hops] == [
        "conversion",
        "quantization",
        "runtime",
        "platform",
    ]
    assert {item.outcome for item in verdict.gates} == {"pass"}


def trained(n: int = 24, **over: object) -> list[Observation]:
    """What `torch:training` said, with other pixels, tiles and prompt than the arms below."""
    other = {"pixels_sha256": "t" * 64, "grid": (2, 2), "image_tokens": 20, "prompt_ids": [7, -1]}
    return observations("torch:training", n, **(other | over))


def test_other_input_in_training_is_a_drift_of_the_contract_hop_that_no_gate_fails() -> None:
    record = run_record(("torch:training", "torch"))
    verdict = judge(record, trained() + observations("torch"))
    (hop,) = verdict.hops
    assert (hop.name, hop.drift, hop.blame) == ("contract", True, "pixels")
    assert (hop.pixels_equal.count, hop.prompt_ids_equal.count) == (0, 0)
    assert verdict.verdict == "PASS"
    assert {item.name for item in verdict.gates if item.hop} == {
        "agreement",
        "session_agreement",
        "real_flips",
        "label_logprob",
    }


def test_answers_that_training_would_have_given_otherwise_fail_the_contract_hop() -> None:
    record = run_record(("torch:training", "torch"))
    flips = [flipped("torch", index) for index in range(3)]
    verdict = judge(record, trained() + flips + observations("torch")[3:])
    assert verdict.verdict == "FAIL"
    assert gate(verdict, "agreement", "torch").outcome == "fail"
    assert verdict.hops[0].real_flips == 3


def test_verdict_json_has_the_fields_people_read() -> None:
    verdict = judge(run_record(ARMS, [phone_record()]), host() + on_phone())
    document = json.loads(verdict.model_dump_json())
    assert document["verdict"] == "PASS"
    assert (
        document["hops"][0].items()
        >= {
            "name": "conversion",
            "reference": "torch",
            "candidate": "desktop:f16",
            "cases": 24,
            "agreement": 1.0,
        }.items()
    )
    assert document["gates"]
    assert Verdict.model_validate(document) == verdict


def test_session_agreement_is_a_gate_beside_image_agreement() -> None:
    verdict = judge(run_record(ARMS, [phone_record()]), host() + on_phone())
    held = gate(verdict, "session_agreement")
    assert (held.hop, held.outcome, held.measured) == ("platform", "pass", 1.0)
    assert held.limit == pytest.approx(0.94**3)
    document = json.loads(verdict.model_dump_json())["hops"][0]
    assert document["sessions"] == 8
    assert document["session_agreement"].items() >= {"count": 8, "of": 8, "estimate": 1.0}.items()


def test_flips_that_each_spoil_another_session_fail_where_images_alone_would_pass() -> None:
    record = run_record(("desktop:q8_0", "desktop:q8_0+app"), cases=case_records(102))
    reference, arm = observations("desktop:q8_0", 102), "desktop:q8_0+app"

    def judged(*places: int) -> dict[str, str]:
        candidate = observations(arm, 102)
        for place in places:
            candidate[place] = flipped(arm, place)
        verdict = judge(record, reference + candidate)
        return {item.name: item.outcome for item in verdict.gates if item.hop}

    assert judged(7)["session_agreement"] == "pass"
    together, apart = judged(*range(6)), judged(*range(0, 18, 3))
    assert (together["agreement"], together["session_agreement"]) == ("pass", "pass")
    assert (apart["agreement"], apart["session_agreement"]) == ("pass", "fail")


def test_real_flips_on_the_phone_fail() -> None:
    wrong = [flipped(PHONE_ARM, i, "PHONE1", conditions=MEMORY) for i in range(2)]
    verdict = judge(run_record(ARMS, [phone_record()]), host() + wrong + on_phone()[2:])
    assert (verdict.verdict, verdict.exit_code) == ("FAIL", 1)
    assert any("agreement (platform, desktop:q8_0+app -> phone" in r for r in verdict.reasons)
    assert gate(verdict, "real_flips").outcome == "fail"


def test_one_numeric_flip_in_24_passes_and_one_real_flip_fails() -> None:
    close = {"water": -0.69, "fire": -0.70}
    record = run_record(("desktop:q8_0", "phone:q8_0"), [phone_record()])
    phone = observations("phone:q8_0", phone="PHONE1", conditions=MEMORY)
    numeric = [
        observation("desktop:q8_0", 0, label_logprobs=close),
        *observations("desktop:q8_0")[1:],
    ]
    phone[0] = flipped("phone:q8_0", 0, "PHONE1", label_logprobs=close, conditions=MEMORY)
    assert judge(record, numeric + phone).verdict == "PASS"
    phone[0] = flipped("phone:q8_0", 0, "PHONE1", conditions=MEMORY)
    assert judge(record, observations("desktop:q8_0") + phone).verdict == "FAIL"


@pytest.mark.parametrize(
    ("changed", "failed"),
    [
        ({"prompt_ids": [1]}, "prompt_ids"),
        ({"image_tokens": 8}, "image_tokens"),
        ({"grid": (2, 2)}, "grid"),
        ({"pixels_sha256": "f" * 64}, "pixels"),
        ({"label_logprobs": LABELS | {"wood": -5.2}}, "label_logprob"),
        ({"label_logprobs": LABELS | {"wood": math.nan}}, "label_logprob"),
        ({"conditions": Conditions(memory_peak_kib=3 * 1024 * 1024)}, "memory_mib"),
        ({"timings_ms": timings(9000.0)}, "session_s"),
    ],
)
def test_each_gate_fails_on_its_own_fault_with_every_word_unchanged(
    changed: dict[str, Any], failed: str
) -> None:
    verdict = judge(run_record(ARMS, [phone_record()]), host() + on_phone(**changed))
    assert verdict.verdict == "FAIL"
    assert [item.name for item in verdict.gates if item.outcome == "fail"] == [failed]


def test_three_images_decide_nothing() -> None:
    record = run_record(cases=case_records(3))
    verdict = judge(record, observations("torch", 3) + observations("desktop:f16", 3))
    assert (verdict.verdict, verdict.exit_code) == ("INCONCLUSIVE", 3)
    assert "fewer than 24 cases" in verdict.reasons[0]
    assert "fewer than 8 whole sessions" in verdict.reasons[1]


def test_hops_that_lack_the_same_evidence_share_a_line() -> None:
    arms = ("torch", "desktop:f16", "desktop:q8_0")
    record = run_record(arms, cases=case_records(3))
    verdict = judge(record, [one for arm in arms for one in observations(arm, 3)])
    assert [reason.split(":")[0] for reason in verdict.reasons] == [
        f"{gate} (conversion, quantization)"
        for gate in ("agreement", "session_agreement", "real_flips")
    ]


def test_three_images_that_all_flip_fail_all_the_same() -> None:
    record = run_record(cases=case_records(3))
    wrong = [flipped("desktop:f16", index) for index in range(3)]
    assert judge(record, observations("torch", 3) + wrong).verdict == "FAIL"


def test_a_virtual_phones_time_and_memory_are_not_judged() -> None:
    slow = on_phone(timings_ms=timings(90000.0), conditions=Conditions(memory_peak_kib=2**23))
    verdict = judge(run_record(ARMS, [phone_record(virtual=True)]), host() + slow)
    assert verdict.verdict == "PASS"
    assert gate(verdict, "session_s").outcome == "not judged"
    assert gate(verdict, "session_s").measured == pytest.approx(270.0)
    assert gate(verdict, "memory_mib").outcome == "not judged"
    assert any("virtual" in note for note in verdict.notes)


def test_a_phone_that_was_throttled_throughout_leaves_its_time_undecided() -> None:
    hot = on_phone(conditions=MEMORY.model_copy(update={"throttled": True}))
    verdict = judge(run_record(ARMS, [phone_record()]), host() + hot)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "24 throttled images left out" in gate(verdict, "session_s").why


def test_a_case_without_an_answer_fails() -> None:
    broken = observation(PHONE_ARM, 0, "PHONE1", error=fault("context_full"), conditions=MEMORY)
    verdict = judge(run_record(ARMS, [phone_record()]), [*host(), broken, *on_phone()[1:]])
    assert verdict.verdict == "FAIL"
    assert gate(verdict, "errors").why == "1 of 24 cases without an answer (context_full)"


def test_a_phone_that_could_not_deliver_is_infra_and_says_why() -> None:
    failure = ArmFailure(
        arm=PHONE_ARM, phone="PHONE1", kind="ConnectionLost", detail="PHONE1: the cable moved"
    )
    record = run_record(ARMS, [phone_record()], failures=(failure,))
    verdict = judge(record, host() + on_phone()[:6])
    assert (verdict.verdict, verdict.exit_code) == ("INFRA", 4)
    assert verdict.reasons == (
        "phone:q8_0+app on PHONE1: 18 of 24 observations missing: PHONE1: the cable moved",
    )


def test_a_run_that_was_killed_is_infra_until_it_is_repeated() -> None:
    verdict = judge(run_record(), observations("torch"))
    assert verdict.verdict == "INFRA"
    assert "repeat its command" in verdict.reasons[0]


def test_a_proven_failure_stays_one_when_another_phone_vanished() -> None:
    wrong = [flipped(PHONE_ARM, index, "A") for index in range(24)]
    record = run_record(ARMS, [phone_record("A"), phone_record("B")])
    assert judge(record, host() + wrong).verdict == "FAIL"


def test_a_failure_that_was_made_good_does_not_count() -> None:
    failure = ArmFailure(arm=PHONE_ARM, phone="PHONE1", kind="ConnectionLost", detail="once")
    record = run_record(ARMS, [phone_record()], failures=(failure,))
    assert judge(record, host() + on_phone()).verdict == "PASS"


def test_one_arm_alone_is_inconclusive() -> None:
    verdict = judge(run_record(("torch",)), observations("torch"))
    assert verdict.verdict == "INCONCLUSIVE"
    assert "nothing to compare" in verdict.reasons[0]


def test_a_reference_that_never_says_a_label_proves_nothing() -> None:
    mute = {"text": "hm", "label": None}
    seen = observations("torch", **mute) + observations("desktop:f16", **mute)
    verdict = judge(run_record(), seen)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "holds a label" in verdict.reasons[0]


def test_notes_say_that_no_phone_took_part_and_what_was_refused() -> None:
    refused = (RefusedRecord(path="x.png", kind="truncated", detail="half a file"),)
    seen = observations("torch") + observations("desktop:f16")
    verdict = judge(run_record(refused=refused), seen)
    assert verdict.notes == ("no phone took part", "1 image refused and left out")


def test_other_gates_may_be_held_against_a_finished_run() -> None:
    record = run_record()
    seen = observations("torch") + observations("desktop:f16")
    rule = record.gates.agreement.model_copy(update={"decide_on": "lower_bound"})
    strict = record.gates.model_copy(update={"agreement": rule})
    assert judge(record, seen).verdict == "PASS"
    assert judge(record, seen, strict).verdict == "INCONCLUSIVE"
