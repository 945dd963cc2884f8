"""Hugging Face checkpoints of SmolVLM's architecture: found, checked, and opened.

`load` reads only JSON and file headers; torch and transformers are imported only by what opens the
model. No code that comes with a checkpoint is ever run.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from driftloop.devices.hashing import file_sha256
from driftloop.harness.errors import CheckpointError, extra

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel, PreTrainedTokenizerFast

_ARCHITECTURES = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")

END_OF_GENERATION = ("<end_of_utterance>", "<|im_end|>", "<|endoftext|>", "<|end|>", "</s>")
"""Tokens that llama.cpp takes as the end of an answer by their text alone (src/llama-vocab.cpp,
`special_eog_ids`), as far as a SmolVLM vocabulary can hold them."""

_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


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

    @property
    def name(self) -> str:
        """The published id, or the folder's name without its place on this machine."""
        return self.path.name if Path(self.source).expanduser().is_dir() else self.source

    @cached_property
    def sha256(self) -> str:
        """Hash over the names and contents of the folder's JSON and safetensors files."""
        total = hashlib.sha256()
        for file in sorted({*self.path.glob("*.json"), *self.weights}):
            total.update(f"{file.name} {file_sha256(file)}\n".encode())
        return total.hexdigest()


def load(path_or_id: str | Path) -> Checkpoint:
    """The checkpoint in a local folder, or the published one of that Hugging Face id. Raises
    CheckpointError: it does not exist, a part is missing or cut short, or it is of another
    architecture."""
    source = str(path_or_id)
    folder = _folder(source)
    if (folder / "adapter_config.json").is_file() and not any(folder.glob("model*.safetensors*")):
        base = _json(source, folder / "adapter_config.json").get("base_model_name_or_path")
        raise CheckpointError(
            f"checkpoint {source}: an adapter without its base model ({base or 'not named'}); "
            f"merge them (PEFT's merge_and_unload) and save the whole model"
        )
    config = _json(source, folder / "config.json")
    architecture = (config.get("architectures") or ["none named"])[0]
    if architecture not in _ARCHITECTURES:
        detail = f"architecture {architecture}; give a SmolVLM or Idefics3 checkpoint"
        raise _refusal(source, detail)
    tile_size, tokens_per_tile = _vision(source, config)
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        raise _refusal(source, f"no {_PROCESSOR_FILES[0]}; save the processor beside the model")
    declared = (processor_settings(folder).get("max_image_size") or {}).get("longest_edge")
    if declared != tile_size:
        raise _refusal(
            source,
            f"its processor cuts tiles of {declared} pixels, its vision tower takes {tile_size}; "
            "processor and model do not belong together",
        )
    if not (folder / "tokenizer.json").is_file() and not (folder / "merges.txt").is_file():
        raise _refusal(source, "no tokenizer.json; save the processor beside the model")
    weights = _weights(source, folder)
    return Checkpoint(source, folder, architecture, tile_size, tokens_per_tile, weights)


def load_processor(checkpoint: Checkpoint) -> Idefics3Processor:
    """An `Idefics3Processor` of the checkpoint's tokenizer and image processor (PIL backend).

    Built from its parts whatever class the checkpoint names: SmolVLM's own processor class also
    needs a video processor, and with it torchvision, for images alone.

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
    """The model in f32 and eval mode on the CPU. Raises CheckpointError: weights are missing or of
    the wrong shape (transformers would fill them with noise and go on); ArmUnavailable: torch or
    transformers is not installed."""
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
        raise _refusal(
            checkpoint.source,
            f"{len(absent)} tensors are missing, {absent[0]} first; save the whole model, "
            "adapters merged",
        )
    return model.eval()


def end_of_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids of the tokens that end an answer: those the checkpoint names and llama.cpp's own."""
    named = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    vocabulary = tokenizer.get_vocab()
    ids |= {vocabulary[text] for text in END_OF_GENERATION if text in vocabulary}
    return frozenset(ids - {None})


