"""What a mismatch costs as far as that can be measured without running the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from harness import cases
from harness.audit.aspects import changed
from harness.audit.collator import drawn
from harness.audit.findings import Value
from harness.audit.rows import Row
from harness.audit.tokens import Tokens, first_difference
from harness.contract import Contract
from harness.errors import CaseError
from harness.images import IMAGE_SUFFIXES, open_image
from harness.preprocess import prepare_as
from harness.preprocess.cost import difference

_PICTURES: Final = 6
_BEFORE, _AFTER = 12, 20
"""Characters shown around the first difference of two texts."""


def pictures(
    contract: Contract, measure_on: str | None, originals: Path | None
) -> tuple[list[Image.Image], str]:
    """Pictures to measure pixels on, the user's own where there are some, and what they are."""
    files: list[Path] = []
    if measure_on is not None:
        found = cases.load_cases(measure_on, contract.answer.labels, skip_bad=True)
        files = [case.path for case in found.cases]
    elif originals is not None:
        files = [
            file for file in sorted(originals.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES
        ]
    opened = []
    for file in files[:_PICTURES]:
        try:
            opened.append(open_image(file))
        except CaseError:
            continue
    if opened:
        return opened, "of the images"
    return [sample.image for sample in drawn(contract.answer.labels, "")], "drawn pictures"


@dataclass(frozen=True)
class Gauge:
    """What impacts are measured with."""

    contract: Contract
    tokens: Tokens | None
    """The checkpoint's tokenizer, where one was given."""
    pictures: Sequence[Image.Image]
    """As the camera takes them."""
    pictures_are: str
    """Where they come from, in words."""

    def measured(self, row: Row, on_answers: str = "") -> Row:
        """A mismatch with its impact, that `on_answers` first; any other row as it is."""
        if row.match is not False or row.value is None:
            return row
        known = row.impact or self._impact(row.aspect, row.value)
        return replace(row, impact="; ".join(filter(None, (on_answers, known))))

    def _impact(self, aspect: str, value: Value) -> str | None:
        if aspect == "max_tokens" and self.tokens is not None:
            longest = self.tokens.longest_answer(self.contract)
            return f"none while the answer is a label: {longest} tokens with its end, at most"
        other = changed(self.contract, aspect, value)
        if other is None:
            return None
        if other.pixels != self.contract.pixels.spelled_out:
            return self._levels(other)
        if self.tokens is None:
            return _texts(self.contract.prompt.text, other.prompt.text)
        if other.tiling != self.contract.tiling:
            found, wanted = (self.tokens.prompt(one) for one in (other, self.contract))
            return (
                f"{found.image_tokens} image tokens against {wanted.image_tokens}, "
                f"{len(found.ids)} prompt tokens against {len(wanted.ids)}"
            )
        return self.tokens.difference(self.contract, other)

    def _levels(self, other: Contract) -> str | None:
        distances = []
        for picture in self.pictures:
            try:
                pair = [prepare_as(picture, one.pixels) for one in (self.contract, other)]
            except CaseError:
                continue
            side = max(image.width for image in pair)
            # Of two sizes, the smaller is seen enlarged: the vision tower takes one size alone.
            alike = [image.resize((side, side), Image.Resampling.LANCZOS) for image in pair]
            distances.append(difference(*alike).mean_abs)
        if not distances:
            return None
        return (
            f"pixels differ by {np.mean(distances):.2f} of 255 levels "
            f"(mean over {len(distances)} {self.pictures_are})"
        )


def _texts(one: str, other: str) -> str | None:
    at = first_difference(one, other)
    if at is None:
        return None
    shown = [repr(text[max(0, at - _BEFORE) : at + _AFTER]) for text in (one, other)]
    return f"texts differ from character {at} on: contract {shown[0]}, found {shown[1]}"
