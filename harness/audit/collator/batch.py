"""A batch of a collator: prompt, answer and loss example by example, and its pixels, which are
compared with what the checkpoint's own processor makes of the same pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from driftloop.harness.audit import prompt_parts
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.dataset import pixels
from driftloop.harness.audit.dataset.pixels import Pair
from driftloop.harness.audit.findings import Finding
from driftloop.harness.checkpoint import END_OF_GENERATION
from driftloop.harness.contract import Contract, Tiling
from driftloop.harness.errors import AuditError
from driftloop.harness.training.dataset import IGNORED
from driftloop.harness.training.prompt import AROUND_IMAGE, IMAGE_TOKEN
from driftloop.harness.training.tiles import cut

if TYPE_CHECKING:
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

Values = NDArray[np.float32]

_SIDE: Final = "collator"
_SAME: Final = 1e-3
"""In the processor's own units, of which one level of 255 is about 8e-3."""
_LIKE: Final = 0.06
"""About eight levels: values farther off were not made from these pictures."""


@dataclass(frozen=True)
class Batch:
    """A batch as arrays; `labels` None where it has none."""

    input_ids: NDArray[np.int64]
    """(batch, tokens)"""
    mask: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    """As long as `input_ids`; the loss leaves -100 out."""
    pixel_values: Values | None
    """(batch, tiles, 3, side, side)"""


def read(found: object, spec: str) -> Batch:
    """`found`, whatever kind of batch it is. Raises AuditError where it holds no input_ids."""
    table = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
    if "input_ids" not in table:
        names = ", ".join(map(str, table)) or type(found).__name__
        raise AuditError(f"collator {spec}: its batch has no input_ids, only {names}")
    ids = np.atleast_2d(_array(table["input_ids"], np.int64))
    mask, tiles = table.get("attention_mask"), table.get("pixel_values")
    labels = table.get("labels", table.get("targets"))  # targets: driftloop's own batches
    if labels is not None:
        labels = np.atleast_2d(_array(labels, np.int64))
        missing = ids.shape[1] - labels.shape[1]
        labels = np.pad(labels, ((0, 0), (missing, 0)), constant_values=IGNORED)
    if tiles is not None:
        tiles = _array(tiles, np.float32)
        tiles = tiles if tiles.ndim == 5 else tiles[:, None]
    kept = np.ones_like(ids) if mask is None else _array(mask, np.int64).reshape(ids.shape)
    return Batch(ids, kept, labels, tiles)


def _array(values: Any, dtype: Any) -> NDArray[Any]:  # noqa: ANN401  (a tensor of any library)
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # numpy has no bfloat16.
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values, dtype=dtype)


def findings(
    batch: Batch, answers: Sequence[str], tokens: Tokens, contract: Contract, where: str
) -> Iterator[Finding]:
    """What each example of the batch says; `answers` are the labels that went in."""
    wanted = tokens.prompt(contract)
    for index, answer in enumerate(answers[: len(batch.input_ids)]):
        kept = batch.mask[index] != 0
        ids = batch.input_ids[index][kept].tolist()
        labels = None if batch.labels is None else batch.labels[index][kept].tolist()
        found = ids.count(wanted.image_id)
        note = f"{found} image tokens against {wanted.image_tokens} under the contract"
        tiling = "single" if found == tokens.checkpoint.tokens_per_tile else "split"
        tiles = 0 if batch.pixel_values is None else _tiles(batch.pixel_values[index])
        if tiles and found and tiles * tokens.checkpoint.tokens_per_tile != found:
            tiling = f"pixels of {tiles} tiles beside {found} image tokens"
        yield Finding("tiling", _SIDE, tiling if found else None, where, note)
        span = _answer(ids, answer, tokens)
        if span is None:
            note = f"the answer {answer!r} is not among its ids: cut off, or no part of the batch"
            yield Finding("output", _SIDE, None, where, note)
            continue
        yield from _texts(ids, span[0], tokens, contract, where)
        padded = 0 if batch.labels is None else int((batch.labels[index][~kept] != IGNORED).sum())
        yield from _trained(ids, labels, span, tokens, where, padded)


