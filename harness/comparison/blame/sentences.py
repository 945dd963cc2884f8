"""A blame as a person would say it; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from harness.comparison.blame.causes import Cause
from harness.comparison.blame.files import Explained
from harness.comparison.case_comparison import CaseComparison, first_step_judged
from harness.comparison.driven import LayerFault
from harness.ladder import Change, Hop, located
from harness.stage import Stage
from harness.tolerance import Tolerance, over

_SUBJECTS: Final[dict[Change, str]] = {
    "contract": "The contract",
    "conversion": "Conversion",
    "quantization": "Quantization",
    "runtime": "The app's runtime",
    "platform": "The phone",
    "app": "The app",
}
_DOES: Final[dict[Stage, str]] = {
    "resize": "changes the pixels that the model is given",
    "tile": "changes the tiling",
    "pixels": "changes the values that the vision encoder gets",
    "embed": "changes the image embeddings",
    "tokens": "changes the prompt's token ids",
    "prefill": "changes the first step's logits",
    "decode": "changes the generated tokens, although the first step's logits agree",
    "label": "reads the same text as another label",
}
_ASKED: Final[dict[Stage, str]] = {
    "resize": "{candidate} resizes differently from {reference}",
    "tile": "{candidate} cuts the image into other tiles than {reference}",
    "tokens": "{candidate} prompts differently from {reference}",
    "decode": "{candidate} chooses tokens differently from {reference}",
    "label": "{candidate} reads the answer differently from {reference}",
}
_TOWERS: Final[dict[str, str]] = {"embed": "vision encoder", "prefill": "text model"}
_PUT_IN: Final[dict[Stage, str]] = {
    "resize": "pixels",
    "tile": "tiles and prompt ids",
    "pixels": "pixel values",
    "embed": "embeddings",
    "tokens": "prompt ids",
}
_OWN_OUTPUT: Final[dict[str, str]] = {"embed": "the projector", "prefill": "the output matrix"}
_ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


@dataclass(frozen=True)
class Told:
    """All there is to say of one blame."""

    hop: Hop
    stage: Stage
    cause: Cause
    tolerance: Tolerance
    layer: str | None
    explained: Explained | None
    asked: tuple[str, ...]
    """What the two arms were asked differently that shows at this stage."""
    runtime: tuple[str, ...]
    pixels: str | None
    """How the candidate made its pixels, where it is an app that dumped them."""
    names: tuple[str, str]
    """Of the reference and the candidate."""
    confirmed: bool | None


def sentence(told: Told) -> str:
    """What happens and why; how often and by how much; which file; what driving showed."""
    reasons = "; ".join(_reasons(told))
    headline = f"{_headline(told)}: {reasons}." if reasons else f"{_headline(told)}."
    parts = [headline, _evidence(told)]
    if told.explained is not None:
        parts.append(_fault(told.explained, told.layer if told.cause.cases else None))
    if told.confirmed:
        parts.append(_confirmed(told))
    return " ".join(parts)


def with_fault(said: str, found: Explained) -> str:
    """A sentence with the fault that explains it."""
    return f"{said} {_fault(found, None)}"


def _headline(told: Told) -> str:
    reference, candidate = told.names
    if not told.cause.cases and told.explained is not None:
        return f"{_subject(told.hop)} reads a faulty file, {told.explained.file.file}"
    if told.asked and told.stage in _ASKED:
        said = _ASKED[told.stage].format(reference=reference, candidate=candidate)
        return said[0].upper() + said[1:]
    return f"{_subject(told.hop)} {_does(told)}"


def _subject(hop: Hop) -> str:
    if len(hop.changes) > 1:
        return located(hop.candidate, hop.phone)
    subject = _SUBJECTS[hop.changes[0]]
    return subject if hop.phone is None else f"{subject} {hop.phone}"


def _does(told: Told) -> str:
    cases, fault = told.cause.cases, told.cause.fault
    if fault is not None:
        return f"breaks the {_TOWERS[fault.stage]} at {_place(fault)}"
    if told.layer is not None:
        return f"{_DOES[told.stage]} from {told.layer} on"
    if told.stage == "decode" and not told.asked:
        if _same_ids(cases):
            return "spells the same tokens differently"
        if _end_early(cases):
            return "ends answers early"
        if not _logits_agree(told):
            return "chooses tokens, or ends answers, by another rule"
    return _DOES[told.stage]


def _place(fault: LayerFault) -> str:
    return (
        fault.layer or {"embed": "the projector", "prefill": "the output matrix"}[fault.output.name]
    )


def _reasons(told: Told) -> Iterator[str]:
    yield from told.asked
    if told.stage == "resize" and told.pixels is not None:
        yield f"its pixels are {told.pixels}"
    if told.stage in ("prefill", "decode"):
        yield from told.runtime
    if told.cause.leaks and not told.asked and not told.runtime and told.explained is None:
        yield "as if something of the previous image were left"


def _evidence(told: Told) -> str:
    cause = told.cause
    count = len(cause.cases)
    if count == 0:
        return "No case shows it."
    measured = _measured(told) or "This shows"
    if cause.driven:
        return f"{measured} in {count} of {cause.of} driven cases."
    if cause.positions is not None:
        return f"{measured} in {_pattern(cause.positions)} ({count} of {cause.of} cases)."
    return f"{measured} in {count} of {cause.of} cases{'' if cause.systematic else ' only'}."


def _pattern(positions: Sequence[int]) -> str:
    if len(positions) > 1 and list(positions) == list(range(1, positions[-1] + 1)):
        return "every image of a session but the first"
    named = " and ".join(
        _ORDINALS[place] if place < len(_ORDINALS) else f"{place + 1}th" for place in positions
    )
    return f"every {named} image of a session and no other"


def _measured(told: Told) -> str:
    """How large the difference is; empty where it has no size."""
    case, fault = told.cause.cases[0], told.cause.fault
    if fault is not None:
        return _off(fault)
    if told.stage == "tile":
        theirs = _tiling(case.candidate_grid, case.candidate_image_tokens, " image tokens")
        ours = _tiling(case.reference_grid, case.reference_image_tokens)
        return f"There are {theirs}, where the reference has {ours},"
    if told.stage == "tokens":
        return _ids(case)
    if told.stage == "prefill":
        return _logits(told.cause.cases, told.tolerance)
    return _distance(told.cause.cases, told.stage, told.tolerance)


def _tiling(grid: tuple[int, int] | None, tokens: int | None, noun: str = "") -> str:
    tiles = "one tile" if grid == (0, 0) else f"{grid[0]}x{grid[1]} tiles" if grid else "tiles"
    return tiles if tokens is None else f"{tiles} and {tokens}{noun}"


def _ids(case: CaseComparison) -> str:
    parted = case.prompt_difference
    if parted is None:
        return ""
    theirs, ours = (
        "nothing" if one is None else "an image token" if one < 0 else str(one)
        for one in (parted.candidate_id, parted.reference_id)
    )
    counts = f"{parted.candidate_ids} ids"
    if parted.candidate_ids != parted.reference_ids:
        counts += f" instead of {parted.reference_ids}"
    return f"The prompt has {counts}, and id {parted.index} is {theirs} instead of {ours},"


def _off(fault: LayerFault) -> str:
    """How far the blamed output is off, by the measure that is furthest beyond its limit."""
    output = fault.output
    if not math.isfinite(output.error):
        return "Its output has another shape, or values that are not finite,"
    measures = (
        (output.error, output.limit_error, f"{_percent(output.error)} off"),
        (output.gain, output.limit_gain, f"scaled by {100 * output.gain:+.2g} %"),
        (output.shift, output.limit_shift, f"shifted by {100 * output.shift:+.2g} %"),
    )
    _, limit, words = max(measures, key=lambda one: over(one[0], one[1]))
    return f"Its output is {words} (limit {_percent(limit)})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _logits(cases: Sequence[CaseComparison], tolerance: Tolerance) -> str:
    apart = median_low(max(case.label_logprob_differences.values(), default=0.0) for case in cases)
    if not math.isfinite(apart):
        return "They are not finite"
    if apart > tolerance.label_logprob:
        limit = f"(limit {tolerance.label_logprob:.2g})"
        return f"A label's log-probability is {apart:.2g} nats off {limit}"
    return _distance(cases, "prefill", tolerance)


def _distance(cases: Sequence[CaseComparison], stage: Stage, tolerance: Tolerance) -> str:
    apart = [case.distances[stage] for case in cases if stage in case.distances]
    if not apart:
        return ""
    typical, limit = median_low(apart), tolerance.of(stage)
    if not math.isfinite(typical):
        return "They have another shape, or values that are not finite,"
    said = f"They are {_percent(typical)} off"
    return f"{said} (limit {_percent(limit)})" if math.isfinite(limit) else said


def _fault(found: Explained, named: str | None) -> str:
    """`named`: the layer that the sentence has named already."""
    file, fault = found.file, found.fault
    if fault.kind == "hash":
        return f"{file.file} has changed since the bundle was made."
    more = sum(other.kind != "hash" for other in file.faults) - 1
    where = f" ({fault.layer})" if fault.layer not in (None, named) else ""
    others = f", and {more} more {'is' if more == 1 else 'are'} out of line" if more else ""
    return f"In {file.file}, {fault.name}{where} is wrong: {fault.detail.rstrip('.')}{others}."


def _confirmed(told: Told) -> str:
    fault = told.cause.fault
    if fault is None:
        put_in = _PUT_IN.get(told.stage)
        return f"Confirmed: given the reference's {put_in}, every layer is clean."
    tower = _TOWERS[fault.stage]
    if fault.others == 0:
        return f"Confirmed: given the reference's inputs, the rest of the {tower} is clean."
    more = f"{fault.others} more output{'s' if fault.others > 1 else ''}"
    return f"Confirmed: it is the first of the {tower} at fault; {more} are, each by itself."


def _logits_agree(told: Told) -> bool:
    """Whether that much is known of the first step of every case."""
    return all(
        "prefill" not in case.beyond
        and first_step_judged(case.distances, case.label_logprob_differences, told.tolerance)
        for case in told.cause.cases
    )


def _end_early(cases: Sequence[CaseComparison]) -> bool:
    """Whether the candidate says less of the very same words in every case."""
    return bool(cases) and all(
        case.reference_text.startswith(case.candidate_text)
        and not case.text_equal
        and (case.divergence is None or case.divergence.candidate_id is None)
        for case in cases
    )


def _same_ids(cases: Sequence[CaseComparison]) -> bool:
    return bool(cases) and all(case.tokens_equal for case in cases)
