"""A blame as a person would say it; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from harness.comparison.blame.causes import Cause
from harness.comparison.blame.files import Explained
from harness.comparison.case_comparison import CaseComparison, first_step_judged
from harness.comparison.driven import LayerFault
from harness.ladder import Hop
from harness.stage import Stage
from harness.tolerance import Tolerance, over

_WHAT: Final[dict[Stage, str]] = {
    "resize": "The pixels that the model is given differ",
    "tile": "The tiling differs",
    "pixels": "The values that the vision graph gets differ",
    "embed": "The image embeddings drift",
    "tokens": "The prompt's token ids differ",
    "prefill": "The first step's logits drift",
    "decode": "The generated tokens differ although the first step's logits agree",
    "label": "The same text is read as another label",
}
_ASKED: Final[dict[Stage, str]] = {
    "resize": "{candidate} resizes differently from {reference}",
    "tile": "{candidate} cuts the image into other tiles than {reference}",
    "tokens": "{candidate} prompts differently from {reference}",
    "decode": "{candidate} chooses tokens differently from {reference}",
    "label": "{candidate} reads the answer differently from {reference}",
}
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
    """What, where, how often, how much and why, and what driving the candidate showed."""
    parts = [_what(told), _on(told.hop), _since(told), _in(told), _size(told)]
    whole = "".join(parts)
    because = _because(told)
    whole = f"{whole}: {because}." if because else f"{whole}."
    return f"{whole} {shown}" if (shown := _driven(told)) else whole


def with_fault(said: str, found: Explained) -> str:
    """A sentence with the fault that explains it."""
    return f"{said.rstrip('.')}; {_fault(found, None)}."


def _what(told: Told) -> str:
    if not told.cause.cases and told.explained is not None:
        return f"{told.explained.file.file} is faulty"
    if told.stage == "decode" and not told.asked and _same_ids(told.cause.cases):
        return "The same tokens are spelled differently"
    if told.stage == "decode" and not told.asked and _end_early(told.cause.cases):
        return "Answers end early"
    if told.stage == "decode" and not told.asked and not _logits_agree(told):
        return "Tokens are chosen, or answers ended, by another rule"
    if told.asked and told.stage in _ASKED:
        reference, candidate = told.names
        said = _ASKED[told.stage].format(reference=reference, candidate=candidate)
        return said[0].upper() + said[1:]
    return _WHAT[told.stage]


def _since(told: Told) -> str:
    if not told.cause.cases:
        return ""
    if told.layer is not None:
        return f", at {told.layer}"
    fault = told.cause.fault
    return "" if fault is None else f", at {_OWN_OUTPUT[fault.output.name]}"


def _on(hop: Hop) -> str:
    name = f" on the {hop.name} hop" if len(hop.changes) == 1 else ""
    where = name or f" between {hop.reference} and {hop.candidate}"
    return where if hop.phone is None else f"{where} to {hop.phone}"


def _in(told: Told) -> str:
    cause = told.cause
    count = len(cause.cases)
    if count == 0:
        return ", although no case shows it"
    if cause.driven:
        return f", in {count} of {cause.of} driven cases"
    if cause.positions is not None:
        return f", in {_pattern(cause.positions)}, {count} of {cause.of} cases"
    return f", in {count} of {cause.of} cases{'' if cause.systematic else ' only'}"


def _pattern(positions: Sequence[int]) -> str:
    if len(positions) > 1 and list(positions) == list(range(1, positions[-1] + 1)):
        return "every image of a session but the first"
    named = " and ".join(
        _ORDINALS[place] if place < len(_ORDINALS) else f"{place + 1}th" for place in positions
    )
    return f"every {named} image of a session and no other"


def _size(told: Told) -> str:
    cases = told.cause.cases
    if not cases:
        return ""
    if told.stage == "tile":
        return _tiles(cases[0])
    if told.stage == "tokens":
        return _ids(cases[0])
    if told.cause.fault is not None:
        return _off(told.cause.fault)
    if told.stage == "prefill":
        return _logits(cases, told.tolerance)
    return _length(cases, told.stage, told.tolerance)


def _tiles(case: CaseComparison) -> str:
    theirs = _tiling(case.candidate_grid, case.candidate_image_tokens, " image tokens")
    return f" ({theirs} against {_tiling(case.reference_grid, case.reference_image_tokens)})"


def _tiling(grid: tuple[int, int] | None, tokens: int | None, noun: str = "") -> str:
    tiles = "one tile" if grid == (0, 0) else f"{grid[0]}x{grid[1]} tiles" if grid else "tiles"
    return tiles if tokens is None else f"{tiles} and {tokens}{noun}"


def _ids(case: CaseComparison) -> str:
    parted = case.prompt_difference
    if parted is None:
        return ""
    theirs, ours = (
        "none" if one is None else "an image token" if one < 0 else str(one)
        for one in (parted.candidate_id, parted.reference_id)
    )
    counts = f"{parted.candidate_ids}"
    if parted.candidate_ids != parted.reference_ids:
        counts += f" against {parted.reference_ids}"
    return f" ({counts} ids; the first that differs, at {parted.index}, is {theirs}, not {ours})"


def _off(fault: LayerFault) -> str:
    """How far the blamed output is off, by the measure that is furthest beyond its limit."""
    output = fault.output
    if not math.isfinite(output.error):
        return " (another shape, or no finite numbers)"
    measures = (
        (output.error, output.limit_error, f"off by {_percent(output.error)} of its own output"),
        (output.gain, output.limit_gain, f"scaled by {100 * output.gain:+.2g} %"),
        (output.shift, output.limit_shift, f"shifted by {100 * output.shift:+.2g} %"),
    )
    _, limit, words = max(measures, key=lambda one: over(one[0], one[1]))
    return f" ({words}, limit {_percent(limit)})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _logits(cases: Sequence[CaseComparison], tolerance: Tolerance) -> str:
    apart = median_low(max(case.label_logprob_differences.values(), default=0.0) for case in cases)
    if not math.isfinite(apart):
        return " (they are not finite numbers)"
    if apart > tolerance.label_logprob:
        return f" (a label's by {apart:.2g} nats, limit {tolerance.label_logprob:.2g})"
    return _length(cases, "prefill", tolerance)


def _length(cases: Sequence[CaseComparison], stage: Stage, tolerance: Tolerance) -> str:
    apart = [case.distances[stage] for case in cases if stage in case.distances]
    if not apart:
        return ""
    typical, limit = median_low(apart), tolerance.of(stage)
    if not math.isfinite(typical):
        return " (another shape, or no finite numbers)"
    said = f"{_percent(typical)} of their length"
    return f" ({said}, limit {_percent(limit)})" if math.isfinite(limit) else f" ({said})"


def _because(told: Told) -> str:
    reasons = [*told.asked]
    if told.explained is not None:
        named = told.layer if told.cause.cases else None
        reasons.append(_fault(told.explained, named))
    if told.stage == "resize" and told.pixels is not None:
        reasons.append(f"the app's pixels are {told.pixels}")
    if told.stage in ("prefill", "decode"):
        reasons += told.runtime
    if not reasons and told.cause.leaks:
        reasons.append("as if something of the previous image were left")
    return "; ".join(reasons)


def _fault(found: Explained, named: str | None) -> str:
    """`named`: the layer that the sentence has named already."""
    file, fault = found.file, found.fault
    if fault.kind == "hash":
        return f"{file.file} changed since the bundle was made"
    more = sum(other.kind != "hash" for other in file.faults) - 1
    where = f" ({fault.layer})" if fault.layer not in (None, named) else ""
    others = f"; {more} more {'is' if more == 1 else 'are'} out of line there" if more else ""
    return f"{fault.name}{where} in {file.file}: {fault.detail.rstrip('.')}{others}"


def _driven(told: Told) -> str:
    if not told.confirmed:
        return ""
    fault = told.cause.fault
    if fault is None:
        put_in = _PUT_IN.get(told.stage)
        return f"Confirmed: every layer is clean with the reference's {put_in} put in."
    tower = "vision tower" if fault.stage == "embed" else "text model"
    if fault.others == 0:
        return f"Confirmed: driven along the reference, every other output of the {tower} is clean."
    more = f"{fault.others} more output{'s' if fault.others > 1 else ''} of the {tower}"
    return f"Confirmed: driven along the reference, it is the first at fault, with {more}."


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
