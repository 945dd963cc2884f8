"""What llama.cpp could not run at all: parts of another model, missing ones, sizes that clash."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from harness.bundle.checkpoint_files import CheckpointTensors
from harness.bundle.gguf_file import GgufFile
from harness.bundle.names import checkpoint_name, gguf_name, is_vision
from harness.bundle.tokenizer_check import TOKENS
from harness.errors import BundleError

TEXT_ARCHITECTURE: Final = "llama"
MMPROJ_ARCHITECTURE: Final = "clip"
PROJECTOR: Final = "idefics3"
IMAGE_TOKENS: Final = ("<fake_token_around_image>", "<global-img>", "<image>")

_OUTPUT: Final = "output.weight"
_UNASKED: Final = re.compile(r"output\.weight|rope_freqs\.weight|blk\.\d+\.(attn|ffn)_\w+\.bias")
"""Tensors of a text model that llama.cpp takes though SmolVLM has none."""
_SPARED: Final = re.compile(r".*\.bias|v\.(blk\.\d+\.ln[12]|position_embd|post_ln)\.weight")
"""Tensors of an mmproj that libmtmd can run without."""
_BLOCK: Final = re.compile(r"(?:v\.)?blk\.(\d+)\.")
_AGAIN: Final = "build the bundle again from its checkpoint"


def check_parts(text: GgufFile, mmproj: GgufFile, tensors: CheckpointTensors) -> None:
    """Raises BundleError where the files are not the halves of this checkpoint's SmolVLM."""
    for gguf, wanted in ((text, TEXT_ARCHITECTURE), (mmproj, MMPROJ_ARCHITECTURE)):
        found = gguf.require("general.architecture")
        if found != wanted:
            raise BundleError(
                f"{gguf.path}: architecture {found!r}, wanted {wanted!r} (SmolVLM); {_AGAIN}"
            )
    projector = mmproj.require("clip.projector_type")
    if projector != PROJECTOR:
        raise BundleError(
            f"{mmproj.path}: projector {projector!r}, wanted {PROJECTOR!r} (SmolVLM); {_AGAIN}"
        )
    width = text.require(f"{TEXT_ARCHITECTURE}.embedding_length")
    projected = mmproj.require("clip.vision.projection_dim")
    if projected != width:
        raise BundleError(
            f"{mmproj.path}: it projects to {projected} values, {text.path.name} takes {width}: "
            f"an mmproj of another model; {_AGAIN}"
        )
    for token in IMAGE_TOKENS:
        if token not in text.require(TOKENS):
            raise BundleError(
                f"{text.path}: its tokenizer has no {token}: not a SmolVLM text model; {_AGAIN}"
            )
    for gguf in (text, mmproj):
        _check_shapes(gguf, tensors)
        _check_whole(gguf, tensors)


def _check_shapes(gguf: GgufFile, tensors: CheckpointTensors) -> None:
    for name in gguf.tensors:
        source = checkpoint_name(name)
        if source is None and not is_vision(name) and not _UNASKED.fullmatch(name):
            raise BundleError(f"{gguf.path}: tensor {name} belongs to no SmolVLM; {_AGAIN}")
        if source is not None and source in tensors and tensors.shape(source) != gguf.shape(name):
            raise BundleError(
                f"{gguf.path}: {name} does not fit the checkpoint's {source}: "
                "made from another model; build the bundle again"
            )


def _check_whole(gguf: GgufFile, tensors: CheckpointTensors) -> None:
    vision = gguf.require("general.architecture") == MMPROJ_ARCHITECTURE
    layers = gguf.get("clip.vision.block_count" if vision else f"{TEXT_ARCHITECTURE}.block_count")
    for source in tensors.names:
        name = gguf_name(source)
        if name is None or name in gguf.tensors or is_vision(name) != vision:
            continue
        block = _BLOCK.match(name)
        unused = block is not None and layers is not None and int(block[1]) >= layers
        if not unused and name != _OUTPUT and not (vision and _SPARED.fullmatch(name)):
            raise BundleError(f"{gguf.path}: the tensor {name} is missing; {_AGAIN}")


def text_clashes(text: GgufFile) -> Iterator[str]:
    """Sizes in the keys that the tensors do not have, one line each; llama.cpp refuses them."""
    width = text.require("llama.embedding_length")
    heads = text.require("llama.attention.head_count")
    head_size = text.get("llama.attention.key_length") or width // heads
    stated = {
        "token_embd.weight": (len(text.require(TOKENS)), "tokens"),
        "blk.0.attn_q.weight": (heads * head_size, f"values of {heads} heads"),
        "blk.0.attn_k.weight": (
            (text.get("llama.attention.head_count_kv") or heads) * head_size,
            "values of its key heads",
        ),
        "blk.0.ffn_up.weight": (text.get("llama.feed_forward_length"), "feed-forward values"),
    }
    for name, (size, what) in stated.items():
        if name in text.tensors and size is not None and text.shape(name)[0] != size:
            yield f"{size} {what}, {name} has {text.shape(name)[0]} rows"
    layers = text.get("llama.block_count")
    held = {int(block[1]) for name in text.tensors if (block := _BLOCK.match(name))}
    if layers is not None and held and max(held) >= layers:
        yield f"{layers} layers, the file holds tensors of {max(held) + 1}"
    for key in ("rope.dimension_count", "attention.value_length"):
        size = text.get(f"llama.{key}")
        if size is not None and size != head_size:
            yield f"llama.{key} is {size}, a head has {head_size} values"


def mmproj_clashes(mmproj: GgufFile) -> Iterator[str]:
    """Sizes in the keys that the tensors do not have, one line each.

    libmtmd does not look: one of ggml's assertions ends the process.
    """
    tile = mmproj.require("clip.vision.image_size")
    patch = mmproj.require("clip.vision.patch_size")
    scale = mmproj.require("clip.vision.projector.scale_factor")
    if min(tile, patch, scale) < 1:
        yield f"tile {tile}, patch {patch}, scale factor {scale}"
        return
    side = tile // patch
    kernel = mmproj.shape("v.patch_embd.weight")[-1]
    if (tile - kernel) // patch + 1 != side:
        yield f"patch size {patch}, v.patch_embd.weight takes patches of {kernel}"
    places, width = mmproj.shape("v.position_embd.weight")
    if side * side % places:
        yield (
            f"a tile of {tile} in patches of {patch} has {side * side} patches, "
            f"v.position_embd.weight has {places} rows"
        )
    merged = mmproj.shape("mm.model.fc.weight")[1]
    if width * scale**2 != merged:
        yield (
            f"scale factor {scale} joins {width * scale**2} values, "
            f"mm.model.fc.weight takes {merged}"
        )
    heads = mmproj.get("clip.vision.attention.head_count")
    if heads and width % heads:
        yield f"{heads} vision heads do not divide {width} values"
