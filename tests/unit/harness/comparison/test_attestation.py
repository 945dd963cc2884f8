from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.devices.runner.protocol import ThreadPlacement
from driftloop.harness.comparison.attestation import Mismatch, better_builds, mismatches
from driftloop.harness.contract import load
from driftloop.harness.records.observation import ArmAttestation
from driftloop.harness.records.record import BundleRecord, PhoneRecord, PhoneSide, RunRecord

from ..run_factory import attestation, phone_record, run_record, settings

APP, PHONE = "desktop:q8_0+app", "phone:q8_0+app"
REFERENCE = {
    "context": 2048,
    "batch": 2048,
    "cache_type_k": "f16",
    "cache_type_v": "f16",
    "flash_attention": False,
}


def phone(**over: object) -> PhoneRecord:
    return phone_record().model_copy(update={"cores": 8} | over)


def record(*attested: ArmAttestation, **over: object) -> RunRecord:
    content: dict[str, Any] = {
        "arms": ("torch:training", "torch", "desktop:q8_0", APP, PHONE),
        "phones": (phone(),),
        "attestations": attested,
        "bundle": BundleRecord(
            path="bundle",
            sha256="b" * 64,
            summary={},
            text_sha256={"q8_0": "t" * 64},
            mmproj_sha256={"q8_0": "m" * 64},
        ),
    }
    return run_record(**(content | over))


def of_phone(**over: object) -> ArmAttestation:
    """What an honest runner says on a phone of eight cores."""
    content: dict[str, Any] = {
        "variant": "arm64-dotprod",
        "threads": 4,
        "vision_threads": 4,
        "settings": settings(),
    }
    return attestation(PHONE, phone="PHONE1", **(content | over))


def mismatched(*attested: ArmAttestation, **over: object) -> list[tuple[str, str, str]]:
    return [(one.what, one.asked, one.ran) for one in mismatches(record(*attested, **over))]


def test_what_ran_as_it_was_asked_is_no_mismatch() -> None:
    host = attestation(APP, settings=settings(), variant="llama-cpp-python 0.3.36")
    plain = attestation("desktop:q8_0", settings=settings(**REFERENCE))
    assert mismatched(host, plain, of_phone()) == []
    # An arm without `+app` is asked for the reference's runtime.
    rounding = attestation(
        "desktop:q8_0", settings=settings(**REFERENCE | {"cache_type_k": "q4_0"})
    )
    assert mismatched(rounding) == [("K cache", "f16", "q4_0")]
    # What was not attested, or has no known hash, is no mismatch.
    unknown = BundleRecord(path="b", sha256="b", summary={})
    assert mismatched(of_phone(settings=None), bundle=unknown) == []


@pytest.mark.parametrize(
    ("over", "mismatch"),
    [
        ({"text_model_sha256": "x" * 64}, ("text model", "t" * 64, "x" * 64)),
        ({"mmproj_sha256": "x" * 64}, ("mmproj", "m" * 64, "x" * 64)),
        ({"llama_commit": "abc"}, ("llama.cpp commit", "0c1e57098", "abc")),
        ({"variant": "x86_64"}, ("build", "arm64-i8mm or arm64-dotprod or arm64", "x86_64")),
        ({"variant": "?"}, ("build", "arm64-i8mm or arm64-dotprod or arm64", "?")),
        ({"backends": ["Vulkan"]}, ("backend", "cpu", "Vulkan")),
        ({"backends": []}, ("backend", "cpu", "none")),
        ({"threads": 2}, ("threads", "4", "2")),
        ({"vision_threads": 1}, ("vision threads", "4", "1")),
    ],
)
def test_a_silent_fallback_is_named(over: dict[str, Any], mismatch: tuple[str, str, str]) -> None:
    assert mismatched(of_phone(**over)) == [mismatch]


@pytest.mark.parametrize(
    ("over", "mismatch"),
    [
        ({"context": 2048}, ("context", "1024", "2048")),
        ({"batch": 256}, ("batch", "512", "256")),
        ({"micro_batch": 64}, ("micro-batch", "512", "64")),
        ({"cache_type_k": "f16"}, ("K cache", "q4_0", "f16")),
        ({"cache_type_v": "f16"}, ("V cache", "q4_0", "f16")),
        ({"flash_attention": False}, ("flash attention", "on", "off")),
        ({"max_tokens": 8}, ("new tokens at most", "32", "8")),
        ({"decoding": {"temperature": 0.7}}, ("temperature", "0", "0.7")),
        ({"decoding": {"top_k": 5}}, ("top-k", "0", "5")),
        ({"decoding": {"repeat_penalty": 1.1}}, ("repetition penalty", "1", "1.1")),
        ({"decoding": {"stop": ["</s>"]}}, ("stop tokens", "the model's own", "</s>")),
    ],
)
def test_a_setting_that_is_not_in_force_is_named(
    over: dict[str, Any], mismatch: tuple[str, str, str]
) -> None:
    assert mismatched(of_phone(settings=settings(**over))) == [mismatch]


