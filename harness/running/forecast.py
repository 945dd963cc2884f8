"""How long a run takes, and how much room it needs, said before it and kept with it.

Times are this host's own: what an image last took the same arm, or what it takes in the first
block.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from statistics import fmean
from threading import Lock
from typing import Final

from devices import deploy
from devices.errors import DeviceError
from devices.phone import Phone
from harness.arms import deployment, trajectory
from harness.comparison.driven import is_of
from harness.errors import RunFolderError
from harness.judgement.sampling import Needed, sampling_plan
from harness.ladder import ArmSpec
from harness.progress import Progress, duration
from harness.records.journal import Journal
from harness.records.observation import Observation, Who
from harness.records.record import Outlook, RunRecord, Space
from harness.running import noise_floor
from harness.running.result_cache import ResultCache
from harness.running.run_plan import Plan

_OBSERVATION_BYTES: Final = 12 * 1024
"""What an answer takes in a run folder, rounded up."""
_KEPT_EVERY: Final = 12
"""Answers from one time that an arm's pace is kept to the next."""


class Forecaster:
    """Says what is known before a run, and how long it takes as soon as that is known."""

    def __init__(
        self, plan: Plan, attached: Sequence[Phone], journal: Journal, progress: Progress
    ) -> None:
        self._plan = plan
        self._attached = attached
        self._journal = journal
        self._progress = progress
        self._caches = {spec: ResultCache(plan.arm_key(spec)) for spec in plan.runnable}
        self._specs = {spec.name: spec for spec in plan.runnable}
        self._guard = Lock()
        self._timed: dict[Who, list[float]] = defaultdict(list)
        self._ms = {who: self._caches[spec].ms_per_image(who[1]) for spec, who in self._parties()}
        self._inquiry = journal.inquiry()
        needed = Needed(journal.current, self._inquiry.floors, journal.read())
        self._decided = {who for _, who in self._parties() if needed.decision(who) is not None}
        """Where an earlier command of this run has come to its end."""
        self._outlook = self._foreseen()

    def say(self) -> None:
        """In a line each: prompt, time, disk.

        Raises:
            RunFolderError: what the run needs does not fit on this host's disk.
        """
        seen = self._outlook
        self._journal.foresee(seen)
        if seen.prompt_tokens is not None:
            contract = self._plan.record.contract
            self._progress.say(
                f"context: {seen.prompt_tokens} prompt tokens and {contract.limits.max_tokens} for "
                f"the answer, of {contract.runtime.context}"
            )
        self._progress.say(_time(seen))
        self._progress.say(_disk(seen))
        if seen.host.needed_bytes > seen.host.free_bytes:
            raise RunFolderError(
                f"{self._journal.path}: {_size(seen.host.needed_bytes)} may be needed, "
                f"{_size(seen.host.free_bytes)} are free; make room or choose another --out"
            )

    def saw(self, seen: Observation) -> None:
        """Learn from an answer how long one takes; where that was unknown, it is said once."""
        who = (seen.arm, seen.phone)
        cached = seen.conditions.cached
        # What was timed earlier on this host is better than nothing.
        if who not in self._ms or seen.timings_ms is None or (cached and self._ms[who] is not None):
            return
        with self._guard:
            self._timed[who].append(seen.timings_ms.total)
            self._ms[who] = ms = fmean(self._timed[who])
            if not cached and len(self._timed[who]) % _KEPT_EVERY == 1:
                cache = self._caches[self._specs[seen.arm]]
                cache.keep_ms_per_image(ms, seen.phone)
            if self._outlook.most_s is None:
                now = self._with_times(self._outlook)
                if now.most_s is not None:
                    self._outlook = now
                    self._journal.foresee(now)
                    self._progress.say(_time(now))

    def _parties(self) -> list[tuple[ArmSpec, Who]]:
        """Every arm that has to be run, on every attached phone."""
        serials = [phone.serial for phone in self._attached]
        return [
            (spec, (spec.name, serial))
            for spec in self._plan.runnable
            if spec.kind != "app"
            for serial in ([None] if spec.on_host else serials)
        ]

    def _foreseen(self) -> Outlook:
        record = self._journal.current
        expected, most = _images(record)
        images = [image for side in self._plan.sides.every for image in side.images.values()]
        pictures = {image.pixels_sha256: image.pixels_path for image in images}
        answers = len(self._parties()) * (most + len(record.canaries)) * _OBSERVATION_BYTES
        needed = answers + sum(path.stat().st_size for path in pictures.values())
        if self._plan.deep:
            needed += len(self._parties()) * most * self._case_bytes
        outlook = Outlook(
            expected_images=expected,
            most_images=most,
            expected_s=None,
            most_s=None,
            host=Space(needed_bytes=needed, free_bytes=shutil.disk_usage(self._journal.path).free),
            phones=dict(self._on_phones()),
            prompt_tokens=self._plan.prompt.tokens if self._plan.prompt else None,
        )
        return self._with_times(outlook)

    def _on_phones(self) -> Iterator[tuple[str, Space]]:
        """Where a phone cannot be asked, its arm will say why."""
        record = self._journal.current
        answers = (len(record.cases) + len(record.canaries)) * _OBSERVATION_BYTES
        for phone in self._attached:
            try:
                lacking, free = self._blobs(phone)
            except DeviceError:
                continue
            hops = sum(hop.phone == phone.serial for hop in record.hops)
            # One more than those it is driven along: what it records itself is fetched at once.
            tensors = (hops * self._plan.drive + 1) * self._case_bytes
            yield phone.serial, Space(needed_bytes=lacking + answers + tensors, free_bytes=free)

    def _blobs(self, phone: Phone) -> tuple[int, int]:
        """(bytes of models and pictures that are not there yet, bytes that are free)."""
        specs = [spec for spec in self._plan.runnable if spec.quant and not spec.on_host]
        blobs = [
            blob
            for spec in specs
            for blob in deployment.blobs(
                self._plan.side(spec).bundle,
                str(spec.quant),
                self._plan.side(spec).images.values(),
            )
        ]
        lacking = phone.patiently(lambda: deploy.missing(phone, blobs))
        sizes = {blob.sha256: blob.path.stat().st_size for blob in blobs}
        return sum(sizes[one] for one in lacking), phone.patiently(phone.free_bytes)

    def _with_times(self, outlook: Outlook) -> Outlook:
        return outlook.model_copy(
            update={
                "expected_s": self._seconds(outlook.expected_images),
                "most_s": self._seconds(outlook.most_images),
            }
        )

    def _seconds(self, images: int) -> float | None:
        """Until each arm has answered the first `images` cases, its canaries among them, has been
        driven, and its floor is known."""
        here, on_phones = 0.0, defaultdict[str, float](float)
        for spec, who in self._parties():
            count = self._left(spec, who, images) + self._besides(spec, who)
            ms = self._ms[who]
            if count and ms is None:
                return None
            seconds = count * (ms or 0.0) / 1000
            if who[1] is None:
                here += seconds
            else:
                on_phones[who[1]] += seconds
        return max(here, *on_phones.values(), 0.0)

    def _left(self, spec: ArmSpec, who: Who, images: int) -> int:
        """How many answers this arm has to compute."""
        side, cases = self._plan.side(spec), self._journal.current.cases
        first = {
            (case.session, case.position) for case in cases[: 0 if who in self._decided else images]
        }
        missing = [
            (case.session, case.position, case.canary) for case in self._journal.missing(*who)
        ]
        wanted = [
            side.images[session, position]
            for session, position, canary in missing
            if canary is not None or (session, position) in first
        ]
        if not spec.on_host:
            return len(wanted)
        return sum(not self._caches[spec].holds(image) for image in wanted)

    def _besides(self, spec: ArmSpec, who: Who) -> int:
        """What driven layers and a floor take, in answers: at most, as their results are kept."""
        inquiry, count = self._inquiry, 0
        for hop in self._journal.current.hops:
            if who in ((hop.reference, hop.reference_phone), (hop.candidate, hop.phone)):
                count += max(0, self._plan.drive - sum(is_of(hop, one) for one in inquiry.driven))
        if spec.kind == "desktop" and all(floor.arm != spec.name for floor in inquiry.floors):
            count += noise_floor.runs(self._plan.arm_key(spec), len(self._journal.current.cases))
        return count

    @cached_property
    def _case_bytes(self) -> int:
        """A case's tensors, about; 0 where nothing tells, since no arm runs or no package counts
        tokens. Read from the files only where a phone or `--deep` needs it."""
        bundle, prompt = self._plan.bundle, self._plan.prompt
        quant = next((spec.quant for spec in self._plan.runnable if spec.quant is not None), None)
        if quant is None or prompt is None:
            return 0
        models = bundle.text_model(quant), bundle.mmproj(quant)
        return trajectory.expected_bytes(*models, prompt.tokens, prompt.image_tokens) or 0


