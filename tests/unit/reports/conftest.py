"""Run folders written through the real journal with real records; only the numbers are made."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from devices.runner.protocol import Attestation, Evidence, RunnerFault, Timings, Token, TokenLogprob
from harness import contract, gates_file
from harness.arms.fingerprint import fingerprint
from harness.gates_file import Gates
from harness.ladder import CHANGES
from harness.records.inquiry import Inquiry
from harness.records.journal import Journal
from harness.records.observation import ArmAttestation, Canary, Conditions, Observation
from harness.records.record import (
    ArmFailure,
    BundleRecord,
    CaseRecord,
    PhoneRecord,
    RefusedRecord,
    RunRecord,
)

LABELS = ("water", "land", "fire", "wood", "metal")
ARMS = ("torch", "desktop:f16", "desktop:q8_0", "desktop:q8_0+app", "phone:q8_0+app")
REAL_PHONE, VIRTUAL_PHONE = "R5CT10ABCDE", "127.0.0.1:5581"
_BLACK, _MIRROR = 1000, 1001
"""Numbers of pictures that no case has."""


def few_cases() -> Gates:
    """Gates that so few cases can pass: a laxer test, and hardly any certainty.

    With absolute limits, as the runs drive no layers.
    """
    gates = gates_file.load()
    limits = {"max_label_logprob_difference": 0.1, "max_embed_distance": 0.1}
    hops = {
        change: gates.hops.of(change).model_copy(update=limits)
        for change in CHANGES
        if change != "contract"
    }
    return gates.model_copy(
        update={
            "agreement": gates.agreement.model_copy(update={"reject": 0.8}),
            "accuracy": gates.accuracy.model_copy(update={"margin": 0.99}),
            "hops": gates.hops.model_copy(update=hops),
            "latency": gates.latency.model_copy(update={"confidence": 0.55}),
        }
    )


def _picture(index: int) -> Image.Image:
    turn, step = divmod(index, 24)
    shape = (0.35 * step % 1.6 - 1.9, -1.2 + 0.05 * step, 0.7, 1.1 - 0.03 * step)
    tone = Image.effect_mandelbrot((64, 64), shape, 40 + turn)
    return Image.merge(
        "RGB", (tone, tone.rotate(90 * index), Image.linear_gradient("L").resize((64, 64)))
    )


def _exchanged(picture: Image.Image) -> Image.Image:
    return Image.merge("RGB", picture.split()[::-1])


def _sha256(picture: Image.Image) -> str:
    return hashlib.sha256(picture.tobytes()).hexdigest()


def _phone(serial: str, virtual: bool) -> PhoneRecord:
    return PhoneRecord(
        serial=serial,
        virtual=virtual,
        model="SM-A536B" if not virtual else "virtual arm64",
        manufacturer="samsung" if not virtual else "driftloop",
        abi="arm64-v8a",
        android_version="14",
        sdk=34,
        cores=8,
        memory_total_kib=5_700_000,
    )


def _attestation(arm: str) -> Attestation:
    return Attestation(
        protocol=1,
        llama_commit="" if arm == "torch" else "0c1e57098",
        compiler="torch 2.13.0, transformers 5.23.0" if arm == "torch" else "clang 20.1.2",
        target="aarch64-linux-musl" if arm.startswith("phone") else "x86_64-linux-gnu",
        variant="arm64-dotprod" if arm.startswith("phone") else "host",
        cpu_features_found=["fp", "asimd", "fphp", "asimddp"],
        cpu_features_used=["NEON", "DOTPROD"],
        backends=["cpu"],
        threads=4,
        vision_threads=4,
        placement=[],
        text_model_sha256="4f" * 32,
        mmproj_sha256="a1" * 32,
        load_ms=210.0,
        pid=4711,
    )


@dataclass
class RunWriter:
    """Writes a run folder; a test says only what it cares for. Cases stand in threes."""

    path: Path
    cases: int = 24
    arms: tuple[str, ...] = ARMS
    phones: tuple[str, ...] = (REAL_PHONE, VIRTUAL_PHONE)
    run_id: str = "20261123-120000-abcd"
    contract: str = "default"
    picture_offset: int = 0
    case_ids: dict[int, str] = field(default_factory=dict)
    answers: dict[tuple[str, str | None, int], str] = field(default_factory=dict)
    """(arm, phone, case) -> label it says instead of the true one."""
    texts: dict[tuple[str, str | None, int], str] = field(default_factory=dict)
    faults: dict[tuple[str, str | None, int], RunnerFault] = field(default_factory=dict)
    absent: set[tuple[str, str | None]] = field(default_factory=set)
    throttled: set[int] = field(default_factory=set)
    refused: tuple[RefusedRecord, ...] = ()
    failures: tuple[ArmFailure, ...] = ()
    noise: dict[str, float] = field(default_factory=dict)
    milliseconds: float = 2400.0
    pictures: bool = True
    labelled: bool = True
    other_pixels: set[tuple[str, str | None, int]] = field(default_factory=set)
    """(arm, phone, case) that saw red and blue exchanged."""
    apart: dict[str, float] = field(default_factory=dict)
    """Arm -> how far its image embeddings are from the first arm's, over their length."""
    inquiry: Inquiry | None = None
    fallbacks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Quant type -> where its files hold other types."""
    canaries: bool = True
    leaking: set[tuple[str, str | None]] = field(default_factory=set)
    """(arm, phone) whose answer to the first image is another one when it comes last."""
    gates: Gates = field(default_factory=few_cases)
    days: int = 0
    """How much later than others it ran."""

    def write(self) -> Path:
        """The folder, as a finished run leaves it (but for the reports)."""
        loaded = contract.load(self.contract)
        pictures = [_picture(index + self.picture_offset) for index in range(self.cases)]
        hashes = [_sha256(picture) for picture in pictures]
        record = RunRecord(
            run_id=self.run_id,
            started_at=datetime(2026, 11, 23, 12, 0, tzinfo=UTC) + timedelta(days=self.days),
            contract=loaded,
            contract_sha256=loaded.sha256,
            bundle=BundleRecord(
                path="bundles/tiny",
                sha256="9b" * 32,
                summary={"quants": ["q8_0"]},
                fallbacks=self.fallbacks,
            ),
            arms=self.arms,
            phones=tuple(_phone(serial, serial == VIRTUAL_PHONE) for serial in self.phones),
            cases=tuple(
                CaseRecord(
                    id=self._case_id(index),
                    path=f"images/{index:03d}.png",
                    label=LABELS[index % 5] if self.labelled else None,
                    session=index // 3,
                    position=index % 3,
                    pixels_sha256=hashes[index],
                )
                for index in range(self.cases)
            ),
            canaries=self._canary_records(hashes) if self.canaries else (),
            refused=self.refused,
            packages={"driftloop": "0.1.0", "torch": "2.13.0"},
            git_commit="c0ffee" * 6,
            seed=7,
            gates=self.gates,
        )
        if self.pictures:
            (self.path / "pixels").mkdir(parents=True, exist_ok=True)
            for index, picture in enumerate(pictures):
                picture.save(self.path / "pixels" / f"{index:03d}.png")
            for _, _, index in self.other_pixels:
                other = _exchanged(pictures[index])
                other.save(self.path / "pixels" / f"{_sha256(other)}.png")
        with Journal(self.path, record) as journal:
            for arm, phone in record.deliveries:
                if (arm, phone) in self.absent:
                    continue
                journal.attest(ArmAttestation(arm=arm, phone=phone, attestation=_attestation(arm)))
                for index, case in enumerate(record.cases):
                    journal.append(self._observation(record, arm, phone, index, case))
                if record.carries_canaries(arm):
                    for case in record.canaries:
                        journal.append(self._canary(record, arm, phone, case))
            for failure in self.failures:
                journal.fail(failure)
            if self.inquiry is not None:
                journal.learn(**dict(self.inquiry))
            journal.finish(datetime(2026, 11, 23, 12, 9, tzinfo=UTC))
        return self.path

    def _canary_records(self, hashes: list[str]) -> tuple[CaseRecord, ...]:
        """As a run has them: black, mirror, twice, then the first session backwards."""
        session = -(-self.cases // 3)
        named: list[tuple[Canary, int]] = [
            ("black", _BLACK), ("mirror", _MIRROR), ("twice", 0), ("twice", 0),
            ("reversed", 2), ("reversed", 1), ("again", 0),
        ]  # fmt: skip
        return tuple(
            CaseRecord(
                id=self._case_id(index) if index < 3 else name,
                path="",
                label=None,
                session=session + place // 4,
                position=place % 4,
                pixels_sha256=hashes[index] if index < 3 else f"{index:064d}",
                canary=name,
            )
            for place, (name, index) in enumerate(named)
        )

    def _canary(
        self, record: RunRecord, arm: str, phone: str | None, case: CaseRecord
    ) -> Observation:
        index = {"black": _BLACK, "mirror": _MIRROR}.get(case.canary or "")
        if index is None:
            index = next(
                place
                for place, one in enumerate(record.cases)
                if one.pixels_sha256 == case.pixels_sha256
            )
        if case.canary == "again" and (arm, phone) in self.leaking:
            index += 5
        seen = self._observation(record, arm, phone, index, case)
        return seen.model_copy(update={"canary": case.canary})

    def _case_id(self, index: int) -> str:
        return self.case_ids.get(index, f"{LABELS[index % 5]}/{index:03d}.png")

    def _observation(
        self, record: RunRecord, arm: str, phone: str | None, index: int, case: CaseRecord
    ) -> Observation:
        place = (arm, phone, index)
        label = self.answers.get(place, LABELS[index % 5])
        fault = self.faults.get(place)
        logprobs = self._logprobs(arm, index, label)
        top = [
            TokenLogprob(id=100 + LABELS.index(name), logprob=value)
            for name, value in logprobs.items()
        ]
        top.sort(key=lambda item: -item.logprob)
        token = Token(id=top[0].id, piece=label, logprob=top[0].logprob, top=top)
        return Observation(
            contract_sha256=record.contract_sha256,
            arm=arm,
            phone=phone,
            case_id=case.id,
            session=case.session,
            position=case.position,
            pixels_sha256=(
                _sha256(_exchanged(_picture(index + self.picture_offset)))
                if place in self.other_pixels
                else case.pixels_sha256
            ),
            grid=(0, 0),
            image_tokens=4,
            prompt_ids=[1, -1, -1, -1, -1, 9],
            tokens=[] if fault else [token],
            label_logprobs={} if fault else logprobs,
            evidence=Evidence() if fault else self._evidence(arm, index),
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
        noise = self.noise.get(arm, 1e-4)
        total = math.log(sum(math.exp(score) for score in scores.values()) + 1.5)
        return {name: score - total + moved.uniform(0, noise) for name, score in scores.items()}

    def _evidence(self, arm: str, index: int) -> Evidence:
        steady = np.random.default_rng(index).normal(size=(4, 96)).astype(np.float32)
        moved = np.random.default_rng(index + 1000).normal(size=(4, 96)).astype(np.float32)
        embed = steady + self.apart.get(arm, 0.0) * moved
        return Evidence(pixels=fingerprint(steady[:1]), embed=fingerprint(embed))

    def _timings(self, arm: str, phone: str | None, index: int) -> Timings:
        draw = random.Random(f"{arm} {phone} {index}")
        slow = 1.6 if index in self.throttled else 1.0
        whole = self.milliseconds * slow * draw.uniform(0.92, 1.12) * (1 if phone else 0.2)
        whole *= 1.7 if phone == VIRTUAL_PHONE else 1.0
        parts = [0.012, 0.001, 0.58, 0.31, 0.08]
        decode, tokenize, encode, prefill, steps = (whole * part for part in parts)
        return Timings(
            image_decode=decode,
            tokenize=tokenize,
            encode=[encode],
            prefill=prefill,
            decode=[steps / 2, steps / 2],
            total=whole,
        )

    def _conditions(self, phone: str | None, index: int) -> Conditions:
        if phone is None:
            return Conditions(cached=index % 2 == 0, memory_peak_kib=310_000)
        return Conditions(
            thermal_status=2 if index in self.throttled else 0,
            temp_c=31.5 + 0.3 * index,
            battery_percent=87 - index // 8,
            battery_temp_c=29.0,
            power_source="usb",
            cpu_max_ratio=0.8 if index in self.throttled else 1.0,
            throttled=index in self.throttled,
            memory_peak_kib=412_000,
            boot_id="b00t",
            load_ms=640.0,
        )


@pytest.fixture
def run_writer(tmp_path: Path) -> Callable[..., RunWriter]:
    """`run_writer(**what_matters).write()` gives a run folder."""
    made = 0

    def writer(**fields: object) -> RunWriter:
        nonlocal made
        made += 1
        return RunWriter(tmp_path / f"run{made}", **fields)  # type: ignore[arg-type]

    return writer
