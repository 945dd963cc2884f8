"""Run folders written through the real journal with real records; only the numbers are made."""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from rich.console import Console, RenderableType

from driftloop import reports
from driftloop.devices.runner.protocol import Evidence, RunnerFault, Timings, Token, TokenLogprob
from driftloop.harness import contract, evaluation, gates_file
from driftloop.harness.contract import merged
from driftloop.harness.gates_file import Gates
from driftloop.harness.ladder import CHANGES
from driftloop.harness.records.inquiry import Inquiry
from driftloop.harness.records.journal import Journal
from driftloop.harness.records.observation import Canary, Conditions, Observation
from driftloop.harness.records.record import (
    ArmFailure,
    BundleRecord,
    CaseRecord,
    LeftOutPhone,
    RefusedRecord,
    RunRecord,
)
from driftloop.harness.releases.store import Store
from driftloop.reports import summary
from driftloop.reports.summary import Summary
from tests.unit.harness import run_factory

LABELS: Final = ("water", "land", "fire", "wood", "metal")
APP_ARM, PHONE_ARM = "desktop:q8_0+app", "phone:q8_0+app"
ARMS: Final = ("torch", "desktop:f16", "desktop:q8_0", APP_ARM, PHONE_ARM)
REAL_PHONE, VIRTUAL_PHONE = "R5CT10ABCDE", "127.0.0.1:5581"
BOTH: Final = (REAL_PHONE, VIRTUAL_PHONE)
PHONE, VIRTUAL = (PHONE_ARM, REAL_PHONE), (PHONE_ARM, VIRTUAL_PHONE)
MOVED: Final = dict.fromkeys(("desktop:q8_0", APP_ARM, PHONE_ARM), 0.3)
"""Image embeddings of every quantized arm far from the others'."""
FLIP: Final = {(*PHONE, 7): "water"}
"""Its third session's second photo shows fire."""
_CANARIES: Final[tuple[tuple[Canary, int], ...]] = (
    ("black", 1000), ("mirror", 1001), ("twice", 0), ("twice", 0),
    ("reversed", 2), ("reversed", 1), ("again", 0),
)  # fmt: skip
"""In a run's order, each with its picture; those from 1000 on are no case's."""

_LIMITS: Final = {"max_label_logprob_difference": 0.1, "max_embed_distance": 0.1}
FEW_CASES: Final = Gates.model_validate(
    merged(
        gates_file.load().model_dump(),
        {
            "agreement": {"reject": 0.8},
            "accuracy": {"margin": 0.99},
            "hops": {change: _LIMITS for change in CHANGES if change != "contract"},
            "latency": {"confidence": 0.55},
        },
    )
)
"""Gates that so few cases can pass: a laxer test, and hardly any certainty.

With absolute limits, as the runs drive no layers.
"""

Place = tuple[str, str | None, int]
"""(arm, phone, case)."""
Writer = Callable[..., "RunWriter"]


def summarized(folder: Path, store: Store | None = None) -> Summary:
    """What the reports on a run folder say."""
    return summary.of(evaluation.load(folder), store)


def rebuilt(folder: Path, store: Store | None = None) -> list[Path]:
    """As `driftloop report` writes them: the reports, and the two documents beside them."""
    judged = evaluation.load(folder)
    return [*judged.write(), *reports.build(summary.of(judged, store))]


def shown(*views: RenderableType) -> str:
    """On a terminal of 80 columns, which they must fit; in one line."""
    console = Console(width=80, record=True, file=io.StringIO())
    for view in views:
        console.print(view)
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    return " ".join(text.split())


def _picture(index: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(index).integers(0, 100, (64, 64, 3), dtype=np.uint8)
    )


def _exchanged(picture: Image.Image) -> Image.Image:
    return Image.merge("RGB", picture.split()[::-1])


def _sha256(picture: Image.Image) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


