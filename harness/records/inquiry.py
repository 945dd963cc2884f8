"""`inquiry.json`: what was looked at closely after a run: files, layers, swap tests."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from harness.comparison.stages import Stage

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


class HopCase(_Record):
    """One case on one hop."""

    reference: str
    reference_phone: str | None
    candidate: str
    phone: str | None
    case_id: str
    session: int
    position: int


class LayerDistance(_Record):
    """How far one output is apart, over the reference's length (root of summed squares)."""

    name: str
    """A stage (`pixels`, `embed`, `prefill`) or a layer."""
    distance: float
    """Infinite where shapes differ or a value is not finite."""


class LayerComparison(HopCase):
    """A case of which both arms' tensors were kept, in the order of computation."""

    layers: tuple[LayerDistance, ...]


class SwapResult(HopCase):
    """The candidate, run again with the reference's output of every stage up to `given` put in."""

    given: Stage
    agrees: bool
    """True where every stage after `given` was within the hop's tolerance."""
    first_beyond: Stage | None
    """The first stage after `given` that was not."""


class Inquiry(_Record):
    """Everything; empty where nothing differed."""

    schema_version: Literal[1] = 1
    files: tuple[FileFault, ...] = ()
    layers: tuple[LayerComparison, ...] = ()
    swaps: tuple[SwapResult, ...] = ()
