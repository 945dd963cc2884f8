"""`--deep`: every tensor of every case in the run's folder, for people who want to look.

One safetensors file an arm, phone and case. No verdict reads them: driven layers decide.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.arms import trajectory
from harness.ladder import APP
from harness.progress import Progress
from harness.records.journal import Journal
from harness.records.observation import Slot
from harness.running.open_arms import OpenArms
from harness.running.run_plan import Plan

FOLDER: Final = "deep"


def keep(plan: Plan, arms: OpenArms, journal: Journal, progress: Progress) -> None:
    """Record what is not there yet, image by image; no phone holds more than one image's tensors.

    An arm that cannot is kept as an `ArmFailure` of the run, as when it cannot answer.
    """
    answered = {seen.slot for seen in journal.read() if seen.canary is None and seen.error is None}
    wanted: dict[tuple[str, str | None], list[Slot]] = {}
    for slot in sorted(answered, key=lambda one: (one[0], one[1] or "", *one[2:])):
        if slot[0] != APP and not path_of(journal.path, slot).exists():
            wanted.setdefault(slot[:2], []).append(slot)
    specs = {spec.name: spec for spec in plan.runnable}
    for (arm, phone), slots in wanted.items():
        images = [plan.side(specs[arm]).images[slot[2:]] for slot in slots]
        advance = progress.track(f"tensors of {arm}{f' {phone}' if phone else ''}")
        advance(0, len(images))
        with journal.failures_kept(arm, phone):
            for done, look in enumerate(arms.of(specs[arm], phone).record(images), start=1):
                target = path_of(journal.path, look.observation.slot)
                target.parent.mkdir(parents=True, exist_ok=True)
                trajectory.write(look, target)
                advance(done, len(images))


def path_of(run_folder: Path, slot: Slot) -> Path:
    """Where that observation's tensors are, or would be."""
    arm, phone, session, position = slot
    return run_folder / FOLDER / arm / (phone or "host") / f"{session}-{position}.safetensors"
