"""A trial in words: the rows that every view shows, and `latency.md`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.trials.record import CONTENDERS, ContenderRecord, TrialRecord, TrialRun

Row = tuple[str, str]

RUN_COLUMNS = ("run", "what", "median ms", "images", "load ms", "temp C", "left out")


def facts(trial: TrialRecord) -> list[Row]:
    """What was compared, where, and what it took: name and value."""
    phone, outcome = trial.phone, trial.outcome
    rows = [
        ("phone", f"{phone.model}, Android {phone.android_version}, {phone.serial}{_kind(trial)}"),
        ("under", _conditions(trial)),
        *((name, _contender(getattr(trial, name))) for name in CONTENDERS),
    ]
    if outcome is None:
        return rows
    if outcome.noise_floor is not None:
        rows.append(("noise floor", f"{outcome.noise_floor:.1%} from run to run"))
        rows.append(("runs a side", f"{_runs(trial)}; {outcome.runs_needed} needed"))
    for name, ms in outcome.median_ms.items():
        rows.append((f"{name} ms", f"{ms:.1f} an image"))
    if outcome.ratio is not None:
        bounds = f"{outcome.lower:.3f} to {outcome.upper:.3f}"
        rows.append(("ratio", f"{outcome.ratio:.3f} ({bounds})"))
    if outcome.stage_ratios:
        stages = ", ".join(f"{name} {ratio:.2f}" for name, ratio in _stages(trial))
        rows.append(("by stage", stages))
    tokens = _tokens(trial)
    if len(set(tokens)) > 1:
        rows.append(("new tokens", f"{tokens[0]} and {tokens[1]} a run: answers differ"))
    if outcome.excluded:
        counts = ", ".join(f"{count} {why}" for why, count in outcome.excluded.items())
        rows.append(("left out", f"{counts}, of {len(trial.runs)} runs"))
    return rows


def rule(trial: TrialRecord) -> str:
    """What the trial was made to find, with which error rates."""
    held = trial.rule
    return (
        f"Made to fail a candidate slower by {held.detect:.0%} with a probability of "
        f"{held.power:.0%}, and one slower by {held.margin:.0%} or less with {held.level:.0%} at "
        f"most; {held.min_runs} to {held.max_runs} runs a side."
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
    return [_line(head), _line(["---"] * len(head)), *map(_line, cells)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _kind(trial: TrialRecord) -> str:
    return " (virtual)" if trial.phone.virtual else ""


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


def _runs(trial: TrialRecord) -> str:
    return " and ".join(str(len(trial.usable("trial", name))) for name in CONTENDERS)


def _stages(trial: TrialRecord) -> list[tuple[str, float]]:
    """Those in which the baseline spends a hundredth of its time at least."""
    runs = trial.usable("trial", "baseline")
    ratios = {} if trial.outcome is None else trial.outcome.stage_ratios
    shares = {
        name: sum(run.stages_ms[name] / run.stages_ms["total"] for run in runs) / len(runs)
        for name in ratios
    }
    return [
        (name, ratio) for name, ratio in ratios.items() if name != "total" and shares[name] >= 0.01
    ]


def _tokens(trial: TrialRecord) -> list[int]:
    """A run's, of each side that has run."""
    runs = [trial.usable("trial", name)[:1] for name in CONTENDERS]
    return [run.new_tokens for side in runs for run in side]
