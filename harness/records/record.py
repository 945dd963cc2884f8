"""`run.json`: what a run is, written as `started` before anything runs; versioned."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Final, Literal

from pydantic import Field, JsonValue

from driftloop.harness import ladder
from driftloop.harness.contract import Contract, differing
from driftloop.harness.gates_file import Gates
from driftloop.harness.jsonl import Record
from driftloop.harness.ladder import Who
from driftloop.harness.records.observation import ArmAttestation, ArmRecord, Canary, Place

RUN_SCHEMA_VERSION: Final = 1


class BundleRecord(Record):
    """Which bundle ran; `summary` is what a reader wants of its manifest."""

    path: str
    sha256: str
    summary: dict[str, JsonValue]
    text_sha256: dict[str, str] = Field(default_factory=dict)
    """Quant type -> SHA-256 of its text GGUF, as the manifest says."""
    mmproj_sha256: dict[str, str] = Field(default_factory=dict)
    """Quant type -> SHA-256 of its mmproj GGUF, as the manifest says."""
    fallbacks: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Quant type -> one line for each of its files that holds other types than were asked for."""


class PhoneRecord(Record):
    """A phone of the run. A virtual one's clock says nothing about a real phone's speed."""

    serial: str
    """What the phone calls itself, whatever adb calls its connection."""
    address: str = ""
    """What adb called its connection last."""
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


class CaseRecord(Record):
    """One image in its place in the run. The same case may stand in several places."""

    id: str
    path: str
    label: str | None
    session: int
    position: int
    pixels_sha256: str | None
    training_pixels_sha256: str | None = None
    """As `torch:training` sees the case; None in a run without that arm."""
    phone_pixels_sha256: str | None = None
    """As phones see the case; None where they see what every arm below the contract sees."""
    canary: Canary | None = None

    @property
    def place(self) -> Place:
        """(session, position)."""
        return (self.session, self.position)


class LeftOutPhone(Record):
    """A phone of a set, such as `all`, that could not be used."""

    phone: str
    kind: str
    """The error's class."""
    detail: str


class RefusedRecord(Record):
    """An image that no phone could classify, left out by `--skip-bad`."""

    path: str
    kind: str
    detail: str


class ArmFailure(ArmRecord):
    """Why an arm could not deliver all of its observations."""

    kind: str
    """The error's class."""
    detail: str


class Sampling(Record):
    """How many images a run takes: by the sequential test, or a number fixed before it."""

    fixed: int | None = None
    """None: sequential, at most as many as the test can need."""


class Stop(ArmRecord):
    """A phone that needed no more images: its agreement was decided."""

    phone: str
    images: int
    why: str


class DisturbancesRecord(Record):
    """What kept a phone from answering, in all commands of the run: `devices.disturbances`."""

    serial: str
    link_breaks: int
    waited_s: float
    starts: int
    remarks: tuple[str, ...]


class Space(Record):
    """The most disk space that a run can need, and what is free."""

    needed_bytes: int
    free_bytes: int


class Outlook(Record):
    """A run's expected length, as known before it or after its first block."""

    expected_images: int
    """Average number for each arm, if answers agree as they should."""
    most_images: int
    expected_s: float | None
    """None where this host has never timed one of the arms."""
    most_s: float | None
    host: Space
    phones: dict[str, Space] = Field(default_factory=dict)
    """By serial."""
    prompt_tokens: int | None = None
    """None where nothing here counts them."""


class PhoneSide(Record):
    """What phones were given in place of the ladder's own; None where nothing was."""

    contract: Contract | None = None
    bundle: BundleRecord | None = None
    runner_sha256: str | None = None


