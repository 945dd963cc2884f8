"""`run.json`: what a run is, written as `started` before anything runs; versioned."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from harness import ladder
from harness.contract import Contract
from harness.gates_file import Gates
from harness.records.observation import ArmAttestation, Canary

RUN_SCHEMA_VERSION: Final = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class BundleRecord(_Record):
    """Which bundle ran; `summary` is what a reader wants of its manifest."""

    path: str
    sha256: str
    summary: dict[str, JsonValue]
    text_sha256: dict[str, str] = {}
    """Quant type -> SHA-256 of its text GGUF, as the manifest says."""
    mmproj_sha256: dict[str, str] = {}
    """Quant type -> SHA-256 of its mmproj GGUF, as the manifest says."""
    fallbacks: dict[str, tuple[str, ...]] = {}
    """Quant type -> one line for each of its files that holds other types than were asked for."""


class PhoneRecord(_Record):
    """A phone that takes part. A virtual one's clock says nothing about a real phone's speed."""

    serial: str
    virtual: bool
    model: str
    manufacturer: str
    abi: str
    android_version: str
    sdk: int | None = None
    build: str = ""
    """Android's fingerprint of itself; empty where the phone hides it."""
    cores: int | None = None
    cpu_features: tuple[str, ...] = ()
    memory_total_kib: int | None = None
    boot_id: str | None = None


class CaseRecord(_Record):
    """One image in its place in the run. The same case may stand in several places."""

    id: str
    path: str
    label: str | None
    session: int
    position: int
    pixels_sha256: str | None
    training_pixels_sha256: str | None = None
    """As `torch:training` sees the case; None where that arm takes no part."""
    phone_pixels_sha256: str | None = None
    """As phones see the case; None where they see what every arm below the contract sees."""
    canary: Canary | None = None


class RefusedRecord(_Record):
    """An image that no phone could classify, left out by `--skip-bad`."""

    path: str
    kind: str
    detail: str


class ArmFailure(_Record):
    """Why an arm could not deliver all of its observations."""

    arm: str
    phone: str | None
    kind: str
    """The error's class."""
    detail: str


class Sampling(_Record):
    """How many images a run takes: by the sequential test, or a number fixed before it."""

    fixed: int | None = None
    """None: sequential, at most as many as the test can need."""


class Stop(_Record):
    """A phone that needed no more images: its agreement was decided."""

    arm: str
    phone: str
    images: int
    why: str


class Space(_Record):
    """What a run can need of a disk at most, and what is free there."""

    needed_bytes: int
    free_bytes: int


class Outlook(_Record):
    """What was known of a run before it, or after its first block."""

    expected_images: int
    """For each arm, where its answers agree as they should; on average."""
    most_images: int
    expected_s: float | None
    """None where this host has never timed one of the arms."""
    most_s: float | None
    host: Space
    phones: dict[str, Space] = {}
    """By serial."""
    prompt_tokens: int | None = None
    """None where nothing here counts them."""


class PhoneSide(_Record):
    """What phones were given in place of the ladder's own; None each: nothing."""

    contract: Contract | None = None
    bundle: BundleRecord | None = None
    runner_sha256: str | None = None


class AppRecord(_Record):
    """Whose answers the arm `app` has."""

    path: str
    sha256: str
    """Of the file of lines."""
    versions: dict[str, str] = {}
    """As the lines say, of the app, its engine and its device."""


class RunRecord(_Record):
    """A whole run but for its observations. Times of day are UTC and for people only."""

    schema_version: Literal[1] = RUN_SCHEMA_VERSION
    run_id: str
    status: Literal["started", "finished"] = "started"
    started_at: datetime
    finished_at: datetime | None = None
    contract: Contract
    contract_sha256: str
    training: Contract | None = None
    """The training side's contract, where `torch:training` takes part."""
    phone_side: PhoneSide = PhoneSide()
    app: AppRecord | None = None
    bundle: BundleRecord
    arms: tuple[str, ...]
    phones: tuple[PhoneRecord, ...]
    cases: tuple[CaseRecord, ...]
    canaries: tuple[CaseRecord, ...] = ()
    """Images beside the cases, in sessions of their own after the last; run by the arms that run as
    the app does (`carries_canaries`)."""
    refused: tuple[RefusedRecord, ...] = ()
    sampling: Sampling = Sampling()
    outlook: Outlook | None = None
    stops: tuple[Stop, ...] = ()
    packages: dict[str, str] = {}
    git_commit: str | None = None
    seed: int
    gates: Gates
    attestations: tuple[ArmAttestation, ...] = ()
    failures: tuple[ArmFailure, ...] = ()

    @property
    def specs(self) -> tuple[ladder.ArmSpec, ...]:
        """The arms, parsed."""
        return ladder.parse_ladder(self.arms)

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Where the files that arms ran hold other types than were asked for, a line a file."""
        quants = dict.fromkeys(spec.quant for spec in self.specs if spec.quant is not None)
        return tuple(line for quant in quants for line in self.bundle.fallbacks.get(quant, ()))

    @property
    def hops(self) -> list[ladder.Hop]:
        """The hops of this run's ladder over its phones."""
        return ladder.hops(self.specs, [phone.serial for phone in self.phones])

    @property
    def deliveries(self) -> list[tuple[str, str | None]]:
        """(arm, phone) of everyone who owes an observation per case, in the ladder's order."""
        serials = [phone.serial for phone in self.phones]
        return [
            (spec.name, phone)
            for spec in self.specs
            for phone in ([None] if spec.on_host else serials)
        ]

    def carries_canaries(self, arm: str) -> bool:
        """Whether this arm runs the canaries: as the app does, or, where none does, the last."""
        own = [spec for spec in self.specs if spec.kind != "app"]
        as_app = [spec.name for spec in own if spec.app_runtime or not spec.on_host]
        return arm in (as_app or [spec.name for spec in own[-1:]])

    @property
    def labels(self) -> dict[str, str]:
        """Case id -> true label, where known."""
        return {case.id: case.label for case in self.cases if case.label is not None}

    @property
    def session_sizes(self) -> dict[int, int]:
        """Session -> number of images."""
        return dict(Counter(case.session for case in self.cases))
