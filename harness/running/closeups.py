"""Deep mode's tensors in the run folder: one `.npz` per arm, phone and place; exact distances."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.arms.base import Given, Look
from harness.comparison.stages import Stage
from harness.records.inquiry import LayerDistance
from harness.records.observation import Slot

if TYPE_CHECKING:
    from harness.arms.base import Tensor

DEEP_FOLDER: Final = "deep"


class Closeups:
    """The `deep` folder of one run folder."""

    def __init__(self, run_folder: Path) -> None:
        self._root = run_folder / DEEP_FOLDER

    def path(self, slot: Slot) -> Path:
        """Where that observation's tensors are, or would be."""
        arm, phone, session, position = slot
        return self._root / arm / (phone or "host") / f"{session}-{position}.npz"

    def keep(self, look: Look) -> None:
        """Write a look's tensors. Raises OSError where the disk refuses them."""
        import numpy as np

        target = self.path(look.observation.slot)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_suffix(".part.npz")
        np.savez(part, allow_pickle=False, **look.tensors)
        part.replace(target)

    def distances(self, reference: Slot, candidate: Slot) -> Iterator[LayerDistance]:
        """Of every tensor that both kept, in the order of computation."""
        import numpy as np

        with np.load(self.path(reference)) as ours, np.load(self.path(candidate)) as theirs:
            for name in ours.files:
                if name in theirs:
                    yield LayerDistance(name=name, distance=_apart(ours[name], theirs[name]))

    def given(self, reference: Slot, outputs: Collection[Stage], ids: tuple[int, ...]) -> Given:
        """The reference's outputs of those stages: pixels, embed, tokens (its prompt `ids`)."""
        import numpy as np

        with np.load(self.path(reference)) as kept:
            return Given(
                pixel_values=kept["pixels"] if "pixels" in outputs else None,
                embeddings=kept["embed"] if "embed" in outputs else None,
                prompt_ids=ids if "tokens" in outputs else None,
            )


def _apart(ours: Tensor, theirs: Tensor) -> float:
    """Root of the summed squares of the difference over that of `ours`."""
    import numpy as np

    if ours.shape != theirs.shape:
        return math.inf
    mine = ours.astype(np.float64)
    length = float(np.linalg.norm(mine))
    apart = float(np.linalg.norm(theirs.astype(np.float64) - mine))
    if not math.isfinite(apart):
        return math.inf
    return apart / length if length else (0.0 if apart == 0.0 else math.inf)
