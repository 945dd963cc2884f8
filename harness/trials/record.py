"""`trial.json`: a latency trial, written before its first run and after every run; versioned."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from statistics import median
from typing import Final, Literal

from pydantic import Field

from driftloop.devices.health import Health
from driftloop.devices.runner.protocol import Attestation
from driftloop.harness.contract import Contract
from driftloop.harness.gates_file import TrialRule
from driftloop.harness.jsonl import Record
from driftloop.harness.judgement.verdict import Word
from driftloop.harness.records.record import PhoneRecord
from driftloop.harness.trials.plan import Contender, Medians, Phase

TRIAL_SCHEMA_VERSION: Final = 1
TRIAL_FILE = "trial.json"
WARM_UP_IMAGES = 1
"""The first image of a process also reads the weights into memory, so its time is not its own."""

CONTENDERS: tuple[Contender, Contender] = ("baseline", "candidate")

Exclusion = Literal["throttled", "interrupted", "rebooted", "power", "threads", "runner"]
"""Why a run is left out: the phone was throttled; the run was resumed, or the connection lost; the
phone was restarted; its power source, or the runner's number of threads, is not that of the earlier
runs; the runner ended early.
"""


class ContenderRecord(Record):
    """One side of the trial."""

    bundle: str
    bundle_sha256: str
    quant: str
    text_sha256: str
    mmproj_sha256: str
    contract: Contract
    runner: str | None
    """The file that was named; None for the pinned build."""
    runner_sha256: str
    case_ids: tuple[str, ...]
    """Of a run's images, in order."""
    pixels_sha256: tuple[str, ...]


class Reading(Record):
    """A phone's health at one moment; None where it cannot be read."""

    thermal_status: int | None = None
    temp_c: float | None = None
    battery_percent: int | None = None
    power_source: str | None = None
    cpu_max_ratio: float | None = None
    """Lowest scaling_max_freq / cpuinfo_max_freq over the cores."""
    throttled: bool = False
    boot_id: str | None = None

    @classmethod
    def of(cls, health: Health) -> Reading:
        """What a trial keeps of `health`."""
        return cls(
            thermal_status=health.thermal_status,
            temp_c=health.temp_c,
            battery_percent=health.battery.percent,
            power_source=health.battery.power_source,
            cpu_max_ratio=health.cpu_max_ratio,
            throttled=health.throttled,
            boot_id=health.boot_id,
        )


class TrialRun(Record):
    """One process of the runner: a load, then the images."""

    number: int
    phase: Phase
    contender: Contender
    images_ms: tuple[float, ...]
    """`total` of each image, in order."""
    stages_ms: dict[str, float]
    """Median of each stage over the images after the warm-up."""
    new_tokens: int
    """Over all images."""
    attestation: Attestation | None
    """None where the runner ended before it attested."""
    before: Reading
    after: Reading
    excluded: Exclusion | None = None
    detail: str | None = None
    """Of the exclusion."""

    @property
    def median_ms(self) -> float:
        """The run's value in the test: the median over the images after the warm-up."""
        return median(self.images_ms[WARM_UP_IMAGES:])


class TrialOutcome(Record):
    """The result of a trial. Ratios are the candidate's time over the baseline's."""

    verdict: Word
    sentence: str
    noise_floor: float | None
    """Standard deviation of log run medians; None before it was measured."""
    runs_needed: int | None
    """A side, at that noise."""
    runs_taken: dict[Contender, int]
    """Usable ones, without those that measured the noise floor."""
    median_ms: dict[Contender, float] = Field(default_factory=dict)
    """Geometric mean of the run medians."""
    ratio: float | None = None
    lower: float | None = None
    """One-sided bound at the rule's `level`."""
    upper: float | None = None
    """One-sided bound at one less the rule's `power`."""
    stage_ratios: dict[str, float] = Field(default_factory=dict)
    """By stage; not judged."""
    excluded: dict[Exclusion, int] = Field(default_factory=dict)


class TrialRecord(Record):
    """A whole trial. Times of day are UTC and for people only."""

    schema_version: Literal[1] = TRIAL_SCHEMA_VERSION
    trial_id: str
    status: Literal["started", "finished"] = "started"
    started_at: datetime
    finished_at: datetime | None = None
    phone: PhoneRecord
    baseline: ContenderRecord
    candidate: ContenderRecord
    rule: TrialRule
    runs: tuple[TrialRun, ...] = ()
    outcome: TrialOutcome | None = None

    def usable(self, phase: Phase, contender: Contender) -> list[TrialRun]:
        """The runs of that kind that are not left out, in order."""
        kind = (phase, contender, None)
        return [run for run in self.runs if (run.phase, run.contender, run.excluded) == kind]

    @property
    def excluded(self) -> Counter[Exclusion]:
        """How many runs are left out, by reason."""
        return Counter(run.excluded for run in self.runs if run.excluded is not None)

    @property
    def medians(self) -> Medians:
        """Of the usable runs, for the plan."""
        return Medians(
            floor=[run.median_ms for run in self.usable("floor", "baseline")],
            trial={
                side: [run.median_ms for run in self.usable("trial", side)] for side in CONTENDERS
            },
        )

    def same_trial(self, other: TrialRecord) -> bool:
        """Whether the other's runs belong to this trial: same phone, contenders and rule."""
        return self._question == other._question

    @property
    def _question(self) -> tuple[object, ...]:
        # A restarted phone is the same phone, and a file under another name is the same file.
        return (
            self.phone.model_copy(update={"boot_id": None}),
            *(
                one.model_copy(update={"bundle": "", "runner": None})
                for one in (self.baseline, self.candidate)
            ),
            self.rule,
        )
