"""The acceptance suite of a release: one test per phone and gate, against the phones you name.

    pytest tests/phone --driftloop-bundle BUNDLE --driftloop-images IMAGES [--driftloop-phone ...]

A gate that could not be decided, or is not judged on this phone, is skipped with its reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from driftloop.plugin import DELIVERY

if TYPE_CHECKING:
    from driftloop.harness.evaluation import Evaluation


def test_gate(evaluation: Evaluation, driftloop_gate: str) -> None:
    verdict = evaluation.verdict
    if driftloop_gate == DELIVERY:
        owed = [
            f"{one.arm}: {one.missing} of {one.of} missing: {one.why}"
            for one in verdict.undelivered
        ]
        if owed:
            pytest.fail("\n".join(owed), pytrace=False)
        return
    results = [gate for gate in verdict.gates if gate.name == driftloop_gate]
    lines = {
        outcome: [
            f"{gate.hop or gate.arm}: {gate.why}" for gate in results if gate.outcome == outcome
        ]
        for outcome in ("fail", "inconclusive", "not judged", "pass")
    }
    if lines["fail"]:
        pytest.fail("\n".join(lines["fail"]), pytrace=False)
    if lines["inconclusive"]:
        pytest.skip(f"inconclusive: {'; '.join(lines['inconclusive'])}")
    if not lines["pass"]:
        pytest.skip(f"not judged: {'; '.join(lines['not judged']) or 'no arm to judge'}")
