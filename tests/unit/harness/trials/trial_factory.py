"""Trials and their runs for tests of what is pure: only what a test is about needs saying."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from driftloop.devices.runner.protocol import Attestation
from driftloop.harness import contract
from driftloop.harness.gates_file import TrialRule
from driftloop.harness.trials import plan
from driftloop.harness.trials.plan import Contender, Phase
from driftloop.harness.trials.record import ContenderRecord, Reading, TrialRecord, TrialRun
from tests.unit.harness import run_factory

COOL = Reading(temp_c=30.0, power_source="usb", boot_id="boot")


def attestation(**over: object) -> Attestation:
    return run_factory.attestation(**({"threads": 4} | over)).attestation


def run(
    number: int = 0,
    phase: Phase = "trial",
    contender: Contender = "baseline",
    median_ms: float = 100.0,
    **over: object,
) -> TrialRun:
    """One whose first image took three times as long."""
    content: dict[str, Any] = {
        "number": number,
        "phase": phase,
        "contender": contender,
        "images_ms": (3 * median_ms, median_ms, median_ms),
        "stages_ms": {"encode": 0.6 * median_ms, "tokenize": 0.0, "total": median_ms},
        "new_tokens": 9,
        "attestation": attestation(),
        "before": COOL,
        "after": COOL,
    }
    return TrialRun(**(content | over))


def contender(**over: object) -> ContenderRecord:
    content: dict[str, Any] = {
        "bundle": "bundle",
        "bundle_sha256": "b",
        "quant": "q8_0",
        "text_sha256": "t",
        "mmproj_sha256": "m",
        "contract": contract.load("default"),
        "runner": None,
        "runner_sha256": "r" * 64,
        "case_ids": ("a", "b", "c"),
        "pixels_sha256": ("1", "2", "3"),
    }
    return ContenderRecord(**(content | over))


def trial(rule: TrialRule, runs: Sequence[TrialRun] = (), **over: object) -> TrialRecord:
    content: dict[str, Any] = {
        "trial_id": "trial",
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        "phone": run_factory.phone_record("S").model_copy(update={"boot_id": "boot"}),
        "baseline": contender(),
        "candidate": contender(),
        "rule": rule,
        "runs": tuple(runs),
    }
    return TrialRecord(**(content | over))


def whole(rule: TrialRule, slower: float, scatter: Sequence[float] = (0.0, 0.01)) -> TrialRecord:
    """A trial with every run it asks for; each side's are slower by `scatter`, in a circle."""
    seen = trial(rule)
    while (step := plan.next_step(seen.medians, rule)) is not None:
        factor = 1 + slower if step.contender == "candidate" else 1.0
        nth = len(seen.usable(step.phase, step.contender))
        median_ms = 100.0 * factor * (1 + scatter[nth % len(scatter)])
        taken = run(len(seen.runs), step.phase, step.contender, median_ms)
        seen = seen.model_copy(update={"runs": (*seen.runs, taken)})
    return seen
