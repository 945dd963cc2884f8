"""Do the parts of a bundle belong together? llama.cpp says it, if at all, by a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from devices.hashing import file_sha256
from harness.bundle.gguf_file import GgufFile
from harness.bundle.manifest import Bundle, check_size, read_manifest
from harness.bundle.names import checkpoint_name
from harness.bundle.safetensors_file import CheckpointTensors
from harness.bundle.tensor_error import fits, measure
from harness.errors import BundleError

TEXT_ARCHITECTURE: Final = "llama"
MMPROJ_ARCHITECTURE: Final = "clip"
PROJECTOR: Final = "idefics3"
IMAGE_TOKENS: Final = ("<fake_token_around_image>", "<global-img>", "<image>")

_ROWS: Final = 256
"""About so many rows of each tensor are compared, evenly spread."""


def check(path: Path, quants: Iterable[str] | None = None) -> Bundle:
    """Verify a bundle; of the quant types only `quants` where given. Returns it loaded.

    Every GGUF is readable and of SmolVLM's architecture, text and mmproj and checkpoint belong
    together (sizes, image tokens, tiling, weights within what the type can hold), and every file
    has the manifest's hash.

    Raises:
        BundleError: the first thing that is wrong; names the file and what to do.
        CheckpointError: the bundle's checkpoint cannot be read.
    """
    bundle = read_manifest(path)
    chosen = tuple(quants) if quants is not None else bundle.quants
    processor = _processor(bundle.checkpoint)
    tensors = CheckpointTensors(bundle.checkpoint)
    for quant in chosen:
        text = GgufFile(bundle.text_model(quant))
        mmproj = GgufFile(bundle.mmproj(quant))
        _check_architecture(text, mmproj)
        _check_fit(text, mmproj)
        _check_tokens(text, bundle.checkpoint)
        _check_processor(mmproj, processor)
        _check_weights(text, tensors)
        _check_weights(mmproj, tensors)
    _check_hashes(bundle, chosen)
    return bundle


def _check_architecture(text: GgufFile, mmproj: GgufFile) -> None:
    for gguf, wanted in ((text, TEXT_ARCHITECTURE), (mmproj, MMPROJ_ARCHITECTURE)):
        found = gguf.require("general.architecture")
        if found != wanted:
            raise BundleError(
                f"{gguf.path}: architecture {found!r}, wanted {wanted!r} (SmolVLM); "
                "build the bundle again from its checkpoint"
            )
    projector = mmproj.require("clip.projector_type")
    if projector != PROJECTOR:
        raise BundleError(
            f"{mmproj.path}: projector {projector!r}, wanted {PROJECTOR!r} (SmolVLM); "
            "build the bundle again from its checkpoint"
        )


def _check_fit(text: GgufFile, mmproj: GgufFile) -> None:
    width = text.require(f"{TEXT_ARCHITECTURE}.embedding_length")
    projected = mmproj.require("clip.vision.projection_dim")
    if projected != width:
        raise BundleError(
            f"{mmproj.path}: it projects to {projected} values, {text.path.name} takes {width}: "
            "an mmproj of another model; build the bundle again from its checkpoint"
        )


def _check_tokens(text: GgufFile, checkpoint: Path) -> None:
    tokens: list[str] = text.require("tokenizer.ggml.tokens")
    ids = {token: index for index, token in enumerate(tokens)}
    for token in IMAGE_TOKENS:
        if token not in ids:
            raise BundleError(
                f"{text.path}: its tokenizer has no {token}: not a SmolVLM text model; "
                "build the bundle again from its checkpoint"
            )
    tokenizer = checkpoint / "tokenizer.json"
    if not tokenizer.is_file():
        return
    for entry in _json(tokenizer).get("added_tokens", []):
        if ids.get(entry["content"]) != entry["id"]:
            raise BundleError(
                f"{text.path}: token {entry['content']} has id {ids.get(entry['content'])}, "
                f"{entry['id']} in the checkpoint's tokenizer: a text model of another "
                "checkpoint; build the bundle again"
            )


def _check_processor(mmproj: GgufFile, processor: dict[str, Any]) -> None:
    tile = mmproj.require("clip.vision.image_size")
    side = tile // mmproj.require("clip.vision.patch_size")
    scale = mmproj.require("clip.vision.projector.scale_factor")
    stated = {
        "tile size": (tile, processor["max_image_size"]["longest_edge"]),
        "longest edge": (
            mmproj.require("clip.vision.preproc_image_size"),
            processor["size"]["longest_edge"],
        ),
        "image mean": (_rounded(mmproj, "image_mean"), _floats(processor["image_mean"])),
        "image std": (_rounded(mmproj, "image_std"), _floats(processor["image_std"])),
    }
    if "image_seq_len" in processor:
        stated["tokens per tile"] = ((side // scale) ** 2, processor["image_seq_len"])
    for what, (found, wanted) in stated.items():
        if found != wanted:
            raise BundleError(
                f"{mmproj.path}: {what} {found}, {wanted} in the checkpoint's processor: "
                "an mmproj of another model; build the bundle again"
            )


def _check_weights(gguf: GgufFile, tensors: CheckpointTensors) -> None:
    for name in gguf.tensors:
        source = checkpoint_name(name)
        if source is None:
            raise BundleError(
                f"{gguf.path}: tensor {name} belongs to no SmolVLM; "
                "build the bundle again from its checkpoint"
            )
        if not fits(gguf, name, tensors):
            raise BundleError(
                f"{gguf.path}: {name} does not fit the checkpoint's {source}: "
                "made from another model; build the bundle again"
            )
        error = measure(gguf, name, tensors, step=max(1, len(gguf.stored(name)) // _ROWS))
        if not error.in_line:
            raise BundleError(
                f"{gguf.path}: {name} is {error.relative:.2g} off the checkpoint's {source}, "
                f"{error.expected:.2g} is what {gguf.type_name(name)} explains: made from another "
                "model, or damaged; build the bundle again"
            )


def _check_hashes(bundle: Bundle, quants: tuple[str, ...]) -> None:
    weights = {bundle.text_model(quant) for quant in bundle.quants if quant not in quants}
    weights |= {bundle.mmproj(quant) for quant in bundle.quants if quant not in quants}
    for name, record in bundle.manifest.files.items():
        path = bundle.path / name
        if path in weights:
            continue
        check_size(path, record)
        if file_sha256(path) != record.sha256:
            raise BundleError(
                f"{path}: changed since the bundle was made (its SHA-256 is not the manifest's); "
                "copy or build the bundle again"
            )


def _processor(checkpoint: Path) -> dict[str, Any]:
    """The image processor's settings, wherever this version of transformers kept them."""
    settings: dict[str, Any] = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (checkpoint / name).is_file():
            content = _json(checkpoint / name)
            settings |= content.pop("image_processor", None) or {}
            settings |= content
    for key in ("max_image_size", "size", "image_mean", "image_std"):
        if key not in settings:
            raise BundleError(
                f"{checkpoint}: its image processor's config says no {key}; "
                "save the processor beside the model and build the bundle again"
            )
    return settings


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path}: missing from the bundle; copy or build it again") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}; build the bundle again") from error
    return content


def _floats(values: Iterable[float]) -> list[float]:
    return [round(float(value), 5) for value in values]


def _rounded(mmproj: GgufFile, key: str) -> list[float]:
    return _floats(mmproj.require(f"clip.vision.{key}"))
