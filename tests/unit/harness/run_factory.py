"""Small true records for tests of what is pure: only what a test is about needs saying."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from driftloop.devices.runner.protocol import (
    Attestation,
    Decoding,
    DrivenLayer,
    Evidence,
    Fingerprint,
    RunnerFault,
    RunSettings,
    Timings,
    Token,
    TokenLogprob,
)
from driftloop.harness import contract, gates_file
from driftloop.harness.arms.fingerprint import fingerprint
from driftloop.harness.gates_file import Gates
from driftloop.harness.ladder import Hop
from driftloop.harness.records.inquiry import DrivenCase, Floor
from driftloop.harness.records.observation import ArmAttestation, Conditions, Observation
from driftloop.harness.records.record import BundleRecord, CaseRecord, PhoneRecord, RunRecord
from driftloop.harness.tolerance import PARTS, DrivenLimit, Part, Tolerance

LABELS = {"water": -0.1, "land": -3.0, "fire": -4.0, "wood": -5.0, "metal": -6.0}
TOLERANCE = Tolerance(label_logprob=0.01, flip_margin=0.02, pixels=0.001, embed=0.01, prefill=0.05)
DRIVEN: dict[Part, DrivenLimit] = dict.fromkeys(PARTS, DrivenLimit(0.02, 0.01, 0.01)) | {
    "text attention": DrivenLimit(0.1, 0.02, 0.02),
    "text ffn": DrivenLimit(0.0, 0.0, 0.0),
}
OUTPUTS = (
    "pixels",
    "vision patches",
    *(f"vision layer {layer} {part}" for layer in range(3) for part in ("attention", "ffn")),
    "vision norm",
    "embed",
    "text embeddings",
    *(f"text layer {layer} {part}" for layer in range(3) for part in ("attention", "ffn")),
    "text norm",
    "prefill",
)
"""What a model of 3 + 3 layers puts out, in the order of computation."""


def token(id_: int, logprob: float = -0.1, top: dict[int, float] | None = None) -> Token:
    likeliest = top if top is not None else {id_: logprob, id_ + 1: logprob - 2}
    return Token(
        id=id_,
        piece=f"<{id_}>",
        logprob=logprob,
        top=[TokenLogprob(id=key, logprob=value) for key, value in likeliest.items()],
    )


def timings(total: float = 2000.0, decode: Sequence[float] = (10.0, 10.0)) -> Timings:
    stages = {"image_decode": 5.0, "tokenize": 1.0, "encode": [300.0, 200.0], "prefill": 100.0}
    return Timings.model_validate(stages | {"decode": list(decode), "total": total})


def observation(
    arm: str = "torch", index: int = 0, phone: str | None = None, **over: object
) -> Observation:
    """The observation of case `index`, three a session."""
    content: dict[str, Any] = {
        "contract_sha256": "c" * 64,
        "arm": arm,
        "phone": phone,
        "case_id": f"case-{index:02d}",
        "session": index // 3,
        "position": index % 3,
        "pixels_sha256": f"{index:064d}",
        "grid": (0, 0),
        "image_tokens": 4,
        "prompt_ids": [1, -1, -1, 2],
        "tokens": [token(10), token(2)],
        "label_logprobs": LABELS,
        "text": "water",
        "label": "water",
        "stop_reason": "eog",
        "timings_ms": timings(),
        "conditions": Conditions(),
    }
    return Observation.model_validate(content | over)


def observations(
    arm: str, n: int = 24, phone: str | None = None, **over: object
) -> list[Observation]:
    return [observation(arm, index, phone, **over) for index in range(n)]


def fault(kind: str = "decode") -> RunnerFault:
    return RunnerFault(kind=kind, detail="as the test wants it")


def moved(shape: tuple[int, ...], by: float) -> Fingerprint:
    """Of a tensor that is `by` of its length away from that of `by` 0."""
    tensor = np.random.default_rng(0).normal(size=shape) * (1 + by)
    return fingerprint(tensor.astype(np.float32))


def evidence(
    pixels: float = 0.0, embed: float = 0.0, prefill: float = 0.0, *, tokens: int = 4
) -> Evidence:
    """Each stage's tensor as far away from the others' as given; `tokens` of the image."""
    return Evidence(
        pixels=moved((1, 3, 8, 8), pixels),
        embed=moved((tokens, 16), embed),
        prefill=moved((50,), prefill),
    )


def driven_case(
    hop: Hop, index: int = 0, errors: Mapping[str, float] | None = None, **over: object
) -> DrivenCase:
    """Case `index` driven on `hop`: `errors` by output, next to nothing in others."""
    known = {"vision patches": 1e-7} | dict(errors or {})
    outputs = tuple(
        DrivenLayer(name=name, error=known.get(name, 0.0), gain=0.0, shift=0.0) for name in OUTPUTS
    )
    ends = {key: value for key, value in asdict(hop).items() if key != "changes"}
    case = {"case_id": f"case-{index:02d}", "session": index // 3, "position": index % 3}
    return DrivenCase.model_validate(ends | case | {"outputs": outputs} | over)


def floor(arm: str = "desktop:q8_0+app", **over: object) -> Floor:
    measured = {"embed": 1e-4, "prefill": 0.01, "label_logprob": 0.02, "margin": 0.03}
    return Floor.model_validate({"arm": arm, "cases": 24, "vision_cases": 6} | measured | over)


def flipped(arm: str, index: int, phone: str | None = None, **over: object) -> Observation:
    """An answer of `fire` where the factory's others say `water`, within every tolerance."""
    content: dict[str, Any] = {"tokens": [token(20)], "text": "fire", "label": "fire"}
    return observation(arm, index, phone, **(content | over))


