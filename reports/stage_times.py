"""The samples behind the latency charts: every image and session of every phone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from devices.runner.protocol import Timings
from harness.judgement.latency import SESSION_BUDGET_S
from reports.charts import Panel, Sample, Stack, panel, stacks
from reports.summary import Summary

_STAGES: dict[str, Callable[[Timings], float]] = {
    "image decode": lambda timings: timings.image_decode,
    "tokenize": lambda timings: timings.tokenize,
    "encode": lambda timings: sum(timings.encode),
    "prefill": lambda timings: timings.prefill,
    "decode": lambda timings: sum(timings.decode),
}
STAGE_NAMES = tuple(_STAGES)
_SHOWN_ALONE = ("encode", "prefill", "decode")


def stage_panels(summary: Summary) -> tuple[Panel, ...]:
    """One panel a stage that takes time, then the whole image; empty where no phone answered."""
    samples: dict[str, dict[str, list[Sample]]] = {name: {} for name in (*_SHOWN_ALONE, "image")}
    for one in summary.observations:
        if one.phone is None or one.error is not None or one.timings_ms is None:
            continue
        times = {name: _STAGES[name](one.timings_ms) for name in _SHOWN_ALONE}
        times["image"] = one.timings_ms.total
        for name, milliseconds in times.items():
            sample = Sample(milliseconds, one.conditions.throttled)
            samples[name].setdefault(_name(summary, one.arm, one.phone), []).append(sample)
    titles = {
        "image": "A whole image",
        "encode": "Encode (all tiles)",
        "decode": "Decode (all steps)",
    }
    return tuple(
        panel(titles.get(name, name.capitalize()), by_phone)
        for name, by_phone in samples.items()
        if by_phone
    )


def session_panel(summary: Summary) -> Panel | None:
    """Whole sessions against the time that the app promises."""
    totals: dict[tuple[str, str, int], list[Sample]] = defaultdict(list)
    for one in summary.observations:
        if one.phone is not None and one.error is None and one.timings_ms is not None:
            sample = Sample(one.timings_ms.total, one.conditions.throttled)
            totals[one.arm, one.phone, one.session].append(sample)
    by_phone: dict[str, list[Sample]] = {}
    for (arm, phone, session), images in totals.items():
        if len(images) == summary.record.session_sizes.get(session):
            whole = Sample(
                sum(image.milliseconds for image in images),
                any(image.throttled for image in images),
            )
            by_phone.setdefault(_name(summary, arm, phone), []).append(whole)
    if not by_phone:
        return None
    low, high = SESSION_BUDGET_S
    size = summary.record.contract.limits.images_per_session
    return panel(
        f"A session of {size}",
        by_phone,
        (low * 1000, high * 1000),
        f"the app's {low:.0f} to {high:.0f} s",
    )


def stage_stacks(summary: Summary) -> tuple[Stack, ...]:
    """Where the time of one image goes, by the stages' medians."""
    medians: dict[str, Mapping[str, float]] = {}
    for one in summary.verdict.latency:
        if one.phone is None:
            continue
        medians[_name(summary, one.arm, one.phone)] = {
            name: one.stages[key].median_ms
            for name in STAGE_NAMES
            if (key := name.replace(" ", "_")) in one.stages
        }
    return stacks(medians)


def _name(summary: Summary, arm: str, phone: str) -> str:
    arms = {one for one, serial in summary.record.deliveries if serial is not None}
    return phone if len(arms) == 1 else f"{phone}, {arm}"
