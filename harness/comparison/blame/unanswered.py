"""Cases that the reference alone could answer: the stage the candidate did not get past; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from devices.runner.protocol import RunnerFault
from harness.comparison.blame import Blame
from harness.comparison.blame.causes import most
from harness.ladder import Hop, located
from harness.records.observation import Observation, Place
from harness.stage import STAGES, Stage

_STAGE: Final[dict[str, Stage]] = {
    "image_decode": "resize",
    "tokenize": "tokens",
    "encode": "embed",
}
"""Any other fault of an image comes up in `prefill`, or, with tokens there already, in `decode`."""


def unanswered(
    hop: Hop, reference: Mapping[Place, Observation], candidate: Mapping[Place, Observation]
) -> tuple[Blame, ...]:
    """One blame per stage and kind of fault, in the order of the stages."""
    shared = reference.keys() & candidate.keys()
    answered = [place for place in sorted(shared) if reference[place].error is None]
    found: dict[tuple[Stage, str], list[RunnerFault]] = {}
    for stage, fault in _faults(candidate[place] for place in answered):
        found.setdefault((stage, fault.kind), []).append(fault)
    return tuple(
        _blame(hop, stage, faults, len(answered))
        for (stage, _), faults in sorted(found.items(), key=lambda one: STAGES.index(one[0][0]))
    )


def _faults(seen: Iterable[Observation]) -> Iterator[tuple[Stage, RunnerFault]]:
    for one in seen:
        if one.error is not None:
            yield _STAGE.get(one.error.kind, "decode" if one.tokens else "prefill"), one.error


def _blame(hop: Hop, stage: Stage, faults: list[RunnerFault], of: int) -> Blame:
    where = located(hop.candidate, hop.phone)
    return Blame(
        hop=hop.name,
        phone=hop.phone,
        stage=stage,
        layer=None,
        cases=len(faults),
        of=of,
        systematic=most(len(faults), of),
        sentence=(
            f"{where} fails in {len(faults)} of {of} cases that {hop.reference} answers "
            f"({faults[0].kind}): {faults[0].detail.rstrip('.')}."
        ),
        confirmed=None,
    )
