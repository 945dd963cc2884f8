"""From a trial's runs to its outcome; pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean, median

from harness.gates_file import TrialRule
from harness.judgement.verdict import Word
from harness.trials import plan, welch
from harness.trials.plan import Noise
from harness.trials.record import CONTENDERS, TrialOutcome, TrialRecord
from harness.trials.welch import Comparison


def judge(record: TrialRecord) -> TrialOutcome:
    """The outcome of a trial that needs, or is allowed, no more runs.

    What its bounds show stands, however many runs the noise floor asked for. INCONCLUSIVE where
    they show neither; INFRA where too many runs had to be left out.
    """
    rule, medians = record.rule, record.medians
    baseline_ms, candidate_ms = (medians.trial[contender] for contender in CONTENDERS)
    noise = plan.noise(medians, rule) if len(medians.floor) >= rule.floor_runs else None
    known = TrialOutcome(
        verdict="INFRA",
        sentence=_left_out(record),
        noise_floor=None if noise is None else noise.sigma,
        runs_needed=None if noise is None else noise.runs_needed,
        runs_taken={"baseline": len(baseline_ms), "candidate": len(candidate_ms)},
        excluded=dict(record.excluded),
    )
    if noise is None or plan.next_step(medians, rule) is not None:
        return known
    compared = welch.compare(baseline_ms, candidate_ms, rule)
    word, sentence = _decided(compared, noise, len(candidate_ms), rule)
    return known.model_copy(
        update={
            "verdict": word,
            "sentence": sentence,
            "median_ms": {
                "baseline": geometric_mean(baseline_ms),
                "candidate": geometric_mean(candidate_ms),
            },
            "ratio": compared.ratio,
            "lower": compared.lower,
            "upper": compared.upper,
            "stage_ratios": _stage_ratios(record),
        }
    )


def _decided(compared: Comparison, noise: Noise, taken: int, rule: TrialRule) -> tuple[Word, str]:
    runs = f"{taken} runs a side"
    match welch.slower(compared, rule):
        case True:
            least = f"at least {_share(compared.lower)} ({1 - rule.level:.0%} sure)"
            return "FAIL", (
                f"slower by {_share(compared.ratio)}, {least}, over {runs}; "
                f"{rule.margin:.0%} is allowed"
            )
        case False:
            side = "at least" if compared.upper < 1 else "at most"
            most = f"{side} {_than(compared.upper)} ({rule.power:.0%} sure)"
            return "PASS", (
                f"{_than(compared.ratio)}, {most}, over {runs}; "
                f"{rule.detect:.0%} or more slower is ruled out"
            )
    seen = f"over {runs} it is {_than(compared.ratio)}, which is too close to tell"
    if noise.runs_needed <= taken:
        return "INCONCLUSIVE", f"{seen}: run the trial again, or raise latency.trial.power"
    return "INCONCLUSIVE", (
        f"the noise floor of this phone is {noise.sigma:.1%}: to tell {rule.detect:.0%} from "
        f"{rule.margin:.0%}, {noise.runs_needed} runs a side would be needed, {rule.max_runs} are "
        f"allowed; {seen}"
    )


def _left_out(record: TrialRecord) -> str:
    counts = ", ".join(f"{count} {why}" for why, count in record.excluded.items())
    return (
        f"{record.excluded.total()} of {len(record.runs)} runs had to be left out ({counts}), "
        f"{record.rule.max_excluded} are allowed: too few are left to compare"
    )


def _stage_ratios(record: TrialRecord) -> dict[str, float]:
    """Of the medians over runs; a stage that takes no time has none."""
    by_side = [_stage_medians(record, contender) for contender in CONTENDERS]
    return {
        stage: by_side[1][stage] / baseline_ms
        for stage, baseline_ms in by_side[0].items()
        if baseline_ms > 0
    }


def _stage_medians(record: TrialRecord, contender: plan.Contender) -> dict[str, float]:
    runs: Sequence[dict[str, float]] = [run.stages_ms for run in record.usable("trial", contender)]
    return {stage: median(run[stage] for run in runs) for stage in runs[0]}


def _share(ratio: float) -> str:
    return f"{ratio - 1:.1%}"


def _than(ratio: float) -> str:
    """`2.0% slower` or `2.0% faster`."""
    if ratio < 1:
        return f"{1 - ratio:.1%} faster"
    return f"{_share(ratio)} slower"
