"""A trial's outcome, and the words that every view of it shows; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import geometric_mean, median

from driftloop.harness.gates_file import TrialRule
from driftloop.harness.judgement.verdict import Word
from driftloop.harness.trials import plan
from driftloop.harness.trials.plan import Comparison, Noise
from driftloop.harness.trials.record import (
    CONTENDERS,
    ContenderRecord,
    TrialOutcome,
    TrialRecord,
    TrialRun,
)

RUN_COLUMNS = ("run", "what", "median ms", "images", "load ms", "temp C", "left out")


def judge(record: TrialRecord) -> TrialOutcome:
    """The outcome of a trial that needs, or is allowed, no more runs.

    Its bounds decide, however many runs the noise floor asked for. INCONCLUSIVE where they show
    neither; INFRA where too many runs had to be left out.
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
    compared = plan.compare(baseline_ms, candidate_ms, rule)
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
    match plan.slower(compared, rule):
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
    baseline, candidate = (
        [run.stages_ms for run in record.usable("trial", side)] for side in CONTENDERS
    )
    return {
        stage: median(run[stage] for run in candidate) / baseline_ms
        for stage in baseline[0]
        if (baseline_ms := median(run[stage] for run in baseline)) > 0
    }


def _share(ratio: float) -> str:
    return f"{ratio - 1:.1%}"


def _than(ratio: float) -> str:
    """`2.0% slower` or `2.0% faster`."""
    if ratio < 1:
        return f"{1 - ratio:.1%} faster"
    return f"{_share(ratio)} slower"


def facts(trial: TrialRecord) -> list[tuple[str, str]]:
    """What was compared, where, and what it took: name and value."""
    phone, outcome = trial.phone, trial.outcome
    kind = " (virtual)" if phone.virtual else ""
    rows = [
        ("phone", f"{phone.model}, Android {phone.android_version}, {phone.serial}{kind}"),
        ("under", _conditions(trial)),
        *((name, _contender(getattr(trial, name))) for name in CONTENDERS),
    ]
    if outcome is None:
        return rows
    if outcome.noise_floor is not None:
        rows.append(("noise floor", f"{outcome.noise_floor:.1%} from run to run"))
        runs = " and ".join(str(len(trial.usable("trial", name))) for name in CONTENDERS)
        rows.append(("runs a side", f"{runs}; {outcome.runs_needed} needed"))
    for name, ms in outcome.median_ms.items():
        rows.append((f"{name} ms", f"{ms:.1f} an image"))
    if outcome.ratio is not None:
        bounds = f"{outcome.lower:.3f} to {outcome.upper:.3f}"
        rows.append(("ratio", f"{outcome.ratio:.3f} ({bounds})"))
    if outcome.stage_ratios:
        stages = ", ".join(f"{name} {ratio:.2f}" for name, ratio in _stages(trial))
        rows.append(("by stage", stages))
    tokens = [run.new_tokens for name in CONTENDERS for run in trial.usable("trial", name)[:1]]
    if len(set(tokens)) > 1:
        rows.append(("new tokens", f"{tokens[0]} and {tokens[1]} a run: answers differ"))
    if outcome.excluded:
        counts = ", ".join(f"{count} {why}" for why, count in outcome.excluded.items())
        rows.append(("left out", f"{counts}, of {len(trial.runs)} runs"))
    return rows


def rule(trial: TrialRecord) -> str:
    """What the trial was made to find, with which error rates."""
    own = trial.rule
    return (
        f"Made to fail a candidate slower by {own.detect:.0%} with a probability of "
        f"{own.power:.0%}, and one slower by {own.margin:.0%} or less with {own.level:.0%} at "
        f"most; {own.min_runs} to {own.max_runs} runs a side."
    )


def run_cells(run: TrialRun) -> tuple[str, ...]:
    """One run, under RUN_COLUMNS."""
    left_out = "" if run.excluded is None else f"{run.excluded}: {run.detail}"
    return (
        str(run.number),
        "noise floor" if run.phase == "floor" else run.contender,
        f"{run.median_ms:.1f}" if len(run.images_ms) > 1 else "-",
        str(len(run.images_ms)),
        f"{run.attestation.load_ms:.0f}" if run.attestation else "-",
        "-" if run.after.temp_c is None else f"{run.after.temp_c:.1f}",
        left_out,
    )


def markdown(trial: TrialRecord) -> str:
    """`latency.md`."""
    outcome = trial.outcome
    said = "not finished" if outcome is None else f"**{outcome.verdict}**: {outcome.sentence}"
    lines = ["# Latency trial", "", said, "", rule(trial), ""]
    lines += _table(("", ""), facts(trial))
    lines += ["", "## Runs", "", *_table(RUN_COLUMNS, map(run_cells, trial.runs)), ""]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *cells)]


def _conditions(trial: TrialRecord) -> str:
    counted = [run for run in trial.runs if run.excluded is None and run.attestation is not None]
    if not counted or counted[0].attestation is None:
        return "no run yet"
    first = counted[0].attestation
    source = counted[0].before.power_source or "unknown"
    return f"{first.threads} threads, {first.vision_threads} for vision; power: {source}"


def _contender(one: ContenderRecord) -> str:
    runner = f"runner {one.runner or one.runner_sha256[:12]}"
    return f"{one.bundle} ({one.quant}), contract {one.contract.name}, {runner}"


def _stages(trial: TrialRecord) -> list[tuple[str, float]]:
    """The ratios of stages in which the baseline spends at least a hundredth of its time."""
    runs = trial.usable("trial", "baseline")
    ratios = {} if trial.outcome is None else trial.outcome.stage_ratios
    shares = {
        name: sum(run.stages_ms[name] / run.stages_ms["total"] for run in runs) / len(runs)
        for name in ratios
    }
    return [
        (name, ratio) for name, ratio in ratios.items() if name != "total" and shares[name] >= 0.01
    ]
