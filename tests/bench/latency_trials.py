"""Whether `driftloop latency` finds a runner that is 10 % slower, and is silent where none is.

python -m tests.bench.latency_trials      10 trials of a slower runner, 20 of one against itself

For a machine with nothing else to do, where it takes half an hour or so: what else runs there is
the noise of the phone. A trial in too much noise ends as inconclusive, which finds nothing.

One thread: a virtual phone shares its cores with the host that looks after it, and ggml's threads
wait for each other. With as many of them as cores, an image takes up to a hundred times as long
whenever another program wants a core.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from devices import adb, virtual
from devices.runner import variants
from devices.runner.build import runner_binary
from fixtures import demo, textures
from harness.gates_file import TrialRule
from harness.judgement.verdict import Word
from harness.progress import Unseen
from harness.trials.contenders import Entry
from harness.trials.record import TrialOutcome
from harness.trials.trial import TrialRequest, run_trial
from tests.bench.ratios import Row

SLOW = Path(__file__).parents[2] / "fixtures" / "drifts" / "preludes" / "slow.h"
SLOW_TRIALS, SAME_TRIALS = 10, 20
FOUND_AT_LEAST = 0.9
IMAGES_PER_RUN = 61
"""Of a model whose image takes 10 ms: a run of more than half a second, and the warm-up."""

MAX_RUNS = 60
"""A side: enough where runs spread by 8 %, and cheap where a run takes two seconds."""
CONTRACT = """
extends = "default"
name = "one-thread"
[runtime]
threads = 1
vision_threads = 1
"""

Say = Callable[[str], None]


def rows(
    slow_trials: int = SLOW_TRIALS,
    same_trials: int = SAME_TRIALS,
    images_per_run: int = IMAGES_PER_RUN,
    contract: str | None = None,
    say: Say = lambda _: None,
) -> list[Row]:
    """How many slow runners were found, and how many alarms there were without one.

    `contract`: by name or file, in place of the one with a single thread.
    """
    bundle = demo.bundle(say)
    with virtual.started("x86_64") as phone, tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        textures.save(folder / "images", images_per_run, seed=12)
        variant = variants.choose(adb.find(phone.serial).identity())
        slow = runner_binary(variant, prelude=SLOW)
        single = folder / "one-thread.toml"
        single.write_text(CONTRACT)
        fixed = contract or str(single)

        def verdicts(name: str, runner: Path | None, trials: int) -> Counter[Word]:
            words = Counter[Word]()
            for number in range(trials):
                request = TrialRequest(
                    phone=phone.serial,
                    baseline=Entry(bundle, fixed),
                    candidate=Entry(bundle, fixed, runner),
                    images=str(folder / "images"),
                    out=folder / f"{name}-{number}",
                    images_per_run=images_per_run,
                    rule=TrialRule(max_runs=MAX_RUNS),
                )
                outcome = run_trial(request, Unseen(), say).outcome
                words[outcome.verdict] += 1
                say(f"{name} {number + 1} of {trials}: {_line(outcome)}")
            return words

        slower = verdicts("slower", slow, slow_trials)
        same = verdicts("same", None, same_trials)
    return [
        Row(
            "latency trials of a runner 10 % slower: found",
            _told(slower, slow_trials),
            f">= {FOUND_AT_LEAST:.0%}",
            slower["FAIL"] >= FOUND_AT_LEAST * slow_trials,
        ),
        Row(
            "latency trials of a runner against itself: alarms",
            _told(same, same_trials),
            "0",
            same["FAIL"] == 0,
        ),
    ]


def main() -> int:
    """Runs the trials and prints what they said; 1 where the promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.latency_trials")
    parser.add_argument("--slow", type=int, default=SLOW_TRIALS)
    parser.add_argument("--same", type=int, default=SAME_TRIALS)
    parser.add_argument("--images-per-run", type=int, default=IMAGES_PER_RUN)
    parser.add_argument("--contract", help="in place of the default with a single thread")
    chosen = parser.parse_args()

    def say(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    found = rows(chosen.slow, chosen.same, chosen.images_per_run, chosen.contract, say)
    for row in found:
        met = "met" if row.met else "MISSED"
        sys.stdout.write(f"{row.name}: {row.measured} (target {row.target}): {met}\n")
    return 0 if all(row.met for row in found) else 1


def _told(words: Counter[Word], trials: int) -> str:
    doubt = words["INCONCLUSIVE"] + words["INFRA"]
    return f"{words['FAIL']} of {trials}" + (f", {doubt} undecided" if doubt else "")


def _line(outcome: TrialOutcome) -> str:
    runs = outcome.runs_taken["candidate"]
    noise = "unknown" if outcome.noise_floor is None else f"{outcome.noise_floor:.1%}"
    ratio = "-" if outcome.ratio is None else f"{outcome.ratio:.3f}"
    return f"{outcome.verdict}, ratio {ratio}, noise {noise}, {runs} runs a side"


if __name__ == "__main__":
    sys.exit(main())
