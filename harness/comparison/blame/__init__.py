"""Why a hop differs, in a form that people read and machines compare."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from harness.stage import Stage


class Blame(BaseModel):
    """One cause on one hop. A hop has none, one, or more where causes do not explain each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hop: str
    phone: str | None
    stage: Stage
    """The first stage beyond tolerance."""
    layer: str | None
    """As `harness.arms.layers` names it, for example `vision layer 3 ffn`; None where the stage
    has no layers or none could be told."""
    cases: int
    """How many cases show it; 0 where only the files or the settings do."""
    of: int
    """Cases that both arms answered."""
    systematic: bool
    """True where it is in the hop, false where it is in single cases."""
    sentence: str
    """What a person would say."""
    confirmed: bool | None
    """True where driving the candidate along the reference shows that it is this and nothing else;
    None where nothing was driven, or driving cannot tell."""
