"""How far rounding alone carries on the model under test, measured on it: see `Floor`.

An arm's twins are the arm again with a negligible change. The floor is measured once per bundle,
contract and host, and kept by content; the answers that come with it count as the arm's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from driftloop.devices.paths import cache_dir
from driftloop.harness import atomic, stats
from driftloop.harness.arms.base import Prepared, TwinArm
from driftloop.harness.comparison.case_comparison import CaseComparison, compare_case
from driftloop.harness.progress import Advance
from driftloop.harness.records.inquiry import Floor
from driftloop.harness.records.observation import Observation
from driftloop.harness.running.open_run import OpenRun
from driftloop.harness.running.result_cache import ResultCache, read_kept
from driftloop.harness.tolerance import Tolerance

CASES: Final = 24
"""Images behind the floor of the text model: the largest of 22 values bounds the 90th percentile at
0.9, so that a run of eight sessions measures it whole."""
VISION_CASES: Final = 6
"""Images behind the floor of `embed`, each of which runs the vision tower once more."""
SEED: Final = 0
_QUANTILE: Final = 0.9
_CONFIDENCE: Final = 0.9
_NO_LIMITS: Final = Tolerance(*(float("inf"),) * 5)


def measure(run: OpenRun) -> None:
    """Of every desktop arm, before anything is judged by it: a flip within a floor is numeric.

    An arm that cannot is kept as an `ArmFailure` of the run, as when it cannot answer.
    """
    found = []
    for spec in run.plan.runnable:
        if spec.kind != "desktop":
            continue
        images = [one for one in run.plan.side(spec).images.values() if one.canary is None]
        with run.journal.failures_kept(spec.name, None):
            advance = run.progress.track(f"floor of {spec.name}")
            found.append(measured(run.on_host(spec), run.plan.arm_key(spec), images, advance))
    run.journal.learn(floors=tuple(found))


def measured(arm: TwinArm, key: str, images: Sequence[Prepared], advance: Advance) -> Floor:
    """The floor of a desktop arm, under its `arm_key`, over the first of a run's `images`.

    Raises:
        BundleError, ContractError: as `Arm.observe`.
        OSError: the cache cannot be written.
    """
    wanted, answers = images[:CASES], ResultCache(key)
    if (floor := _kept(key, len(wanted))) is None:
        with answers.alone():
            floor = _kept(key, len(wanted)) or _measured(arm, answers, wanted, advance)
            atomic.write_text(cache_dir("floors") / f"{key}.json", floor.model_dump_json())
    return floor.model_copy(update={"arm": arm.name})


def _measured(
    arm: TwinArm, answers: ResultCache, wanted: Sequence[Prepared], advance: Advance
) -> Floor:
    answers.keep_attestation(arm.attest())
    text: list[CaseComparison] = []
    vision: list[CaseComparison] = []
    advance(0, len(wanted))
    twinned = zip(wanted, arm.twin(wanted, SEED, VISION_CASES), strict=True)
    for done, (image, twins) in enumerate(twinned, start=1):
        answers.put(image, twins.own)
        text += _compared(twins.own, twins.embed)
        vision += _compared(twins.own, twins.pixels)
        advance(done, len(wanted))
    both = [*text, *vision]
    return Floor(
        arm=arm.name,
        cases=len(text),
        vision_cases=len(vision),
        embed=upper_bound(case.distances.get("embed") for case in vision),
        prefill=upper_bound(case.distances.get("prefill") for case in both),
        label_logprob=upper_bound(
            max(case.label_logprob_differences.values(), default=None) for case in both
        ),
        margin=upper_bound(
            None
            if case.reference_margin is None or case.candidate_margin is None
            else abs(case.reference_margin - case.candidate_margin)
            for case in both
        ),
    )


def runs(key: str, cases: int) -> int:
    """How often the arm of that key is run anew for its floor in a run of `cases`, at most."""
    wanted = min(CASES, cases)
    return 0 if _kept(key, wanted) else wanted + min(VISION_CASES, wanted)


def _kept(key: str, cases: int) -> Floor | None:
    """An earlier run's, if it was measured on at least that many cases."""
    kept = read_kept(cache_dir("floors") / f"{key}.json", Floor)
    return kept if kept is not None and kept.cases >= cases else None


def _compared(own: Observation, twin: Observation | None) -> Iterable[CaseComparison]:
    if twin is not None and own.error is None and twin.error is None:
        yield compare_case(own, twin, _NO_LIMITS)


def upper_bound(values: Iterable[float | None]) -> float | None:
    """An upper bound of the 90th percentile; of too few values for one, the largest."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    _, high = stats.quantile_bounds(known, _QUANTILE, _CONFIDENCE)
    return max(known) if high is None else high
