"""Whether `driftloop latency` finds a runner that is 10 % slower, and is silent where none is.

python -m tests.bench.latency_trials      10 trials of a slower runner, 20 of one against itself

For a machine with nothing else to do, where it takes half an hour or so: what else runs there is
the noise of the phone. A trial in too much noise ends as inconclusive, which finds nothing.

One thread: a virtual phone shares its cores with the host that looks after it, and ggml's threads
wait for each other. With as many of them as cores, an image takes up to a hundred times as long
whenever another program wants a core.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from driftloop.devices import adb, virtual
from driftloop.devices.runner import variants
from driftloop.devices.runner.build import runner_binary
from driftloop.fixtures import demo, textures
from driftloop.fixtures.cached import remark
from driftloop.fixtures.drifts import release
from driftloop.harness.gates_file import TrialRule
from driftloop.harness.judgement.verdict import Word
from driftloop.harness.progress import Unseen
from driftloop.harness.trials.record import TrialOutcome
from driftloop.harness.trials.trial import Entry, TrialRequest, run_trial
from tests.bench.ratios import Row
from tests.runner_work import ONE_THREAD

FOUND_AT_LEAST = 0.9
IMAGES_PER_RUN = 61
"""Of a model whose image takes 10 ms: a run of more than half a second, and the warm-up."""
MAX_RUNS = 60
"""A side: enough where runs spread by 8 %, and cheap where a run takes two seconds."""


def main(
    slow: int = 10,
    same: int = 20,
    images_per_run: int = IMAGES_PER_RUN,
    contract: Annotated[
        str | None, typer.Option(help="In place of the default with a single thread.")
    ] = None,
) -> None:
    """How many slow runners are found, and how many alarms there are without one.

    Exit code: 0, or 1 where fewer are found than was promised, or an alarm was raised.
    """
    bundle = demo.bundle(remark)
    with virtual.started("x86_64") as phone, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        textures.save(folder / "images", images_per_run, seed=12)
        variant = variants.choose(adb.find(phone.serial).identity())
        slow_runner = runner_binary(variant, prelude=release.PRELUDES / "slow.h")
        single = release.contract({"runtime": ONE_THREAD}, folder / "one-thread.toml")
        entry = Entry(bundle, contract or single)

        def verdicts(name: str, runner: Path | None, trials: int) -> Counter[Word]:
            words = Counter[Word]()
            for number in range(trials):
                request = TrialRequest(
                    phone=phone.serial,
                    baseline=entry,
                    candidate=replace(entry, runner=runner),
                    images=str(folder / "images"),
                    out=folder / f"{name}-{number}",
                    images_per_run=images_per_run,
                    rule=TrialRule(max_runs=MAX_RUNS),
                )
                outcome = run_trial(request, Unseen(), remark).outcome
                words[outcome.verdict] += 1
                remark(f"{name} {number + 1} of {trials}: {_line(outcome)}")
            return words

        slower = verdicts("slower", slow_runner, slow)
        alike = verdicts("same", None, same)
    rows = (
        Row(
            "latency trials of a runner 10 % slower: found",
            _found(slower, slow),
            f">= {FOUND_AT_LEAST:.0%}",
            slower["FAIL"] >= FOUND_AT_LEAST * slow,
        ),
        Row(
            "latency trials of a runner against itself: alarms",
            _found(alike, same),
            "0",
            alike["FAIL"] == 0,
        ),
    )
    for row in rows:
        sys.stdout.write(f"{row}\n")
    raise typer.Exit(0 if all(row.met for row in rows) else 1)


def _found(words: Counter[Word], trials: int) -> str:
    doubt = words["INCONCLUSIVE"] + words["INFRA"]
    return f"{words['FAIL']} of {trials}" + (f", {doubt} undecided" if doubt else "")


def _line(outcome: TrialOutcome) -> str:
    runs = outcome.runs_taken["candidate"]
    noise = "unknown" if outcome.noise_floor is None else f"{outcome.noise_floor:.1%}"
    ratio = "-" if outcome.ratio is None else f"{outcome.ratio:.3f}"
    return f"{outcome.verdict}, ratio {ratio}, noise {noise}, {runs} runs a side"


if __name__ == "__main__":
    typer.run(main)