class AppRecord(Record):
    """The file of lines that the arm `app` is read from."""

    path: str
    sha256: str
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the app, its engine and its device, as the lines report them."""


class RunRecord(Record):
    """A whole run except its observations. Times of day are UTC and for people only."""

    schema_version: Literal[1] = RUN_SCHEMA_VERSION
    run_id: str
    status: Literal["started", "finished"] = "started"
    started_at: datetime
    finished_at: datetime | None = None
    contract: Contract
    contract_sha256: str
    training: Contract | None = None
    """The training side's contract; None in a run without `torch:training`."""
    phone_side: PhoneSide = PhoneSide()
    app: AppRecord | None = None
    bundle: BundleRecord
    arms: tuple[str, ...]
    phones: tuple[PhoneRecord, ...]
    left_out: tuple[LeftOutPhone, ...] = ()
    cases: tuple[CaseRecord, ...]
    canaries: tuple[CaseRecord, ...] = ()
    """Images beside the cases, in sessions of their own after the last; see `carries_canaries`."""
    refused: tuple[RefusedRecord, ...] = ()
    remarks: tuple[str, ...] = ()
    """On the images, one line each: copies that were counted once, files that were not read."""
    sampling: Sampling = Sampling()
    outlook: Outlook | None = None
    stops: tuple[Stop, ...] = ()
    packages: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    seed: int
    gates: Gates
    attestations: tuple[ArmAttestation, ...] = ()
    failures: tuple[ArmFailure, ...] = ()
    disturbances: tuple[DisturbancesRecord, ...] = ()

    @property
    def specs(self) -> tuple[ladder.ArmSpec, ...]:
        """The arms, parsed."""
        return ladder.parse_ladder(self.arms)

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """One line for each file of an arm that holds other types than were asked for."""
        quants = dict.fromkeys(spec.quant for spec in self.specs if spec.quant is not None)
        return tuple(line for quant in quants for line in self.bundle.fallbacks.get(quant, ()))

    @property
    def hops(self) -> list[ladder.Hop]:
        """The hops of this run's ladder over its phones."""
        return ladder.hops(self.specs, [phone.serial for phone in self.phones])

    @property
    def deliveries(self) -> list[Who]:
        """Every arm and phone that owes an observation per case, in the ladder's order."""
        serials = [phone.serial for phone in self.phones]
        return [
            (spec.name, phone)
            for spec in self.specs
            for phone in ([None] if spec.on_host else serials)
        ]

    def carries_canaries(self, arm: str) -> bool:
        """Whether this arm runs the canaries: those with the app's runtime do, else the last."""
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

    def differences(self, wanted: RunRecord) -> list[str]:
        """What makes `wanted` another run, in words; empty where it may go on with this one."""
        found = []
        contracts = (
            ("contract", self.contract, wanted.contract),
            ("training contract", self.training, wanted.training),
        )
        for name, there, asked in contracts:
            # Without the arm `torch:training` there is no training contract, and the arms differ.
            if there and asked:
                ours, theirs = (
                    one.model_dump(mode="json", exclude={"name"}) for one in (there, asked)
                )
                if fields := [field for field, _, _ in differing(ours, theirs)]:
                    found.append(f"{name} differs in {', '.join(fields)}")
        if self.bundle.sha256 != wanted.bundle.sha256:
            found.append(f"bundle is {self.bundle.path} ({self.bundle.sha256[:12]})")
        if self._placed_cases != wanted._placed_cases:
            found.append(f"cases differ ({len(self.cases)} there, {len(wanted.cases)} asked for)")
        if self.arms != wanted.arms:
            found.append(f"arms are {','.join(self.arms)}")
        if self.seed != wanted.seed:
            found.append(f"seed is {self.seed}")
        if self.phone_side != wanted.phone_side:
            found.append("phones were given another contract, bundle or runner")
        if (self.app and self.app.sha256) != (wanted.app and wanted.app.sha256):
            found.append("the app's lines are different")
        if self.sampling != wanted.sampling:
            found.append(f"--fixed is {self.sampling.fixed}")
        return found

    @property
    def _placed_cases(self) -> list[CaseRecord]:
        # Not by path: a folder of images may have moved.
        return [case.model_copy(update={"path": ""}) for case in self.cases]
