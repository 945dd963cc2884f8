"""The drifts of two runs, hop by hop: what appeared, what went away, what stayed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.comparison.blame import Blame
from harness.comparison.hop import HopResult
from harness.judgement.verdict import Verdict
from reports import numbers

HopKey = tuple[str, str | None]
"""(candidate, phone as this run names it)."""

Change = Literal["appeared", "went away", "stayed", "not run before", "not run now"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class HopBetween(_Part):
    """One hop in both runs, in words; `not run` where a run lacks it."""

    name: str
    phone: str | None
    agreement_before: str
    agreement_now: str
    label_logprob_before: str
    label_logprob_now: str


class DriftBetween(_Part):
    """One blame and what became of it."""

    change: Change
    blame: Blame
    """As this run has it; where it went away, as the earlier run had it."""
    cases_before: int | None
    """How many cases showed it before; None where it was not there."""


def hops_between(
    now: Verdict, before: Verdict, renamed: Mapping[str, str]
) -> tuple[HopBetween, ...]:
    """Every hop of either run. `renamed`: an earlier run's phone -> the one it stands for now."""
    new = {(hop.candidate, hop.phone): hop for hop in now.hops}
    old = {(hop.candidate, _renamed(hop.phone, renamed)): hop for hop in before.hops}
    return tuple(_hop(old.get(key), new.get(key), key) for key in dict.fromkeys((*new, *old)))


def drifts_between(
    now: Verdict, before: Verdict, renamed: Mapping[str, str]
) -> tuple[DriftBetween, ...]:
    """Every blame of either run: new ones first, then those that went, then those that stayed."""
    ran_now = {(hop.name, hop.phone) for hop in now.hops}
    ran_before = {(hop.name, _renamed(hop.phone, renamed)) for hop in before.hops}
    left = [one.model_copy(update={"phone": _renamed(one.phone, renamed)}) for one in before.blames]
    found = []
    for blame in now.blames:
        earlier = next((one for one in left if same_cause(one, blame)), None)
        if earlier is not None:
            left.remove(earlier)
        ran = (blame.hop, blame.phone) in ran_before
        change: Change = "stayed" if earlier else "appeared" if ran else "not run before"
        cases = earlier.cases if earlier else None
        found.append(DriftBetween(change=change, blame=blame, cases_before=cases))
    for blame in left:
        change = "went away" if (blame.hop, blame.phone) in ran_now else "not run now"
        found.append(DriftBetween(change=change, blame=blame, cases_before=blame.cases))
    order: tuple[Change, ...] = (
        "appeared", "not run before", "went away", "not run now", "stayed",
    )  # fmt: skip
    return tuple(sorted(found, key=lambda drift: order.index(drift.change)))


def same_cause(ours: Blame, theirs: Blame) -> bool:
    """Whether two blames name the same: a layer that one run could not tell stands for any."""
    if (ours.hop, ours.phone, ours.stage) != (theirs.hop, theirs.phone, theirs.stage):
        return False
    return None in (ours.layer, theirs.layer) or ours.layer == theirs.layer


def _renamed(phone: str | None, renamed: Mapping[str, str]) -> str | None:
    return None if phone is None else renamed.get(phone, phone)


def _hop(old: HopResult | None, new: HopResult | None, key: HopKey) -> HopBetween:
    return HopBetween(
        name=next(hop.name for hop in (new, old) if hop is not None),
        phone=key[1],
        agreement_before=_agreement(old),
        agreement_now=_agreement(new),
        label_logprob_before=_moved(old),
        label_logprob_now=_moved(new),
    )


def _agreement(hop: HopResult | None) -> str:
    return numbers.of(hop.label_agreement) if hop else "not run"


def _moved(hop: HopResult | None) -> str:
    if hop is None:
        return "not run"
    spread = hop.label_logprob_difference
    return numbers.nats(spread.maximum) if spread else "not told"
