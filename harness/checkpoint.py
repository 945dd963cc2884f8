"""Hugging Face checkpoints of SmolVLM's architecture: found, checked, and opened.

`load` reads JSON and file headers alone; torch and transformers are imported only by what opens
the model. No code that comes with a checkpoint is ever run.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from devices.hashing import file_sha256
from harness.errors import ArmUnavailable, CheckpointError

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel, PreTrainedTokenizerFast

ARCHITECTURES = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")

END_OF_GENERATION = ("<end_of_utterance>", "<|im_end|>", "<|endoftext|>", "<|end|>", "</s>")
"""Tokens that llama.cpp takes as the end of an answer by their text alone (src/llama-vocab.cpp,
`special_eog_ids`), as far as a SmolVLM vocabulary can hold them."""

_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose files were found to make up a SmolVLM checkpoint."""

    source: str
    """What the user asked for: a folder or a Hugging Face id."""
    path: Path
    architecture: str
    tile_size: int
    """Side in pixels of the square the vision tower takes."""
    tokens_per_tile: int
    """Image embeddings per tile."""
    weights: tuple[Path, ...]

    @cached_property
    def sha256(self) -> str:
        """Hash over the names and contents of the folder's JSON and safetensors files."""
        total = hashlib.sha256()
        for file in sorted({*self.path.glob("*.json"), *self.weights}):
            total.update(f"{file.name} {file_sha256(file)}\n".encode())
        return total.hexdigest()


def load(path_or_id: str | Path) -> Checkpoint:
    """The checkpoint in a local folder, or the published one of that Hugging Face id.

    Raises:
        CheckpointError: it does not exist, a part is missing or cut short, or it is of another
            architecture.
    """
    source = str(path_or_id)
    folder = _folder(source)
    config = _json(source, folder / "config.json")
    architecture = _architecture(source, config)
    tile_size, tokens_per_tile = _vision(source, config)
    _check_processor(source, folder, tile_size)
    if not (folder / "tokenizer.json").is_file() and not (folder / "merges.txt").is_file():
        raise CheckpointError(
            f"checkpoint {source}: no tokenizer.json; save the processor beside the model"
        )
    weights = _weights(source, folder)
    return Checkpoint(source, folder, architecture, tile_size, tokens_per_tile, weights)


def load_processor(checkpoint: Checkpoint) -> Idefics3Processor:
    """An `Idefics3Processor` of the checkpoint's tokenizer and image processor (PIL backend).

    Built from its parts whatever class the checkpoint names: SmolVLM's own processor class also
    wants a video processor, and with it torchvision, for images alone.

    Raises:
        CheckpointError: transformers cannot read one of the parts.
        ArmUnavailable: transformers is not installed.
    """
    transformers = _transformers()
    from transformers.models.idefics3.image_processing_pil_idefics3 import (
        Idefics3ImageProcessorPil,
    )

    template = checkpoint.path / "chat_template.jinja"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.path, trust_remote_code=False
        )
        pixels = Idefics3ImageProcessorPil(**processor_settings(checkpoint.path))
        return transformers.Idefics3Processor(
            pixels,
            tokenizer,
            image_seq_len=checkpoint.tokens_per_tile,
            chat_template=template.read_text("utf-8") if template.is_file() else None,
        )
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(checkpoint, "processor", error) from error


def load_model(checkpoint: Checkpoint) -> PreTrainedModel:
    """The model in f32 and eval mode on the CPU.

    Raises:
        CheckpointError: weights are missing or of the wrong shape (transformers would fill them
            with noise and go on).
        ArmUnavailable: torch or transformers is not installed.
    """
    transformers = _transformers()
    import torch

    try:
        model, report = transformers.AutoModelForImageTextToText.from_pretrained(
            checkpoint.path,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(checkpoint, "model", error) from error
    if absent := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"checkpoint {checkpoint.source}: {len(absent)} tensors are missing, "
            f"{absent[0]} first; save the whole model, adapters merged"
        )
    return model.eval()