def processor_settings(folder: Path) -> dict[str, Any]:
    """The image processor's own settings; newer checkpoints keep them inside the processor's."""
    own, whole = (folder / name for name in _PROCESSOR_FILES)
    if own.is_file():
        settings = _json(str(folder), own)
    else:
        settings = _json(str(folder), whole).get("image_processor") or {}
    names = {"image_processor_type", "processor_class", "auto_map", "video_sampling"}
    return {key: value for key, value in settings.items() if key not in names}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file."""

    path: Path
    dtype: str
    """As safetensors names it, for example `BF16`."""
    shape: tuple[int, ...]
    begin: int
    """Of its data, from the start of the file, in bytes."""
    end: int


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The header of a safetensors file (its length as u64 LE, then JSON), by tensor name. Raises
    OSError: it cannot be read; ValueError: it is no safetensors file, or cut short."""
    with file.open("rb") as stream:
        start, size = stream.read(8), file.stat().st_size
        length = int.from_bytes(start, "little")
        if len(start) < 8 or 8 + length > size:
            raise ValueError("its header is cut short")
        header = json.loads(stream.read(length))
    try:
        tensors = {
            name: StoredTensor(
                file,
                entry["dtype"],
                tuple(entry["shape"]),
                *(8 + length + offset for offset in entry["data_offsets"]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its header is damaged ({error!r})") from error
    if cut := next((name for name, tensor in tensors.items() if tensor.end > size), None):
        raise ValueError(f"the data of {cut} are cut off")
    return tensors


def _refusal(source: str, detail: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {source}: {detail}")


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise _refusal(source, "not a folder; give a checkpoint's folder")
    if not _HUB_ID.fullmatch(source) or source.startswith("."):
        raise _refusal(source, "no such folder; give a folder or a Hugging Face id")
    with extra("torch", f"checkpoint {source}: no such folder, and downloading"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    try:
        return Path(snapshot_download(source, allow_patterns=list(_HUB_FILES)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _refusal(
            source,
            f"no such folder, and the Hugging Face hub did not give it ({type(error).__name__}); "
            "check the name and the network",
        ) from error


def _json(source: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise _refusal(source, f"no {file.name}") from None
    except (OSError, ValueError) as error:
        raise _refusal(source, f"{file.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise _refusal(source, f"{file.name} is not a JSON object")
    return content


def _vision(source: str, config: dict[str, Any]) -> tuple[int, int]:
    vision = config.get("vision_config") or {}
    try:
        size, patch = int(vision["image_size"]), int(vision["patch_size"])
        side = size // patch // int(config["scale_factor"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise _refusal(
            source,
            "config.json does not give vision_config.image_size, vision_config.patch_size and "
            "scale_factor as whole numbers",
        ) from error
    return size, side * side


def _weights(source: str, folder: Path) -> tuple[Path, ...]:
    names = ["model.safetensors"]
    if (index := folder / "model.safetensors.index.json").is_file():
        names = sorted(set(_json(source, index).get("weight_map", {}).values()))
    files = tuple(folder / name for name in names)
    for file in files:
        try:
            ends = [tensor.end for tensor in stored_tensors(file).values()]
        except FileNotFoundError:
            raise _refusal(source, f"no {file.name}; save the model as safetensors") from None
        except (OSError, ValueError) as error:
            detail = f"{file.name} is cut short or damaged: {error}"
            raise _refusal(source, detail) from error
        if not ends or max(ends) != file.stat().st_size:
            raise _refusal(source, f"{file.name} is cut short or damaged")
    return files


def _transformers() -> ModuleType:
    with extra("torch", "reading a checkpoint"):
        import torch  # noqa: F401  (transformers hides its models when torch is absent)
        import transformers
    transformers.utils.logging.disable_progress_bar()
    module: ModuleType = transformers
    return module


def _unreadable(checkpoint: Checkpoint, part: str, error: Exception) -> CheckpointError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _refusal(checkpoint.source, f"transformers cannot read its {part}: {reason}")
