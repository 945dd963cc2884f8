"""`inquiry.json`: what a run learned beside the answers: files, floors, driven cases."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from devices.runner.protocol import DrivenLayer
from harness.stage import Stage

INQUIRY_FILE: Final = "inquiry.json"

Half = Literal["text", "mmproj"]
"""Which of the two GGUFs of a quant type."""

Owner = Literal["bundle", "phone bundle"]
"""Whose file: the bundle that every arm reads, or the one that phones were given in its place."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class FileFault(_Record):
    """Something in a bundle's GGUF that the checkpoint or the manifest does not explain."""

    owner: Owner = "bundle"
    half: Half
    quant: str
    file: str
    """Relative to the bundle."""
    kind: Literal["tensor", "key", "token", "hash"]
    name: str
    """The tensor, the key, the token, or the file."""
    stage: Stage
    """The first stage that can show it."""
    layer: str | None
    """As `harness.arms.layers` names it."""
    detail: str
    """One line: what it is and what it should be."""
    remark: bool = False
    """True where no answer under any contract can depend on it: worth knowing, and no fault."""


class Floor(_Record):
    """How far rounding alone carries on this model: an arm against its twins.

    A twin is the same arm with the vision graph's input, or the image embeddings, moved by 1e-5 of
    their length. Distances are over the reference's length, the other two in nats. Each value is
    an upper bound of the 90th percentile over `cases`; None where no twin told it.
    """

    arm: str
    cases: int
    """Images that stand behind `prefill`, `label_logprob` and `margin`."""
    vision_cases: int
    """Images that stand behind `embed`."""
    embed: float | None
    prefill: float | None
    label_logprob: float | None
    margin: float | None
    """How far the margin between the two best labels moved."""


class Divergence(_Record):
    """The first generated token at which two answers part; an id is None where one had ended."""

    index: int
    reference_id: int | None
    candidate_id: int | None
    reference_margin: float | None
    """Nats by which the reference preferred its own token; None where the other is not in its
    top-k."""
    candidate_margin: float | None


class DrivenCase(_Record):
    """One case of one hop: the candidate driven along the reference's trajectory."""

    reference: str
    reference_phone: str | None
    candidate: str
    phone: str | None
    case_id: str
    session: int
    position: int
    outputs: tuple[DrivenLayer, ...]
    """In the order of computation. Empty where `error` says why there are none."""
    divergence: Divergence | None = None
    """Where the driven candidate's answer parts from the reference's, though both chose the first
    token after the same trajectory."""
    error: str | None = None


class AppRemarks(_Record):
    """What the app's own lines show beside its answers."""

    untold: tuple[str, ...] = ()
    """What not every line says: a difference there has no stage."""
    pixels: str | None = None
    """How the app made its pixels, as `driftloop pixels` says it; None where they are the
    contract's, or not told."""
    models: tuple[str, ...] = ()
    """Files that it says it loaded and that are not the run's."""


class Inquiry(_Record):
    """Everything; a run that was told to drive nothing has no `driven`."""

    schema_version: Literal[2] = 2
    files: tuple[FileFault, ...] = ()
    floors: tuple[Floor, ...] = ()
    driven: tuple[DrivenCase, ...] = ()
    app: AppRemarks | None = None