def end_of_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids of the tokens that end an answer: those the checkpoint names and llama.cpp's own."""
    named = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary[text] for text in END_OF_GENERATION if text in vocabulary}
    return frozenset(ids - {None})


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise CheckpointError(f"checkpoint {source}: not a folder; give a checkpoint's folder")
    if not _HUB_ID.fullmatch(source) or source.startswith("."):
        raise CheckpointError(
            f"checkpoint {source}: no such folder; give a folder or a Hugging Face id"
        )
    return _downloaded(source)


def _downloaded(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise ArmUnavailable(
            f"checkpoint {hub_id}: no such folder, and downloading needs huggingface_hub; "
            f"install driftloop[torch]"
        ) from None
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {hub_id}: no such folder, and the Hugging Face hub did not give it "
            f"({type(error).__name__}); check the name and the network"
        ) from error


def _json(source: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {source}: no {file.name}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {source}: {file.name} cannot be read: {error}"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {source}: {file.name} is not a JSON object")
    return content


def _architecture(source: str, config: dict[str, Any]) -> str:
    named = (config.get("architectures") or ["none named"])[0]
    if named not in ARCHITECTURES:
        raise CheckpointError(
            f"checkpoint {source}: architecture {named}; give a SmolVLM or Idefics3 checkpoint"
        )
    return str(named)


def _vision(source: str, config: dict[str, Any]) -> tuple[int, int]:
    vision = config.get("vision_config") or {}
    try:
        size, patch = int(vision["image_size"]), int(vision["patch_size"])
        scale = int(config["scale_factor"])
        side = size // patch // scale
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"checkpoint {source}: config.json does not give vision_config.image_size, "
            f"vision_config.patch_size and scale_factor as whole numbers"
        ) from error
    return size, side * side


def processor_settings(folder: Path) -> dict[str, Any]:
    """The image processor's own settings; newer checkpoints keep them inside the processor's."""
    source = str(folder)
    if (own := folder / "preprocessor_config.json").is_file():
        settings = _json(source, own)
    else:
        settings = _json(source, folder / "processor_config.json").get("image_processor") or {}
    names = {"image_processor_type", "processor_class", "auto_map", "video_sampling"}
    return {key: value for key, value in settings.items() if key not in names}


def _check_processor(source: str, folder: Path, tile_size: int) -> None:
    files = ("preprocessor_config.json", "processor_config.json")
    if not any((folder / name).is_file() for name in files):
        raise CheckpointError(
            f"checkpoint {source}: no {files[0]}; save the processor beside the model"
        )
    settings = processor_settings(folder)
    declared = (settings.get("max_image_size") or {}).get("longest_edge")
    if declared != tile_size:
        raise CheckpointError(
            f"checkpoint {source}: its processor cuts tiles of {declared} pixels, its vision "
            f"tower takes {tile_size}; processor and model do not belong together"
        )


def _weights(source: str, folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(_json(source, index).get("weight_map", {}).values()))
    else:
        files = ["model.safetensors"]
    for name in files:
        _check_safetensors(source, folder / name)
    return tuple(folder / name for name in files)


def _check_safetensors(source: str, file: Path) -> None:
    """The header is whole and the file as long as it says (safetensors format: u64 LE, JSON)."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            size = file.stat().st_size
            header = json.loads(stream.read(length)) if length <= size else {}
    except FileNotFoundError:
        raise CheckpointError(
            f"checkpoint {source}: no {file.name}; save the model as safetensors"
        ) from None
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(
            f"checkpoint {source}: {file.name} is not a safetensors file"
        ) from error
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    if not ends or 8 + length + max(ends) != size:
        raise CheckpointError(f"checkpoint {source}: {file.name} is cut short or damaged")


def _transformers() -> ModuleType:
    try:
        import torch  # noqa: F401  (transformers hides its models when torch is absent)
        import transformers
    except ImportError:
        raise ArmUnavailable(
            "torch and transformers are not installed; install driftloop[torch]"
        ) from None
    transformers.utils.logging.disable_progress_bar()
    module: ModuleType = transformers
    return module


def _unreadable(checkpoint: Checkpoint, part: str, error: Exception) -> CheckpointError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CheckpointError(
        f"checkpoint {checkpoint.source}: transformers cannot read its {part}: {said}"
    )
