"""A blame as a person would say it; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Final

from driftloop.harness.comparison.case_comparison import CaseComparison, first_step_judged
from driftloop.harness.comparison.causes import Cause, Explained
from driftloop.harness.comparison.driven import LayerFault
from driftloop.harness.comparison.terms import Differences
from driftloop.harness.ladder import Change, Hop, located
from driftloop.harness.stage import Stage
from driftloop.harness.tolerance import Tolerance, over

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
class Facts:
    """All that the sentence of one blame is made of."""

    hop: Hop
    tolerance: Tolerance
    differences: Differences
    """What the two arms were asked differently."""
    pixels: str | None
    """How the candidate made its pixels, where it is an app that dumped them."""
    clean: bool
    """The hop was driven and none of its layers is at fault."""
    cause: Cause
    explained: Explained | None

    @property
    def stage(self) -> Stage:
        """The first stage beyond tolerance, or the one that the faulty file changes."""
        return self.cause.stage if self.explained is None else self.explained.stage

    @property
    def layer(self) -> str | None:
        """The driven layer at fault, else the one that the faulty file names."""
        own = None if self.cause.fault is None else self.cause.fault.layer
        return self.explained.fault.layer if own is None and self.explained else own

    @property
    def asked(self) -> tuple[str, ...]:
        """The differences that show at this stage."""
        return self.differences.by_stage.get(self.stage, ())

    @property
    def confirmed(self) -> bool:
        """Whether driving shows that it is this and nothing else.

        A layer beyond its limit was driven itself. What an arm makes of its input is the cause
        where every layer is clean once the reference's input is put in.
        """
        by_input = self.clean and bool(self.cause.cases) and self.cause.stage in _PUT_IN
        return self.cause.fault is not None or by_input


def sentence(facts: Facts) -> str:
    """What happens and why; how often and by how much; which file; what driving showed."""
    reasons = "; ".join(_reasons(facts))
    headline = f"{_headline(facts)}: {reasons}." if reasons else f"{_headline(facts)}."
    parts = [headline, _evidence(facts)]
    if facts.explained is not None:
        parts.append(_fault(facts.explained, facts.layer if facts.cause.cases else None))
    if facts.confirmed:
        parts.append(_confirmed(facts))
    return " ".join(parts)


def with_fault(said: str, found: Explained) -> str:
    """A sentence with the fault that explains it."""
    return f"{said} {_fault(found, None)}"


def _headline(facts: Facts) -> str:
    reference, candidate = facts.differences.names
    if not facts.cause.cases and facts.explained is not None:
        return f"{_subject(facts.hop)} reads a faulty file, {facts.explained.file.file}"
    if facts.asked and facts.stage in _ASKED:
        said = _ASKED[facts.stage].format(reference=reference, candidate=candidate)
        return said[0].upper() + said[1:]
    return f"{_subject(facts.hop)} {_does(facts)}"


def _subject(hop: Hop) -> str:
    if len(hop.changes) > 1:
        return located(hop.candidate, hop.phone)
    subject = _SUBJECTS[hop.changes[0]]
    return subject if hop.phone is None else f"{subject} {hop.phone}"


def _does(facts: Facts) -> str:
    cases, fault = facts.cause.cases, facts.cause.fault
    if fault is not None:
        return (
            f"breaks the {_TOWERS[fault.stage]} at {fault.layer or _OWN_OUTPUT[fault.output.name]}"
        )
    if facts.layer is not None:
        return f"{_DOES[facts.stage]} from {facts.layer} on"
    if facts.stage == "decode" and not facts.asked:
        if cases and all(case.tokens_equal for case in cases):
            return "spells the same tokens differently"
        if _end_early(cases):
            return "ends answers early"
        if not _logits_agree(facts):
            return "chooses tokens, or ends answers, by another rule"
    return _DOES[facts.stage]


def _reasons(facts: Facts) -> Iterator[str]:
    yield from facts.asked
    if facts.stage == "resize" and facts.pixels is not None:
        yield f"its pixels are {facts.pixels}"
    if facts.stage in ("prefill", "decode"):
        yield from facts.differences.runtime
    if (
        facts.cause.leaks
        and not facts.asked
        and not facts.differences.runtime
        and facts.explained is None
    ):
        yield "as if something of the previous image were left"


def _evidence(facts: Facts) -> str:
    cause = facts.cause
    count = len(cause.cases)
    if count == 0:
        return "No case shows it."
    measured = _measured(facts) or "This shows"
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


def _measured(facts: Facts) -> str:
    """How large the difference is; empty where it has no size."""
    case, fault = facts.cause.cases[0], facts.cause.fault
    if fault is not None:
        return _off(fault)
    if facts.stage == "tile":
        theirs = _tiling(case.candidate_grid, case.candidate_image_tokens, " image tokens")
        ours = _tiling(case.reference_grid, case.reference_image_tokens)
        return f"There are {theirs}, where the reference has {ours},"
    if facts.stage == "tokens":
        return _ids(case)
    if facts.stage == "prefill":
        return _logits(facts.cause.cases, facts.tolerance)
    return _distance(facts.cause.cases, facts.stage, facts.tolerance)


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
    """`named`: the layer that the sentence has already named."""
    file, fault = found.file, found.fault
    if fault.kind == "hash":
        return f"{file.file} has changed since the bundle was made."
    more = sum(other.kind != "hash" for other in file.faults) - 1
    where = f" ({fault.layer})" if fault.layer not in (None, named) else ""
    others = f", and {more} more {'is' if more == 1 else 'are'} out of line" if more else ""
    return f"In {file.file}, {fault.name}{where} is wrong: {fault.detail.rstrip('.')}{others}."


def _confirmed(facts: Facts) -> str:
    fault = facts.cause.fault
    if fault is None:
        put_in = _PUT_IN.get(facts.stage)
        return f"Confirmed: given the reference's {put_in}, every layer is clean."
    tower = _TOWERS[fault.stage]
    if fault.others == 0:
        return f"Confirmed: given the reference's inputs, the rest of the {tower} is clean."
    more = f"{fault.others} more output{'s' if fault.others > 1 else ''}"
    return f"Confirmed: it is the first of the {tower} at fault; {more} are, each by itself."


def _logits_agree(facts: Facts) -> bool:
    """Whether the logits of the first step are known to agree in every case."""
    return all(
        "prefill" not in case.beyond
        and first_step_judged(case.distances, case.label_logprob_differences, facts.tolerance)
        for case in facts.cause.cases
    )


def _end_early(cases: Sequence[CaseComparison]) -> bool:
    """Whether the candidate's text is a shorter beginning of the reference's in every case."""
    return bool(cases) and all(
        case.reference_text.startswith(case.candidate_text)
        and not case.text_equal
        and (case.divergence is None or case.divergence.candidate_id is None)
        for case in cases
    )
