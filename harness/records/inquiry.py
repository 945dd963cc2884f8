"""`inquiry.json`: what a run learned beside the answers: files, floors, driven cases."""

from __future__ import annotations

from typing import Final, Literal

from driftloop.devices.runner.protocol import DrivenLayer
from driftloop.harness.jsonl import Record
from driftloop.harness.records.observation import Place
from driftloop.harness.stage import Stage

INQUIRY_FILE: Final = "inquiry.json"

Half = Literal["text", "mmproj"]
"""Which of the two GGUFs of a quant type."""

Owner = Literal["bundle", "phone bundle"]
"""The bundle that every arm reads, or the one that phones were given in its place."""


class FileFault(Record):
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
    """True where no answer under any contract can depend on it, so that it is no fault."""


class Floor(Record):
    """How far rounding alone carries on this model: an arm against its twins.

    A twin is the same arm with the vision graph's input, or the image embeddings, moved by 1e-5 of
    their length. Distances are relative to the reference's length, the other two in nats. Each
    value is an upper bound of the 90th percentile over `cases`; None where no twin measured it.
    """

    arm: str
    cases: int
    """Images behind `prefill`, `label_logprob` and `margin`."""
    vision_cases: int
    """Images behind `embed`."""
    embed: float | None
    prefill: float | None
    label_logprob: float | None
    margin: float | None
    """How far the margin between the two best labels moved."""


class Divergence(Record):
    """The first generated token at which two answers part; an id is None where one had ended."""

    index: int
    reference_id: int | None
    candidate_id: int | None
    reference_margin: float | None
    """Nats by which the reference prefers its own token; None where its top-k lacks the other."""
    candidate_margin: float | None


class DrivenCase(Record):
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
    """Where the driven candidate's answer parts from the reference's, after the same trajectory."""
    error: str | None = None

    @property
    def place(self) -> Place:
        """(session, position)."""
        return (self.session, self.position)


class AppRemarks(Record):
    """What the app's own lines show beside its answers."""

    untold: tuple[str, ...] = ()
    """Values that some lines lack: a difference in them has no stage."""
    pixels: str | None = None
    """How the app made its pixels, in the words of `driftloop pixels`; None where they are the
    contract's, or not reported."""
    models: tuple[str, ...] = ()
    """Files that the app loaded and that are not the run's."""


class Inquiry(Record):
    """Everything; `driven` is empty in a run with `--drive 0`."""

    schema_version: Literal[2] = 2
    files: tuple[FileFault, ...] = ()
    floors: tuple[Floor, ...] = ()
    driven: tuple[DrivenCase, ...] = ()
    app: AppRemarks | None = None
