"""Answers of the arms on this host, kept by content: a second phone costs only phone time.

Position and session do not matter to an answer (the KV cache is cleared after every image), so
one answer serves every place at which the same pixels stand. A canary watches for the arm on which
they do matter after all: it is always run.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from devices.paths import cache_dir
from devices.runner.protocol import PROTOCOL_VERSION, Attestation
from harness import atomic
from harness.arms.base import Prepared
from harness.contract import Contract
from harness.ladder import ArmSpec
from harness.records.observation import SCHEMA_VERSION, Observation


def arm_key(
    spec: ArmSpec, contract: Contract, file_hashes: Sequence[str], versions: Mapping[str, str]
) -> str:
    """SHA-256 over everything that decides this arm's answers, pixels excepted.

    `file_hashes`: SHA-256 of the bundle's files the arm reads, in a fixed order. `versions`:
    package -> version of what computes (llama-cpp-python, or torch and transformers). How a label
    is read from the text decides no answer: `ResultCache.get` reads it anew.
    """
    runtime = contract.runtime if spec.app_runtime else contract.runtime.reference()
    content = {
        "schema": SCHEMA_VERSION,
        # What evidence is told of an answer, and how it is computed.
        "protocol": PROTOCOL_VERSION,
        # Under equal contracts `torch:training` is `torch`.
        "arm": spec.name if spec.quant else spec.kind,
        "files": list(file_hashes),
        "versions": dict(versions),
        # Other processors take other kernels, and a home folder may be shared between hosts.
        "host": [platform.machine(), _processor()],
        "tiling": contract.tiling,
        "prompt": contract.prompt.model_dump(mode="json"),
        "max_tokens": contract.limits.max_tokens,
        "decoding": contract.decoding.model_dump(mode="json"),
        "labels": contract.answer.labels,
        "runtime": None if spec.kind == "torch" else runtime.model_dump(mode="json"),
    }
    return _sha256(json.dumps(content, sort_keys=True))


class ResultCache:
    """Observations of one arm under its `arm_key`, one JSON file per picture."""

    def __init__(self, key: str, root: Path | None = None) -> None:
        """`root`: where to keep them instead of driftloop's cache."""
        self._folder = (root or cache_dir("results")) / key

    def get(self, image: Prepared, contract: Contract, arm: str) -> Observation | None:
        """The kept answer for these pixels, put in `image`'s place, as `arm`'s under `contract`;
        None where there is none, and for a canary.

        A file that cannot be read or parsed counts as none: it is written anew by `put`.
        """
        if image.canary is not None:
            return None
        try:
            text = self._path(image.pixels_sha256).read_text("utf-8")
            kept = Observation.model_validate_json(text)
        except (OSError, UnicodeDecodeError, ValidationError):
            return None
        return kept.model_copy(
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
        """Keep an answer; not a canary's, nor one with an error: a fault is worth another look.

        Raises:
            OSError: the cache cannot be written.
        """
        if image.canary is not None or observation.error is not None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self._path(image.pixels_sha256), observation.model_dump_json())

    def attestation(self) -> Attestation | None:
        """Who gave the kept answers; None where nothing was kept or it cannot be read."""
        try:
            return Attestation.model_validate_json(self._attestation_path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    def keep_attestation(self, attestation: Attestation) -> None:
        """Keep who answers, beside the answers. Raises OSError as `put` does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self._attestation_path, attestation.model_dump_json())

    def holds(self, image: Prepared) -> bool:
        """Whether there is a file for these pixels; never for a canary."""
        return image.canary is None and self._path(image.pixels_sha256).exists()

    def ms_per_image(self, phone: str | None = None) -> float | None:
        """How long an image last took this arm, here or on that phone; None where it is unknown."""
        try:
            return float(self._pace_path(phone).read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def keep_ms_per_image(self, ms: float, phone: str | None = None) -> None:
        """Keep how long an image took. Raises OSError as `put` does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self._pace_path(phone), f"{ms:.1f}")

    def _pace_path(self, phone: str | None) -> Path:
        return self._folder / f"ms-per-image{'' if phone is None else f'-{phone}'}"

    @property
    def _attestation_path(self) -> Path:
        return self._folder / "attestation.json"

    def _path(self, pixels_sha256: str) -> Path:
        return self._folder / f"{pixels_sha256}.json"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    # Model name and feature flags, not frequency: that changes from one read to the next.
    named = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return _sha256("\n".join(sorted(set(named))))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
