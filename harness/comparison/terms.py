"""Under what each arm of a run was asked to answer, and what it attests to have in force; pure."""

from __future__ import annotations

from dataclasses import dataclass

from devices.runner.protocol import Decoding, RunSettings
from harness.contract import Contract, Runtime
from harness.ladder import ArmSpec
from harness.records.inquiry import Owner
from harness.records.observation import Who
from harness.records.record import BundleRecord, PhoneRecord, RunRecord


@dataclass(frozen=True)
class Terms:
    """One arm's, on one phone."""

    spec: ArmSpec
    phone: PhoneRecord | None
    """None on this host."""
    contract: Contract
    bundle: BundleRecord
    owner: Owner
    """Whose bundle it is."""
    own_runner: bool
    """True where phones were given a runner in place of the pinned build."""
    settings: RunSettings | None
    """As last attested; None where the arm is no llama.cpp or told none."""

    @property
    def runtime(self) -> Runtime:
        """What llama.cpp is asked for."""
        runtime = self.contract.runtime
        return runtime if self.spec.app_runtime else runtime.reference()

    @property
    def decoding(self) -> Decoding:
        """How tokens are chosen, as far as it is felt: as attested, else as the contract says."""
        told = self.contract.decoding if self.settings is None else self.settings.decoding
        return told.felt

    @property
    def max_tokens(self) -> int:
        """As attested, else as the contract says."""
        return (
            self.contract.limits.max_tokens if self.settings is None else self.settings.max_tokens
        )


def terms(record: RunRecord) -> dict[Who, Terms]:
    """Those of every arm and phone that takes part, in the ladder's order."""
    specs = {spec.name: spec for spec in record.specs}
    phones = {phone.serial: phone for phone in record.phones}
    attested = {(one.arm, one.phone): one.attestation.settings for one in record.attestations}
    return {
        (arm, serial): _terms(
            record,
            specs[arm],
            None if serial is None else phones[serial],
            attested.get((arm, serial)),
        )
        for arm, serial in record.deliveries
    }


def _terms(
    record: RunRecord, spec: ArmSpec, phone: PhoneRecord | None, settings: RunSettings | None
) -> Terms:
    contract, bundle = record.contract, record.bundle
    owner: Owner = "bundle"
    if spec.training and record.training is not None:
        contract = record.training
    if phone is not None:
        contract = record.phone_side.contract or contract
        if record.phone_side.bundle is not None:
            bundle, owner = record.phone_side.bundle, "phone bundle"
    own_runner = phone is not None and record.phone_side.runner_sha256 is not None
    return Terms(spec, phone, contract, bundle, owner, own_runner, settings)