def test_a_context_that_llama_rounds_up_and_a_batch_that_it_clips_are_as_asked() -> None:
    app = load("default")
    odd = app.runtime.model_copy(update={"context": 300, "batch": 400})
    given = settings(context=512, batch=300, micro_batch=300)
    contract = app.model_copy(update={"runtime": odd})
    assert mismatched(of_phone(settings=given), contract=contract) == []


@given(st.integers(1, 64))
def test_threads_follow_the_apps_rule_on_a_real_phone(cores: int) -> None:
    rule, phones = min(max(2, min(6, cores // 2)), cores), (phone(cores=cores),)
    honest, other = (
        of_phone(threads=threads, vision_threads=min(4, cores)) for threads in (rule, rule + 1)
    )
    assert mismatched(honest, phones=phones) == []
    assert mismatched(other, phones=phones) == [("threads", str(rule), str(rule + 1))]


@pytest.mark.parametrize(("allowed", "rule"), [("0", 1), ("0-1", 2), ("0-3,6", 2), ("0-7", 4)])
def test_threads_follow_the_apps_rule_over_the_cores_that_a_virtual_phone_was_allowed(
    allowed: str, rule: int
) -> None:
    phones = (phone(virtual=True),)
    given = {"placement": [ThreadPlacement(name="runner", cpus_allowed=allowed)]}
    vision = {"0": 1, "0-1": 2}.get(allowed, 4)
    assert mismatched(of_phone(threads=rule, vision_threads=vision, **given), phones=phones) == []
    assert mismatched(of_phone(threads=3, vision_threads=vision, **given), phones=phones) == [
        ("threads", str(rule), "3")
    ]


@pytest.mark.parametrize("over", [{"virtual": True}, {"cores": None}])
def test_threads_stay_within_the_apps_rule_where_the_cores_are_not_known(
    over: dict[str, Any],
) -> None:
    phones = (phone(**over),)
    odd = [ThreadPlacement(name="runner", cpus_allowed="0-x,\u0663")]
    assert mismatched(of_phone(threads=2, vision_threads=2), phones=phones) == []
    assert mismatched(of_phone(threads=2, vision_threads=2, placement=odd), phones=phones) == []
    assert mismatched(of_phone(threads=7, vision_threads=5), phones=phones) == [
        ("threads", "6 at most", "7"),
        ("vision threads", "4 at most", "5"),
    ]


def test_threads_that_the_contract_names_are_those_that_run() -> None:
    app = load("default")
    named = app.model_copy(update={"runtime": app.runtime.model_copy(update={"threads": 1})})
    assert mismatched(of_phone(threads=1), contract=named) == []
    assert mismatched(of_phone(threads=4), contract=named) == [("threads", "1", "4")]


def test_a_phone_is_held_to_what_it_was_given() -> None:
    app = load("default")
    short = app.model_copy(update={"limits": app.limits.model_copy(update={"max_tokens": 8})})
    other = BundleRecord(path="o", sha256="o" * 64, summary={}, text_sha256={"q8_0": "o" * 64})
    side = PhoneSide(contract=short, bundle=other, runner_sha256="r" * 64)
    theirs = of_phone(
        settings=settings(max_tokens=8), text_model_sha256="o" * 64, llama_commit="of its own",
        variant="of its own",
    )  # fmt: skip
    assert mismatched(theirs, phone_side=side) == []
    assert ("new tokens at most", "8", "32") in mismatched(of_phone(), phone_side=side)


def test_arms_that_run_the_checkpoint_run_the_same_one() -> None:
    one = attestation("torch", llama_commit="", text_model_sha256="a" * 64)
    other = attestation("torch:training", llama_commit="", text_model_sha256="b" * 64)
    assert mismatched(one, one) == []
    assert mismatched(one, other) == [("checkpoint", "a" * 64, "b" * 64)]


def test_a_mismatch_names_its_arm_and_phone_and_is_told_once() -> None:
    (found,) = mismatches(record(of_phone(threads=2), of_phone(threads=2, pid=2)))
    assert found == Mismatch(arm=PHONE, phone="PHONE1", what="threads", asked="4", ran="2")


def test_a_build_below_what_the_processor_can_do_is_told() -> None:
    able = (phone(cpu_features=("asimddp", "fphp", "asimdhp")),)
    (line,) = better_builds(record(of_phone(variant="arm64"), phones=able))
    assert line == f"{PHONE} on PHONE1: build arm64 ran, arm64-dotprod is for its processor"
    assert better_builds(record(of_phone(), phones=able)) == ()
    assert better_builds(record(of_phone(variant="arm64"))) == ()
