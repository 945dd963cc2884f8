"""What a mismatch costs in pixels and in text, measured without running the model."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from driftloop.harness import cases
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

_PICTURES: Final = 6
_SIZES: Final = ((480, 480), (641, 430), (333, 500))
"""A square, a wide and a tall picture; the last two leave odd remainders."""
_BEFORE, _AFTER = 12, 20
"""Characters shown around the first difference of two texts."""


@dataclass(frozen=True)
class Gauge:
    """What the impact of a mismatch is measured with, without running the model."""

    contract: Contract
    tokens: Tokens | None
    """The checkpoint's tokenizer, where one was given."""
    pictures: Sequence[Image.Image]
    pictures_are: str
    """Where they come from, in words."""

    def measured(self, row: Row, on_answers: Mapping[tuple[str, Value], str] | None = None) -> Row:
        """A mismatch with its impact, that on answers first; any other row as it is."""
        if row.match is not False or row.value is None:
            return row
        said = [(on_answers or {}).get((row.aspect, row.value)), self._said(row.aspect, row.value)]
        return replace(row, impact="; ".join(filter(None, said)))

    def _said(self, aspect: str, value: Value) -> str | None:
        if aspect == "max_tokens" and self.tokens is not None:
            longest = self.tokens.longest_answer(self.contract)
            return f"none while the answer is a label: at most {longest} tokens with its end"
        other = changed(self.contract, aspect, value)
        if other is None:
            return None
        if other.pixels != self.contract.pixels.spelled_out:
            return self._levels(other)
        if self.tokens is not None and other.tiling != self.contract.tiling:
            found, wanted = (self.tokens.prompt(one) for one in (other, self.contract))
            return (
                f"{found.image_tokens} image tokens against {wanted.image_tokens}, "
                f"{len(found.ids)} prompt tokens against {len(wanted.ids)}"
            )
        texts = self.contract.prompt.text, other.prompt.text
        pairs = enumerate(zip_longest(*texts))
        at = next((at for at, (one, another) in pairs if one != another), None)
        if at is None:
            return None
        wanted_text, found_text = (repr(text[max(0, at - _BEFORE) : at + _AFTER]) for text in texts)
        return f"texts differ from character {at} on: contract {wanted_text}, found {found_text}"

    def _levels(self, other: Contract) -> str | None:
        distances = []
        for picture in self.pictures:
            with contextlib.suppress(CaseError):
                pair = [prepare_as(picture, one.pixels) for one in (self.contract, other)]
                # The vision tower takes one size alone: the smaller picture is seen enlarged.
                side = max(image.width for image in pair)
                alike = [image.resize((side, side), Image.Resampling.LANCZOS) for image in pair]
                distances.append(difference(*alike).mean_abs)
        if not distances:
            return None
        return (
            f"pixels differ by {np.mean(distances):.2f} of 255 levels "
            f"(mean over {len(distances)} {self.pictures_are})"
        )


def gauge(
    contract: Contract, tokens: Tokens | None, measure_on: str | None, originals: Path | None
) -> Gauge:
    """A gauge with the user's own pictures where there are some. Raises CaseError as
    `harness.cases.load_cases`."""
    opened: list[Image.Image] = []
    if (spec := measure_on or originals) is not None:
        found = cases.load_cases(str(spec), contract.answer.labels, skip_bad=True)
        for case in found.cases[:_PICTURES]:
            with contextlib.suppress(CaseError):
                opened.append(open_image(case.path))
    if opened:
        return Gauge(contract, tokens, opened, "of the images")
    return Gauge(contract, tokens, drawn(), "drawn pictures")


def drawn() -> list[Image.Image]:
    """Pictures of many colours and edges, seeded: one of each shape."""
    pictures = []
    for index, size in enumerate(_SIZES):
        noise = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        fine = np.random.default_rng(index).integers(-24, 25, (size[1], size[0], 3))
        levels = np.clip(np.asarray(picture).astype(np.int16) + fine, 0, 255)
        pictures.append(Image.fromarray(levels.astype(np.uint8)))
    return pictures