def phone_record(serial: str = "PHONE1", *, virtual: bool = False) -> PhoneRecord:
    return PhoneRecord(
        serial=serial,
        virtual=virtual,
        model="Pixel",
        manufacturer="Google",
        abi="arm64-v8a",
        android_version="14",
    )


def case_records(n: int = 24, label: str | None = None) -> tuple[CaseRecord, ...]:
    return tuple(
        CaseRecord(
            id=f"case-{index:02d}",
            path=f"images/{index:02d}.png",
            label=label,
            session=index // 3,
            position=index % 3,
            pixels_sha256=f"{index:064d}",
        )
        for index in range(n)
    )


def run_record(
    arms: Sequence[str] = ("torch", "desktop:f16"),
    phones: Sequence[PhoneRecord] = (),
    gates: Gates | None = None,
    **over: object,
) -> RunRecord:
    default = contract.load("default")
    content: dict[str, Any] = {
        "run_id": "run-1",
        "started_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "contract": default,
        "contract_sha256": default.sha256,
        "bundle": BundleRecord(path="bundle", sha256="b" * 64, summary={"quants": ["q8_0"]}),
        "arms": tuple(arms),
        "phones": tuple(phones),
        "cases": case_records(),
        "packages": {"pydantic": "2"},
        "seed": 7,
        "gates": gates or gates_file.load(),
    }
    return RunRecord.model_validate(content | over)


def settings(**over: object) -> RunSettings:
    """As the default contract asks of arms with `+app`."""
    caches = {"cache_type_k": "q4_0", "cache_type_v": "q4_0", "flash_attention": True}
    sizes = {"context": 1024, "batch": 512, "micro_batch": 512, "max_tokens": 32}
    return RunSettings.model_validate(caches | sizes | {"decoding": Decoding()} | over)


def attestation(
    arm: str = "desktop:f16", pid: int = 1, phone: str | None = None, **over: object
) -> ArmAttestation:
    content: dict[str, Any] = {
        "protocol": 1,
        "llama_commit": "0c1e57098",
        "compiler": "clang",
        "target": "x86_64-linux-gnu",
        "variant": "x86_64",
        "backends": ["CPU"],
        "text_model_sha256": "t" * 64,
        "mmproj_sha256": "m" * 64,
        "load_ms": 12.5,
        "pid": pid,
    }
    content |= {"threads": 2, "vision_threads": 4, "placement": []}
    content |= {key: ["avx2"] for key in ("cpu_features_found", "cpu_features_used")}
    return ArmAttestation(
        arm=arm, phone=phone, attestation=Attestation.model_validate(content | over)
    )
