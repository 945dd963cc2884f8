"""What a mismatch costs in pixels and in text, measured without running the model."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from driftloop.harness.audit.aspects import changed
from driftloop.harness.audit.findings import Value
from driftloop.harness.audit.rows import Row
from driftloop.harness.contract import Contract
from driftloop.harness.errors import CaseError
from driftloop.harness.images import open_image
from driftloop.harness.preprocess import prepare_as
from driftloop.harness.preprocess.dump import difference

if TYPE_CHECKING:
    from driftloop.harness.audit.checkpoint import Tokens
    from driftloop.harness.cases import Case

_PICTURES: Final = 6
_SIZES: Final = ((480, 480), (641, 430), (333, 500))
"""A square, a wide and a tall picture; the last two leave odd remainders."""


@dataclass(frozen=True)
class Gauge:
    """What the impact of a mismatch is measured with, without running the model."""

    contract: Contract
    tokens: Tokens | None = None
    """The checkpoint's tokenizer, where one was given."""
    cases: Sequence[Case] = ()
    """The user's own pictures; without one that opens, drawn ones."""

    def measured(self, row: Row, on_answers: str = "") -> Row:
        """A mismatch with its impact, that on answers first; any other row as it is."""
        if row.match is not False or row.value is None:
            return row
        said = [on_answers, self._said(row.aspect, row.value)]
        return replace(row, impact="; ".join(filter(None, said)))

    @cached_property
    def _pictures(self) -> list[Image.Image]:
        opened = []
        for case in self.cases[:_PICTURES]:
            with contextlib.suppress(CaseError):
                opened.append(open_image(case.path))
        return opened

    def _said(self, aspect: str, value: Value) -> str | None:
        if aspect == "max_tokens" and self.tokens is not None:
            longest = self.tokens.longest_answer(self.contract)
            return f"none while the answer is a label: at most {longest} tokens with its end"
        other = changed(self.contract, aspect, value)
        if other is None:
            return None
        if other.pixels != self.contract.pixels:
            return self._levels(other)
        if self.tokens is not None and other.tiling != self.contract.tiling:
            prompts = map(self.tokens.prompt, (other, self.contract))
            sizes = (f"{one.image_tokens} of {len(one.ids)}" for one in prompts)
            return f"{' against '.join(sizes)} prompt tokens are the image's"
        texts = self.contract.prompt.text, other.prompt.text
        pairs = enumerate(zip_longest(*texts))
        at = next((at for at, (one, another) in pairs if one != another), None)
        if at is None:
            return None
        wanted_text, found_text = (repr(text[max(0, at - 12) : at + 20]) for text in texts)
        return f"texts differ from character {at} on: contract {wanted_text}, found {found_text}"

    def _levels(self, other: Contract) -> str | None:
        distances = []
        for picture in self._pictures or drawn():
            with contextlib.suppress(CaseError):
                pair = [prepare_as(picture, one.pixels) for one in (self.contract, other)]
                # The vision tower takes one size alone: the smaller picture is seen enlarged.
                side = max(image.width for image in pair)
                alike = [image.resize((side, side), Image.Resampling.LANCZOS) for image in pair]
                distances.append(difference(*alike).mean_abs)
        if not distances:
            return None
        pictures = "of the images" if self._pictures else "drawn pictures"
        levels = f"pixels differ by {np.mean(distances):.2f} of 255 levels"
        return f"{levels} (mean over {len(distances)} {pictures})"


@cache
def drawn() -> tuple[Image.Image, ...]:
    """Pictures of many colours and edges, seeded: one of each shape."""
    pictures = []
    for index, size in enumerate(_SIZES):
        noise = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        fine = np.random.default_rng(index).integers(-24, 25, (size[1], size[0], 3))
        levels = np.clip(np.asarray(picture).astype(np.int16) + fine, 0, 255)
        pictures.append(Image.fromarray(levels.astype(np.uint8)))
    return tuple(pictures)
