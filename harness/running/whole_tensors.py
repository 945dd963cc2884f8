"""`--deep`: every tensor of every case in the run's folder, for people who want to look.

One safetensors file per arm, phone and case. No verdict reads them: driven layers decide.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

from driftloop.harness.arms import trajectory
from driftloop.harness.ladder import APP, Who
from driftloop.harness.records.observation import Slot
from driftloop.harness.running.open_run import OpenRun

FOLDER: Final = "deep"


def keep(run: OpenRun) -> None:
    """Record what is missing, image by image; no phone holds more than one image's tensors.

    An arm that cannot is kept as an `ArmFailure` of the run, as when it cannot answer.
    """
    folder = run.journal.path
    slots = {one.slot for one in run.journal.read() if one.canary is None and one.error is None}
    wanted: dict[Who, list[Slot]] = defaultdict(list)
    for slot in sorted(slots, key=lambda one: (one[0], one[1] or "", *one[2:])):
        if slot[0] != APP and not path_of(folder, slot).exists():
            wanted[slot[:2]].append(slot)
    for who, missing in wanted.items():
        side = run.plan.side(run.specs[who[0]])
        advance = run.progress.track(" ".join(filter(None, ("tensors of", *who))))
        advance(0, len(missing))
        with run.journal.failures_kept(*who):
            looks = run.arm(who).record([side.images[slot[2:]] for slot in missing])
            for done, look in enumerate(looks, start=1):
                target = path_of(folder, look.observation.slot)
                target.parent.mkdir(parents=True, exist_ok=True)
                trajectory.write(look, target)
                advance(done, len(missing))


def path_of(run_folder: Path, slot: Slot) -> Path:
    """Where that observation's tensors are, or would be."""
    arm, phone, session, position = slot
    return run_folder / FOLDER / arm / (phone or "host") / f"{session}-{position}.safetensors"
