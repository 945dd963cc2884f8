"""How long a run takes and how much disk it needs, reported before it and kept with it.

Times are measured on this host: how long the same arm last took per image, or takes in the first
block.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from statistics import fmean
from threading import Lock
from typing import Final

from driftloop.devices import deploy
from driftloop.devices.errors import DeviceError
from driftloop.devices.phone import Phone
from driftloop.harness.arms import deployment, trajectory
from driftloop.harness.comparison.driven import is_of
from driftloop.harness.errors import RunFolderError
from driftloop.harness.judgement.sampling import Needed, sampling_plan
from driftloop.harness.ladder import Who
from driftloop.harness.progress import duration
from driftloop.harness.records.observation import Observation
from driftloop.harness.records.record import Outlook, RunRecord, Space
from driftloop.harness.running import noise_floor
from driftloop.harness.running.open_run import OpenRun
from driftloop.harness.running.result_cache import ResultCache

_OBSERVATION_BYTES: Final = 12 * 1024
"""What an answer takes in a run folder, rounded up."""
_KEPT_EVERY: Final = 12
"""Answers after which an arm's pace is stored again."""


class Forecaster:
    """Reports what is known before a run, and its duration as soon as that is known."""

    def __init__(self, run: OpenRun) -> None:
        self._run, self._plan, self._journal = run, run.plan, run.journal
        self._guard = Lock()
        self._caches = {
            name: ResultCache(run.plan.arm_key(spec)) for name, spec in run.specs.items()
        }
        self._timed: dict[Who, list[float]] = defaultdict(list)
        self._ms = {who: self._caches[who[0]].ms_per_image(who[1]) for who in run.parties}
        self._inquiry = run.journal.inquiry()
        needed = Needed(run.journal.current, self._inquiry.floors, run.journal.read())
        self._decided = {who for who in run.parties if needed.decision(who) is not None}
        """Arms that an earlier command of this run has finished."""
        self._outlook = self._with_times(self._foreseen())

    def say(self) -> None:
        """A line each for prompt, time and disk. Raises RunFolderError where the run does not fit
        on this host's disk."""
        seen, say = self._outlook, self._run.progress.say
        self._journal.foresee(seen)
        if seen.prompt_tokens is not None:
            contract = self._plan.record.contract
            say(
                f"context: {seen.prompt_tokens} prompt tokens and {contract.limits.max_tokens} for "
                f"the answer, of {contract.runtime.context}"
            )
        say(_time(seen))
        places = {"here": seen.host} | {f"on {name}": one for name, one in seen.phones.items()}
        spaces = (
            f"up to {_size(space.needed_bytes)} {place}, {_size(space.free_bytes)} free"
            for place, space in places.items()
        )
        say(f"disk: {'; '.join(spaces)}")
        if seen.host.needed_bytes > seen.host.free_bytes:
            raise RunFolderError(
                f"{self._journal.path}: {_size(seen.host.needed_bytes)} may be needed, "
                f"{_size(seen.host.free_bytes)} are free; make room or choose another --out"
            )

    def saw(self, seen: Observation) -> None:
        """Learn from an answer how long one takes; where that was unknown, report it once."""
        who = seen.who
        cached = seen.conditions.cached
        # A time measured earlier on this host is better than none.
        if who not in self._ms or seen.timings_ms is None or (cached and self._ms[who] is not None):
            return
        with self._guard:
            self._timed[who].append(seen.timings_ms.total)
            self._ms[who] = ms = fmean(self._timed[who])
            if not cached and len(self._timed[who]) % _KEPT_EVERY == 1:
                self._caches[seen.arm].keep_ms_per_image(ms, seen.phone)
            if self._outlook.most_s is None:
                now = self._with_times(self._outlook)
                if now.most_s is not None:
                    self._outlook = now
                    self._journal.foresee(now)
                    self._run.progress.say(_time(now))

    def _foreseen(self) -> Outlook:
        record, arms = self._journal.current, len(self._run.parties)
        expected, most = _images(record)
        pictures = {
            image.pixels_sha256: image.pixels_path
            for side in self._plan.sides.by_role.values()
            for image in side.images.values()
        }
        needed = arms * (most + len(record.canaries)) * _OBSERVATION_BYTES
        needed += sum(path.stat().st_size for path in pictures.values())
        if self._plan.request.deep:
            needed += arms * most * self._case_bytes
        return Outlook(
            expected_images=expected,
            most_images=most,
            expected_s=None,
            most_s=None,
            host=Space(needed_bytes=needed, free_bytes=shutil.disk_usage(self._journal.path).free),
            phones=dict(self._on_phones()),
            prompt_tokens=self._plan.prompt.tokens if self._plan.prompt else None,
        )

    def _on_phones(self) -> Iterator[tuple[str, Space]]:
        """Without phones that cannot be asked; their arms will say why."""
        record = self._journal.current
        answers = (len(record.cases) + len(record.canaries)) * _OBSERVATION_BYTES
        for phone in self._run.phones.values():
            try:
                missing, free = self._blobs(phone)
            except DeviceError:
                continue
            hops = sum(hop.phone == phone.serial for hop in record.hops)
            # One more than those it is driven along: what it records itself is fetched at once.
            tensors = (hops * self._plan.request.drive + 1) * self._case_bytes
            yield phone.serial, Space(needed_bytes=missing + answers + tensors, free_bytes=free)

    def _blobs(self, phone: Phone) -> tuple[int, int]:
        """(bytes of models and images that are not there yet, free bytes)."""
        blobs = []
        for spec in self._plan.runnable:
            if spec.quant and not spec.on_host:
                side = self._plan.side(spec)
                blobs += deployment.blobs(side.bundle, spec.quant, side.images.values())
        sizes = {blob.sha256: blob.path.stat().st_size for blob in blobs}
        missing = phone.patiently(lambda: deploy.missing(phone, blobs))
        return sum(sizes[one] for one in missing), phone.patiently(phone.free_bytes)

    def _with_times(self, outlook: Outlook) -> Outlook:
        return outlook.model_copy(
            update={
                "expected_s": self._seconds(outlook.expected_images),
                "most_s": self._seconds(outlook.most_images),
            }
        )

    def _seconds(self, images: int) -> float | None:
        """Until each arm has answered the first `images` cases and its canaries, has been driven,
        and its floor is known. Phones work side by side, arms on this host in turn."""
        seconds: dict[str | None, float] = defaultdict(float)
        for who in self._run.parties:
            count = self._left(who, images) + self._besides(who)
            ms = self._ms[who]
            if count and ms is None:
                return None
            seconds[who[1]] += count * (ms or 0.0) / 1000
        return max(seconds.values(), default=0.0)

    def _left(self, who: Who, images: int) -> int:
        """How many answers this arm has to compute."""
        name, serial = who
        cases = self._journal.current.cases[: 0 if who in self._decided else images]
        first = {case.place for case in cases}
        side = self._plan.side(self._run.specs[name])
        wanted = [
            side.images[place]
            for case in self._journal.missing(*who)
            if (place := case.place) in first or case.canary is not None
        ]
        return sum(serial is not None or not self._caches[name].holds(image) for image in wanted)

    def _besides(self, who: Who) -> int:
        """The cost of driven layers and a floor, in answers; an upper bound, as their results are
        kept."""
        inquiry, count, spec = self._inquiry, 0, self._run.specs[who[0]]
        for hop in self._journal.current.hops:
            if who in ((hop.reference, hop.reference_phone), (hop.candidate, hop.phone)):
                done = sum(is_of(hop, one) for one in inquiry.driven)
                count += max(0, self._plan.request.drive - done)
        if spec.kind == "desktop" and all(floor.arm != spec.name for floor in inquiry.floors):
            count += noise_floor.runs(self._plan.arm_key(spec), len(self._journal.current.cases))
        return count

    @cached_property
    def _case_bytes(self) -> int:
        """About the size of a case's tensors; 0 where it is unknown because no arm runs or no
        package counts tokens. Read from the files only where a phone or `--deep` needs it."""
        bundle, prompt = self._plan.bundle, self._plan.prompt
        quant = next((spec.quant for spec in self._plan.runnable if spec.quant is not None), None)
        if quant is None or prompt is None:
            return 0
        models = bundle.text_model(quant), bundle.mmproj(quant)
        return trajectory.expected_bytes(*models, prompt.tokens, prompt.image_tokens) or 0


def _images(record: RunRecord) -> tuple[int, int]:
    """Per arm: how many are expected, and how many there are at most."""
    there = len(record.cases)
    look = record.contract.limits.images_per_session
    plans = [
        sampling_plan(record.gates, hop.changes, look, record.sampling.fixed) for hop in record.hops
    ]
    expected = max((round(one.expected_accept) for one in plans), default=there)
    return min(there, expected), min(there, max((one.most for one in plans), default=there))


def _time(seen: Outlook) -> str:
    if seen.expected_s is None or seen.most_s is None:
        return "time: known after the first block"
    if seen.expected_images == seen.most_images:
        return f"time: about {duration(seen.most_s)} for {seen.most_images} images per arm"
    return (
        f"time: about {duration(seen.expected_s)} for {seen.expected_images} images per arm, as "
        f"expected where answers agree; {duration(seen.most_s)} for {seen.most_images} at most"
    )


def _size(size_bytes: int) -> str:
    mib = size_bytes / 1024 / 1024
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