def _images(record: RunRecord) -> tuple[int, int]:
    """Of an arm: how many are expected, and how many there are at most."""
    there = len(record.cases)
    look = record.contract.limits.images_per_session
    plans = [
        sampling_plan(record.gates, hop.changes, look, record.sampling.fixed) for hop in record.hops
    ]
    expected = [there if one is None else round(one.expected_accept) for one in plans]
    most = [there if one is None else one.most for one in plans]
    return min(there, max(expected, default=there)), min(there, max(most, default=there))


def _time(seen: Outlook) -> str:
    if seen.expected_s is None or seen.most_s is None:
        return "time: known after the first block"
    if seen.expected_images == seen.most_images:
        return f"time: about {duration(seen.most_s)} for {seen.most_images} images an arm"
    return (
        f"time: about {duration(seen.expected_s)} for {seen.expected_images} images an arm, as "
        f"expected where answers agree; {duration(seen.most_s)} for {seen.most_images} at most"
    )


def _disk(seen: Outlook) -> str:
    places = {"here": seen.host} | {f"on {serial}": space for serial, space in seen.phones.items()}
    return "disk: " + "; ".join(
        f"up to {_size(space.needed_bytes)} {place}, {_size(space.free_bytes)} free"
        for place, space in places.items()
    )


def _size(size_bytes: int) -> str:
    mib = size_bytes / 1024 / 1024
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"