@dataclass
class RunWriter:
    """Writes a run folder; a test names only what it is about. Cases come in threes."""

    path: Path
    cases: int = 24
    arms: tuple[str, ...] = ARMS
    phones: tuple[str, ...] = (REAL_PHONE,)
    run_id: str = "20261123-120000-abcd"
    contract: str = "default"
    picture_offset: int = 0
    case_ids: dict[int, str] = field(default_factory=dict)
    answers: dict[Place, str] = field(default_factory=dict)
    """Labels said instead of the true ones."""
    texts: dict[Place, str] = field(default_factory=dict)
    faults: dict[Place, RunnerFault] = field(default_factory=dict)
    other_pixels: set[Place] = field(default_factory=set)
    """Where red and blue were exchanged."""
    absent: set[tuple[str, str | None]] = field(default_factory=set)
    leaking: set[tuple[str, str | None]] = field(default_factory=set)
    """(arm, phone) whose answer to the first image is another one when it comes last."""
    throttled: set[int] = field(default_factory=set)
    heat_known: bool = True
    refused: tuple[RefusedRecord, ...] = ()
    left_out: tuple[LeftOutPhone, ...] = ()
    failures: tuple[ArmFailure, ...] = ()
    apart: dict[str, float] = field(default_factory=dict)
    """Arm -> how far its image embeddings are from the first arm's, over their length."""
    milliseconds: float = 2400.0
    pictures: bool = True
    labelled: bool = True
    inquiry: Inquiry | None = None
    fallbacks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Quant type -> where its files hold other types."""
    gates: Gates = FEW_CASES
    days: int = 0
    """How much later than others it ran."""

    def write(self) -> Path:
        """The folder, as a finished run leaves it (but for the reports)."""
        record = self._record()
        if self.pictures:
            (self.path / "pixels").mkdir(parents=True, exist_ok=True)
            pictures = {f"{index:03d}": self._picture(index) for index in range(self.cases)}
            for _, _, index in self.other_pixels:
                pictures[f"{index:03d}-other"] = _exchanged(self._picture(index))
            for name, picture in pictures.items():
                picture.save(self.path / "pixels" / f"{name}.png")
        with Journal(self.path, record) as journal:
            for arm, phone in record.deliveries:
                if (arm, phone) in self.absent:
                    continue
                journal.attest(
                    run_factory.attestation(
                        arm,
                        phone=phone,
                        llama_commit="" if arm == "torch" else "0c1e57098",
                        variant="arm64-dotprod" if phone else "host",
                        threads=4,
                    )
                )
                for index, case in enumerate(record.cases):
                    journal.append(self._observation(record, arm, phone, index, case))
                if record.carries_canaries(arm):
                    for (name, index), case in zip(_CANARIES, record.canaries, strict=True):
                        leaks = name == "again" and (arm, phone) in self.leaking
                        seen = self._observation(record, arm, phone, index + 5 * leaks, case)
                        journal.append(seen.model_copy(update={"canary": name}))
            for failure in self.failures:
                journal.fail(failure)
            if self.inquiry is not None:
                journal.learn(**dict(self.inquiry))
            journal.finish(record.started_at + timedelta(minutes=9))
        return self.path

    def summary(self, store: Store | None = None) -> Summary:
        """What the reports on the run say."""
        return summarized(self.write(), store)

    def page(self) -> str:
        """`report.html`, of a run whose reports have all been written."""
        rebuilt(self.write())
        return (self.path / "report.html").read_text("utf-8")

    def _record(self) -> RunRecord:
        loaded = contract.load(self.contract)
        return run_factory.run_record(
            self.arms,
            [
                run_factory.phone_record(serial, virtual=serial == VIRTUAL_PHONE)
                for serial in self.phones
            ],
            self.gates,
            run_id=self.run_id,
            started_at=datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(days=self.days),
            contract=loaded,
            contract_sha256=loaded.sha256,
            bundle=BundleRecord(
                path="bundles/tiny",
                sha256="9b" * 32,
                summary={"quants": ["q8_0"]},
                fallbacks=self.fallbacks,
            ),
            cases=tuple(self._case(index, *divmod(index, 3)) for index in range(self.cases)),
            canaries=tuple(
                self._case(index, -(-self.cases // 3) + place // 4, place % 4, canary)
                for place, (canary, index) in enumerate(_CANARIES)
            ),
            refused=self.refused,
            left_out=self.left_out,
            packages={"driftloop": "0.2.0", "torch": "2.13.0"},
            git_commit="c0ffee" * 6,
        )

    def _case(
        self, index: int, session: int, position: int, canary: Canary | None = None
    ) -> CaseRecord:
        own, label = index < self.cases, LABELS[index % 5]
        return CaseRecord(
            id=self.case_ids.get(index, f"{label}/{index:03d}.png") if own else str(canary),
            path=f"images/{index:03d}.png",
            label=label if self.labelled and canary is None else None,
            session=session,
            position=position,
            pixels_sha256=_sha256(self._picture(index)) if own else f"{index:064d}",
            canary=canary,
        )

    def _picture(self, index: int) -> Image.Image:
        return _picture(index + self.picture_offset)

    def _observation(
        self, record: RunRecord, arm: str, phone: str | None, index: int, case: CaseRecord
    ) -> Observation:
        place = (arm, phone, index)
        label, fault = self.answers.get(place, LABELS[index % 5]), self.faults.get(place)
        logprobs = self._logprobs(arm, index, label)
        top = [
            TokenLogprob(id=100 + LABELS.index(name), logprob=value)
            for name, value in sorted(logprobs.items(), key=lambda item: -item[1])
        ]
        token = Token(id=top[0].id, piece=label, logprob=top[0].logprob, top=top)
        pixels = case.pixels_sha256
        if place in self.other_pixels:
            pixels = _sha256(_exchanged(self._picture(index)))
        return run_factory.observation(
            arm,
            index,
            phone,
            contract_sha256=record.contract_sha256,
            case_id=case.id,
            session=case.session,
            position=case.position,
            pixels_sha256=pixels,
            tokens=[] if fault else [token],
            label_logprobs={} if fault else logprobs,
            evidence=Evidence() if fault else self._evidence(arm),
            text="" if fault else self.texts.get(place, label),
            label=None if fault else label,
            stop_reason="error" if fault else "eog",
            timings_ms=None if fault else self._timings(arm, phone, index),
            conditions=self._conditions(phone, index),
            error=fault,
        )

    def _logprobs(self, arm: str, index: int, label: str) -> dict[str, float]:
        steady, moved = random.Random(index), random.Random(f"{arm} {index}")
        scores = {name: steady.uniform(0, 2) for name in LABELS}
        scores[label] += 3.0
        total = math.log(sum(math.exp(score) for score in scores.values()) + 1.5)
        return {name: score - total + moved.uniform(0, 1e-4) for name, score in scores.items()}

    def _evidence(self, arm: str) -> Evidence:
        # Without the first step's logits, which agree or not as the label probabilities say.
        evidence = run_factory.evidence(embed=self.apart.get(arm, 0.0))
        return evidence.model_copy(update={"prefill": None})

    def _timings(self, arm: str, phone: str | None, index: int) -> Timings:
        whole = self.milliseconds * random.Random(f"{arm} {phone} {index}").uniform(0.92, 1.12)
        whole *= (1.6 if index in self.throttled else 1) * (1.7 if phone == VIRTUAL_PHONE else 1)
        return run_factory.timings(whole if phone else 0.2 * whole)

    def _conditions(self, phone: str | None, index: int) -> Conditions:
        if phone is None:
            return Conditions(cached=index % 2 == 0, memory_peak_kib=310_000)
        throttled = index in self.throttled
        if not self.heat_known:
            return Conditions(memory_peak_kib=412_000, boot_id="b00t")
        return Conditions(
            thermal_status=2 if throttled else 0,
            temp_c=31.5 + 0.3 * index,
            battery_percent=87 - index // 8,
            battery_temp_c=29.0,
            power_source="usb",
            cpu_max_ratio=0.8 if throttled else 1.0,
            throttled=throttled,
            memory_peak_kib=412_000,
            boot_id="b00t",
            load_ms=640.0,
        )
