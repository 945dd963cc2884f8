"""What is wrong with a checkpoint that no conversion could put right, said before one begins.

llama.cpp's converter takes most of it without a word, and the conversion would be blamed for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np

from driftloop.harness.bundle.checkpoint_files import (
    CheckpointSettings,
    CheckpointTensors,
    read_json,
    read_settings,
)
from driftloop.harness.contract import Contract
from driftloop.harness.errors import CheckpointError

_EMBEDDINGS: Final = "model.text_model.embed_tokens.weight"
_HEAD: Final = "lm_head.weight"
_ALWAYS: Final = {
    "do_resize": "resizes to whole tiles",
    "do_rescale": "divides levels by 255",
    "do_normalize": "normalises",
}
"""Steps of the image processor that libmtmd never leaves out."""
_F16_INFINITE: Final = 65520.0
"""From here on a number is rounded to infinity in float16."""
_VALUES: Final = 1 << 22
"""Read at once: 16 MiB."""


def refuse_unfit(folder: Path, contract: Contract) -> None:
    """Raises CheckpointError on the first thing in `folder` that speaks against converting it, and
    BundleError where its processor's settings are incomplete."""
    settings, tensors = read_settings(folder), CheckpointTensors(folder)
    for said in _faults(folder, settings, tensors, contract):
        raise CheckpointError(said)


def _faults(
    folder: Path, settings: CheckpointSettings, tensors: CheckpointTensors, contract: Contract
) -> Iterator[str]:
    for key, does in _ALWAYS.items():
        if settings.processor.get(key) is False:
            yield (
                f"{folder}: its image processor says {key} = false, and libmtmd always {does}; "
                "set it to true"
            )
    yield from _names(folder, settings, tensors)
    yield from _tokens(folder, tensors, contract)
    yield from _values(folder, tensors)


def _names(folder: Path, settings: CheckpointSettings, tensors: CheckpointTensors) -> Iterator[str]:
    """Tensors under other names than the architecture's, and an output layer that is no copy of the
    embeddings though it should be."""
    if _EMBEDDINGS not in tensors:
        alike = next((name for name in tensors if name.endswith("embed_tokens.weight")), None)
        said = f"{folder}: it has no tensor {_EMBEDDINGS}"
        if alike is None:
            yield f"{said}; save the whole model"
        else:
            yield f"{said}, but {alike}: saved from inside a wrapper; save the model itself"
        return
    ties = settings.model.get("tie_word_embeddings")
    if ties is True and _HEAD in tensors and not tensors.alike(_HEAD, _EMBEDDINGS):
        yield (
            f"{folder / 'config.json'}: tie_word_embeddings is true, and {_HEAD} is not the "
            "embeddings: transformers leaves it out, llama.cpp takes it; set it to false or remove "
            "the tensor"
        )
    if ties is False and _HEAD not in tensors:
        yield (
            f"{folder / 'config.json'}: tie_word_embeddings is false, and there is no {_HEAD}; set "
            "it to true, or save the whole model"
        )


def _tokens(folder: Path, tensors: CheckpointTensors, contract: Contract) -> Iterator[str]:
    from gguf import SpecialVocab

    rows, file = tensors.shape(_EMBEDDINGS)[0], folder / "tokenizer.json"
    tokenizer = read_json(file)
    try:
        vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
        added = [entry["id"] for entry in tokenizer.get("added_tokens") or []]
        last = max([*vocabulary.values(), *added], default=-1)
        # What llama.cpp's converter reads.
        ends = SpecialVocab(folder).add_special_token.get("eos")
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{folder}: its tokenizer's files cannot be read ({error!r}); save the processor again"
        ) from error
    if last >= rows:
        yield (
            f"{file}: it has a token {last}, the embeddings {rows} rows; call "
            "resize_token_embeddings before training, and save the model with its tokenizer"
        )
    if ends and contract.prompt.add_special:
        yield (
            f"{folder}: its tokenizer puts an end token after every prompt, where an answer should "
            "begin; set add_eos_token to false in tokenizer_config.json, and take the token out of "
            "tokenizer.json's post_processor"
        )


def _values(folder: Path, tensors: CheckpointTensors) -> Iterator[str]:
    for name in tensors:
        shape = tensors.shape(name)
        at_once = max(1, _VALUES // max(1, int(np.prod(shape[1:]))))
        entries = shape[0] if len(shape) > 1 else 1
        for first in range(0, entries, at_once):
            rows: Any = tensors.rows(name, slice(first, first + at_once))
            largest = float(np.abs(rows).max(initial=0))
            if not isfinite(largest):
                yield (
                    f"{folder}: {name} holds a value that is no number or infinite: the training "
                    "diverged, or the file is damaged; take an earlier checkpoint"
                )
            elif largest >= _F16_INFINITE and len(shape) > 1:  # others stay float32
                yield (
                    f"{folder}: {name} holds {largest:.4g}, and float16 ends at 65504: every "
                    "bundle's f16 would be infinite there; take an earlier checkpoint"
                )
