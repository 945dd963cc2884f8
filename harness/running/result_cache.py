"""Answers of the arms on this host, kept by content: a second phone costs only phone time.

Position and session do not matter to an answer (the KV cache is cleared after every image), so
one answer serves every place of the same pixels. A canary tests exactly that: it is always run.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from driftloop.devices.paths import cache_dir
from driftloop.devices.runner.protocol import PROTOCOL_VERSION, Attestation
from driftloop.harness import atomic
from driftloop.harness.arms.base import Prepared, runtime
from driftloop.harness.contract import Contract
from driftloop.harness.ladder import ArmSpec
from driftloop.harness.records.observation import SCHEMA_VERSION, Observation

_Model = TypeVar("_Model", bound=BaseModel)


def arm_key(
    spec: ArmSpec, contract: Contract, file_hashes: Sequence[str], versions: Mapping[str, str]
) -> str:
    """SHA-256 over everything that decides this arm's answers, pixels excepted.

    `file_hashes`: SHA-256 of the bundle's files the arm reads, in a fixed order. `versions`:
    package -> version of what computes (llama-cpp-python, or torch and transformers). How a label
    is read from the text decides no answer: `ResultCache.get` reads it anew.
    """
    content = {
        "schema": SCHEMA_VERSION,
        # Which evidence an answer holds, and how it is computed.
        "protocol": PROTOCOL_VERSION,
        # Under equal contracts `torch:training` is `torch`.
        "arm": spec.name if spec.quant else spec.kind,
        "files": list(file_hashes),
        "versions": dict(versions),
        # Processors differ in their kernels, and hosts may share a home folder.
        "host": [platform.machine(), _processor()],
        "tiling": contract.tiling,
        "prompt": contract.prompt.model_dump(mode="json"),
        "max_tokens": contract.limits.max_tokens,
        "decoding": contract.decoding.model_dump(mode="json"),
        "labels": contract.answer.labels,
        "runtime": None
        if spec.kind == "torch"
        else runtime(spec, contract).model_dump(mode="json"),
    }
    return _sha256(json.dumps(content, sort_keys=True))


class ResultCache:
    """Observations of one arm under its `arm_key`, one JSON file per image.

    What is kept is written in one step; methods that write raise OSError where they cannot.
    """

    def __init__(self, key: str, root: Path | None = None) -> None:
        """`root`: where to keep them instead of driftloop's cache."""
        self._folder = (root or cache_dir("results")) / key

    def get(self, image: Prepared, contract: Contract, arm: str) -> Observation | None:
        """The kept answer for these pixels, put in `image`'s place, as `arm`'s under `contract`;
        None where there is none or it cannot be read, and for a canary."""
        if image.canary is not None:
            return None
        kept = read_kept(self._folder / f"{image.pixels_sha256}.json", Observation)
        return kept and kept.model_copy(
            update={
                "contract_sha256": contract.sha256,
                "arm": arm,
                "label": contract.answer.read(kept.text),
                "case_id": image.case_id,
                "session": image.session,
                "position": image.position,
                "conditions": kept.conditions.model_copy(update={"cached": True}),
            }
        )

    def put(self, image: Prepared, observation: Observation) -> None:
        """Keep an answer, unless it is a canary's or has an error: faults may go away."""
        if image.canary is None and observation.error is None:
            self._keep(f"{image.pixels_sha256}.json", observation.model_dump_json())

    def attestation(self) -> Attestation | None:
        """Who gave the kept answers; None where nothing was kept or it cannot be read."""
        return read_kept(self._folder / "attestation.json", Attestation)

    def keep_attestation(self, attestation: Attestation) -> None:
        """Keep who answers, beside the answers."""
        self._keep("attestation.json", attestation.model_dump_json())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Until the block ends, no other process of this host is in such a block of this key.

        Runs side by side would otherwise all compute the same answers. Look for them once more
        inside: another process may have kept them meanwhile.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / "computing.lock"):
            yield

    def holds(self, image: Prepared) -> bool:
        """Whether there is a file for these pixels; never for a canary."""
        return image.canary is None and (self._folder / f"{image.pixels_sha256}.json").exists()

    def ms_per_image(self, phone: str | None = None) -> float | None:
        """How long an image last took this arm, here or on that phone; None where it is unknown."""
        try:
            return float((self._folder / _pace_name(phone)).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def keep_ms_per_image(self, ms: float, phone: str | None = None) -> None:
        """Keep how long an image took."""
        self._keep(_pace_name(phone), f"{ms:.1f}")

    def _keep(self, name: str, text: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self._folder / name, text)


def read_kept(path: Path, model: type[_Model]) -> _Model | None:
    """The record in a file of a cache; None where it is missing or damaged."""
    try:
        return model.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def _pace_name(phone: str | None) -> str:
    return f"ms-per-image{'' if phone is None else f'-{phone}'}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    # Model name and feature flags, but no frequency: that changes between two reads.
    named = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return _sha256("\n".join(sorted(set(named))))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