def _tiles(pixels: Values) -> int:
    """Without those of zeros, by which the shorter of a batch are filled up."""
    return int(pixels.any(axis=(1, 2, 3)).sum())


def _answer(ids: list[int], answer: str, tokens: Tokens) -> tuple[int, int] | None:
    """Where the answer's ids stand: the last place, with or without a space before it."""
    forms = (answer, answer.capitalize())
    spellings = [tokens.ids(before + form) for form in forms for before in ("", " ", "\n")]
    places = [
        (start, start + len(spelled))
        for spelled in spellings
        for start in range(len(ids) - len(spelled) + 1)
        if ids[start : start + len(spelled)] == spelled
    ]
    return max(places, default=None)


def _texts(
    ids: list[int], start: int, tokens: Tokens, contract: Contract, where: str
) -> Iterator[Finding]:
    """What prompt and answer, which begins at `start`, say as texts. The image's run of tokens,
    with all that frames it, becomes one image token."""
    around, image = tokens.tokenizer.convert_tokens_to_ids([AROUND_IMAGE, IMAGE_TOKEN])
    asked, places = ids[:start], [at for at in range(start) if ids[at] in (around, image)]
    if places:
        asked[places[0] : places[-1] + 1] = [image]
    prompt, answer = tokens.text(asked), tokens.text(ids[start:])
    yield from prompt_parts.findings(prompt, _SIDE, where, contract, has_token=True)
    is_bare = prompt_parts.split(prompt, contract.prompt.marker).template == "{prompt}"
    space = answer[: len(answer) - len(answer.lstrip())]
    if space and is_bare:
        note = "white space before the answer, which is part of the answer's first token"
        yield Finding("prompt_end", _SIDE, space, where, note)
    ends = [answer.find(token) for token in prompt_parts.END_TOKENS if token in answer]
    form = prompt_parts.read_target(answer[: min(ends, default=None)], contract.answer.labels).form
    yield Finding("output", _SIDE, form, where, f"the answer is {answer!r}")


def _trained(
    ids: list[int],
    labels: list[int] | None,
    span: tuple[int, int],
    tokens: Tokens,
    where: str,
    padded: int,
) -> Iterator[Finding]:
    """What the loss covers, and whether the end token is a part of it. `padded`: labels of padding
    that the loss does not leave out."""
    start, end = span
    vocabulary = tokens.tokenizer.get_vocab()
    ends = {vocabulary.get(name) for name in END_OF_GENERATION} | {tokens.tokenizer.eos_token_id}
    closing = next((at for at in range(end, len(ids)) if ids[at] in ends), None)
    if labels is None:
        yield Finding("loss", _SIDE, None, where, "the batch has no labels")
        yield Finding("end_token", _SIDE, closing is not None, where)
        return
    on_prompt = sum(label != IGNORED for label in labels[:start])
    on_answer = sum(label != IGNORED for label in labels[start:])
    value = "nothing of the answer" if not on_answer else "prompt too" if on_prompt else "answer"
    note = f"{on_prompt} of {start} prompt tokens and {on_answer} after them are in the loss"
    if padded:
        value, note = "padding too", f"{note}, and {padded} of padding"
    yield Finding("loss", _SIDE, value, where, note)
    is_masked = closing is not None and labels[closing] == IGNORED
    note = "it is there but its label is -100: masked with the padding?" if is_masked else ""
    yield Finding("end_token", _SIDE, closing is not None and not is_masked, where, note)


