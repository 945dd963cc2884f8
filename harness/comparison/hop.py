"""What the comparison of two neighbouring arms is written down as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness import stats
from harness.comparison.blame import Blame
from harness.comparison.case_comparison import CaseComparison
from harness.comparison.driven import DrivenOutput
from harness.ladder import Change
from harness.stage import Stage


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Share(_Result):
    """A share of cases with its exact (Clopper-Pearson) two-sided 95 % bounds.

    The three numbers are None where no case could be counted.
    """

    count: int
    of: int
    estimate: float | None
    low: float | None
    high: float | None

    @classmethod
    def counted(cls, flags: Iterable[bool]) -> Share:
        """The share of true flags."""
        values = list(flags)
        count, of = sum(values), len(values)
        if of == 0:
            return cls(count=0, of=0, estimate=None, low=None, high=None)
        low, high = stats.clopper_pearson(count, of)
        return cls(count=count, of=of, estimate=count / of, low=low, high=high)


_NO_SHARE = Share.counted(())


class Equal(_Result):
    """In how many of the cases where both arms told it something was equal."""

    count: int
    of: int

    @classmethod
    def counted(cls, flags: Iterable[bool | None]) -> Equal:
        """None means that an arm did not tell."""
        told = [flag for flag in flags if flag is not None]
        return cls(count=sum(told), of=len(told))


class Spread(_Result):
    """Smallest, largest and mean of `n` values."""

    n: int
    minimum: float
    maximum: float
    mean: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Spread | None:
        """Returns None for an empty sequence."""
        if not values:
            return None
        mean = sum(values) / len(values)
        return cls(n=len(values), minimum=min(values), maximum=max(values), mean=mean)


class CaseFault(_Result):
    """A case that one arm of a hop could not answer."""

    side: Literal["reference", "candidate"]
    case_id: str
    session: int
    position: int
    kind: str
    detail: str


class PairedAccuracy(_Result):
    """Against true labels, over the same cases: who alone was right, and McNemar's exact p."""

    cases: int
    both_right: int
    only_reference_right: int
    only_candidate_right: int
    p_value: float


class ArmAccuracy(_Result):
    """How often one arm's answer was the true label, over the labelled cases it answered."""

    arm: str
    phone: str | None
    right: Share


class HopResult(_Result):
    """One hop: two neighbouring arms over the cases that both answered, canaries left out.

    `agreement` and its bounds repeat `label_agreement` for those who read the JSON by hand.
    Log-probabilities are in nats, distances over the reference's length.
    """

    name: str
    changes: tuple[Change, ...]
    reference: str
    reference_phone: str | None
    candidate: str
    phone: str | None
    cases: int
    agreement: float | None
    agreement_low: float | None
    agreement_high: float | None
    label_agreement: Share
    text_agreement: Share
    sessions: int = 0
    """Whole sessions that both arms answered; `session_agreement` is over these."""
    session_agreement: Share = _NO_SHARE
    tokens_equal: Equal
    prompt_ids_equal: Equal
    image_tokens_equal: Equal
    grid_equal: Equal
    pixels_equal: Equal
    """The canonical pixels: stage `resize`."""
    distances: dict[Stage, Spread] = {}
    """Of `pixels`, `embed` and `prefill`, over the cases where both arms told them."""
    label_logprob_difference: Spread | None
    """Absolute, over every label of every case."""
    first_step_kl: Spread | None
    margin_spread_p999: float | None
    """99.9th percentile of how far label margins moved: on a platform hop, this pair's noise."""
    tolerance_label_logprob: float
    tolerance_flip_margin: float
    tolerance_distances: dict[str, float] = {}
    """Largest distance that is no drift, by stage (`pixels`, `embed`, `prefill`); infinite where
    driven layers decide, or where nothing was measured on this model."""
    driven_cases: int = 0
    """Cases along which the candidate was driven."""
    driven: tuple[DrivenOutput, ...] = ()
    """Every output of these, in the order of computation."""
    coin_tosses: int = 0
    """Cases whose reference margin lies within the flip margin: rounding alone decides them."""
    drift: bool
    """True where there is something to blame."""
    blame: Stage | None
    """The stage of the first of `blames`."""
    blames: tuple[Blame, ...]
    """What the hop's differences come from, what matters most first."""
    stage_cases: dict[Stage, int]
    """Cases by each of their own causes, in the order of the stages."""
    numeric_flips: int
    real_flips: int
    reference_unread: int
    """Cases in which the reference's answer holds no label."""
    accuracy: PairedAccuracy | None
    """None without true labels."""
    faults: tuple[CaseFault, ...]
    reference_missing: int
    """Cases that only the candidate has; `candidate_missing` the other way round."""
    candidate_missing: int
    differing: tuple[CaseComparison, ...]
    """Every case with a cause, another text or another label, in the order of the run."""
