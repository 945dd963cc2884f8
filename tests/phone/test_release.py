"""The acceptance suite of a release: one test per phone and gate, against the phones you name.

    pytest tests/phone --driftloop-bundle BUNDLE --driftloop-images IMAGES [--driftloop-phone ...]

Each gate is a marker: `-m agreement`. The test `verdict` is about the run as a whole and fails
wherever `driftloop run` exits with another code than 0. What is not judged here (the times of a
virtual phone, accuracy without labels) is skipped with its reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from driftloop.plugin import BASELINE, OBSERVATIONS, VERDICT

if TYPE_CHECKING:
    from driftloop.harness.evaluation import Evaluation
    from driftloop.harness.judgement.gate import Outcome


def test_gate(evaluation: Evaluation, driftloop_gate: str, pytestconfig: pytest.Config) -> None:
    option = pytestconfig.option
    outcome, lines = _found(evaluation, driftloop_gate, option.driftloop_baseline)
    if outcome == "pass":
        return
    said = "\n".join(lines)
    if outcome == "fail":
        pytest.fail(said, pytrace=False)
    if outcome == "inconclusive" and not option.driftloop_allow_inconclusive:
        pytest.fail(f"inconclusive: {said}", pytrace=False)
    pytest.skip(f"{outcome}: {said}")


def _found(evaluation: Evaluation, gate: str, baseline: str | None) -> tuple[Outcome, list[str]]:
    """The gate's outcome on the evaluated phone, and what it comes from."""
    verdict = evaluation.verdict
    if gate == BASELINE and baseline is not None:
        new = _new_since(baseline, evaluation)
        return "fail" if new else "pass", new
    owed = [
        f"{one.arm}: {one.missing} of {one.of} missing: {one.why}" for one in verdict.undelivered
    ]
    if gate == OBSERVATIONS:
        return "fail" if owed else "pass", owed
    if gate == VERDICT:
        from driftloop.reports.answers import headline

        said = headline(evaluation)
        if verdict.verdict == "INCONCLUSIVE":
            return "inconclusive", [said, *verdict.reasons]
        lines = [f"{verdict.verdict}: {said}", *verdict.reasons]
        return "fail" if verdict.exit_code else "pass", lines
    found: dict[Outcome, list[str]] = {}
    for one in verdict.gates:
        if one.name == gate:
            found.setdefault(one.outcome, []).append(f"{one.hop or one.arm}: {one.why}")
    gravest: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
    result: Outcome = next((one for one in gravest if one in found), "not judged")
    if owed and result in ("inconclusive", "not judged"):
        return "fail", owed
    return result, found.get(result, ["there is no arm to judge"])


def _new_since(baseline: str, run: Evaluation) -> list[str]:
    """Drifts that the earlier release did not have, or why that cannot be said."""
    from driftloop.harness import evaluation
    from driftloop.harness.errors import BadInput
    from driftloop.harness.releases.store import Store
    from driftloop.reports.changes import changes, refuse_if_nothing

    found = changes(run, evaluation.load(Store().folder(baseline)), baseline)
    try:
        refuse_if_nothing(found)
    except BadInput as error:
        return [str(error)]
    refused = [reason for one in found.refused if one.part == "drifts" for reason in one.reasons]
    return [f"drifts are not compared with {baseline}: {reason}" for reason in refused] + [
        f"new since {baseline}: {one.blame.hop}, {one.blame.stage}: {one.blame.sentence}"
        for one in found.drifts
        if one.change == "appeared"
    ]
