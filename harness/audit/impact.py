"""What a mismatch costs as far as that can be measured without running the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from PIL import Image

from harness.audit.aspects import changed
from harness.audit.findings import Value
from harness.audit.rows import Row
from harness.audit.tokens import Tokens
from harness.contract import Contract
from harness.errors import CaseError
from harness.preprocess import prepare_as
from harness.preprocess.cost import difference

_PROMPT: Final = frozenset(
    {
        "marker",
        "after_marker",
        "prompt_words",
        "context_block",
        "prompt_end",
        "chat_template",
        "add_special",
        "parse_special",
    }
)
_PIXELS: Final = frozenset(
    {
        "image_size",
        "padding",
        "resize",
        "size_arithmetic",
        "centring",
        "alpha",
        "colour_space",
        "exif",
        "channels",
    }
)
_BEFORE, _AFTER = 12, 20
"""Characters shown around the first difference of two texts."""


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

    def measured(self, row: Row) -> Row:
        """`row` with its impact, where it is a mismatch of which none is known yet."""
        if row.match is not False or row.impact is not None or row.found is None:
            return row
        return replace(row, impact=self._impact(row.aspect, row.found))

    def _impact(self, aspect: str, value: Value) -> str | None:
        if aspect == "max_tokens" and self.tokens is not None:
            return _longest_label(self.tokens, self.contract)
        other = changed(self.contract, aspect, value)
        if other is None:
            return None
        if aspect in _PIXELS:
            return self._levels(other)
        if aspect == "tiling" and self.tokens is not None:
            found, wanted = (self.tokens.prompt(one) for one in (other, self.contract))
            return (
                f"{found.image_tokens} image tokens against {wanted.image_tokens}, "
                f"{len(found.ids)} prompt tokens against {len(wanted.ids)}"
            )
        if aspect not in _PROMPT:
            return None
        if self.tokens is not None:
            return self.tokens.difference(self.contract, other)
        return _texts(self.contract.prompt.text, other.prompt.text)

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


def _longest_label(tokens: Tokens, contract: Contract) -> str:
    lengths = [
        len(tokens.tokenizer.encode(label, add_special_tokens=False)) + 1
        for label in contract.answer.labels
    ]
    return f"none while the answer is a label: {max(lengths)} tokens with its end, at most"


def _texts(one: str, other: str) -> str | None:
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if at is None:
        if len(one) == len(other):
            return None
        at = min(len(one), len(other))
    start = max(0, at - _BEFORE)
    shown = [repr(text[start : at + _AFTER]) for text in (one, other)]
    return f"texts differ from character {at} on: contract {shown[0]}, found {shown[1]}"
