import pytest

from driftloop.devices.runner.protocol import Decoding, RunSettings
from driftloop.harness.comparison.terms import terms
from driftloop.harness.contract import load
from driftloop.harness.records.record import BundleRecord, PhoneSide

from ..run_factory import attestation, phone_record, run_record, settings

ARMS = ("torch:training", "torch", "desktop:q8_0", "desktop:q8_0+app", "phone:q8_0+app")
PHONE = ("phone:q8_0+app", "PHONE1")


def test_every_arm_and_phone_has_terms() -> None:
    found = terms(run_record(ARMS, [phone_record("A"), phone_record("B")]))
    assert list(found)[-2:] == [("phone:q8_0+app", "A"), ("phone:q8_0+app", "B")]
    phone = found["phone:q8_0+app", "A"].phone
    assert phone is not None
    assert phone.serial == "A"


def test_arms_run_under_their_sides_contract_and_their_own_runtime() -> None:
    found = terms(run_record(ARMS, [phone_record()], training=load("as-trained")))
    assert found["torch:training", None].contract.name == "as-trained"
    assert found["torch", None].contract.name == "default"
    assert found["desktop:q8_0+app", None].runtime.cache_type_k == "q4_0"
    assert found["desktop:q8_0", None].runtime.cache_type_k == "f16"


def test_phones_run_under_what_they_were_given() -> None:
    other = BundleRecord(path="other", sha256="o" * 64, summary={})
    side = PhoneSide(contract=load("as-shipped"), bundle=other, runner_sha256="r" * 64)
    found = terms(run_record(ARMS, [phone_record()], phone_side=side))
    phone, app = found[PHONE], found["desktop:q8_0+app", None]
    assert (phone.contract.name, phone.owner, phone.own_runner, phone.bundle.path) == (
        "as-shipped", "phone bundle", True, "other"
    )  # fmt: skip
    assert (app.contract.name, app.owner, app.own_runner, app.bundle.path) == (
        "default", "bundle", False, "bundle"
    )  # fmt: skip


@pytest.mark.parametrize("attested", [None, settings(max_tokens=8)])
def test_what_is_in_force_is_what_was_attested_last_else_what_was_asked(
    attested: RunSettings | None,
) -> None:
    record = run_record(
        ARMS,
        [phone_record()],
        attestations=(
            attestation(PHONE[0], phone=PHONE[1], settings=settings(max_tokens=16)),
            attestation(PHONE[0], phone=PHONE[1], settings=attested),
        ),
    )
    phone = terms(record)[PHONE]
    assert phone.max_tokens == (32 if attested is None else 8)
    assert phone.decoding.temperature == 0.0


def test_the_seed_of_greedy_decoding_is_no_term() -> None:
    seeded = Decoding(seed=9)
    seen = attestation(PHONE[0], phone=PHONE[1], settings=settings(decoding=seeded))
    found = terms(run_record(ARMS, [phone_record()], attestations=(seen,)))
    assert found[PHONE].decoding == Decoding()
    drawn = seeded.model_copy(update={"temperature": 0.7})
    assert drawn.effective == drawn