def as_given(
    found: Values | None, images: Sequence[Image.Image], processor: Idefics3Processor, where: str
) -> Iterator[Finding]:
    """Channels and normalisation, from values made of pictures that are already prepared."""
    own, fits = processor.image_processor, list[_Fit]()
    if found is not None:
        expected = _expected(images, own, found.shape[1])
        if found.shape == expected.shape:
            fits = [_fit(found, expected), _fit(found, expected[:, :, ::-1])]
    if not fits or min(fit.residual for fit in fits) > _LIKE:
        note = "it has no pixel_values that any mean and deviation make of its pictures"
        yield Finding("normalisation", _SIDE, None, where, note)
        return
    is_swapped = fits[1].residual < fits[0].residual * 0.5
    fit = fits[is_swapped]
    yield Finding("channels", _SIDE, "bgr" if is_swapped else "rgb", where)
    # value = (level - mean) / deviation on both sides
    deviations = own.image_std / fit.slopes
    means = own.image_mean - fit.offsets * deviations
    value = f"mean {means.round(3).tolist()}, deviation {deviations.round(3).tolist()}"
    if np.allclose([means, deviations], [own.image_mean, own.image_std], atol=0.01):
        value = "the checkpoint's"
    note = f"pixel values within {fit.residual:.1e} (mean) of what this gives"
    yield Finding("normalisation", _SIDE, value, where, note)


def _expected(images: Sequence[Image.Image], own: Idefics3ImageProcessorPil, tiles: int) -> Values:
    """What the checkpoint's processor makes of `images`; it fills up with tiles of zeros."""
    tiling: Tiling = "split" if tiles > 1 else "single"
    made = [cut(own, image.convert("RGB"), tiling).pixel_values.numpy() for image in images]
    most = max(len(one) for one in made)
    filled = [np.pad(one, ((0, most - len(one)), (0, 0), (0, 0), (0, 0))) for one in made]
    return np.stack(filled).astype(np.float32)


class _Fit(NamedTuple):
    """Values as `slope * expected + offset`, channel by channel, and the mean that is left."""

    slopes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    residual: float


def _fit(found: Values, expected: Values) -> _Fit:
    fits, residuals = [], []
    for channel in range(3):
        one, other = found[:, :, channel].ravel(), expected[:, :, channel].ravel()
        is_same = np.mean(np.abs(one - other)) <= _SAME
        slope, offset = (1.0, 0.0) if is_same else np.polyfit(other, one, 1)
        residuals.append(np.mean(np.abs(slope * other + offset - one)))
        fits.append((slope if abs(slope) > _SAME else 1.0, offset))
    slopes, offsets = np.asarray(fits).T
    return _Fit(slopes, offsets, float(np.mean(residuals)))


@contextlib.contextmanager
def handed_on() -> Iterator[list[Image.Image]]:
    """The pictures that reach an image processor of transformers meanwhile, whoever made it."""
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.image_utils import make_flat_list_of_images

    own, handed = BaseImageProcessor.__call__, []

    def watched(self: Any, images: Any, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        handed.extend(make_flat_list_of_images(images))
        return own(self, images, *args, **options)

    BaseImageProcessor.__call__ = watched
    try:
        yield handed
    finally:
        BaseImageProcessor.__call__ = own


def own_preparation(
    taken: Sequence[Image.Image], handed: Sequence[Image.Image], contract: Contract, where: str
) -> Iterator[Finding]:
    """How the collator makes squares of pictures that come as the camera took them; nothing where
    it hands them on as they are, since its dataset is expected to be prepared."""
    squares = [one.convert("RGB") for one in handed[-len(taken) :] if isinstance(one, Image.Image)]
    if len(squares) < len(taken):
        note = "its pictures go through no image processor of transformers"
        yield Finding("resize", _SIDE, None, where, note)
        return
    arrays = zip(map(np.asarray, squares), map(np.asarray, taken), strict=True)
    # The very pictures, red and blue perhaps exchanged.
    if all(np.array_equal(a, b) or np.array_equal(a, b[..., ::-1]) for a, b in arrays):
        return
    sizes = {max(square.size) for square in squares}
    if len(sizes) == 1:
        yield Finding("image_size", _SIDE, sizes.pop(), where)
    with TemporaryDirectory() as folder:
        pairs = []
        for picture, square in zip(taken, squares, strict=True):
            picture.save(file := Path(folder) / f"{picture.width}x{picture.height}.png")
            pairs.append(Pair(square, file))
        for one in pixels.findings(pairs, _SIDE, where, contract, lambda *_: None):
            if one.aspect != "channels":  # which the pixel values show
                yield one
