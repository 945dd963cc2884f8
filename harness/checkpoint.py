"""Hugging Face checkpoints of SmolVLM's architecture: found, checked, and opened.

`load` reads only JSON and file headers; torch and transformers are imported only by what opens the
model. No code that comes with a checkpoint is ever run.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path, PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from driftloop.devices import files
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
_INDEX: Final = "model.safetensors.index.json"
_TYPES: Final = {"F32": 4, "F16": 2, "BF16": 2}
"""How weights may be stored, with the bytes of a value: what torch and the converter both read."""
_MOST_HEADER: Final = 100 * 2**20
"""safetensors' own limit."""


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
    if (folder / "adapter_config.json").is_file():
        base = _json(source, folder / "adapter_config.json").get("base_model_name_or_path")
        beside = any(folder.glob("model*.safetensors*"))
        what = "not merged into the model beside it" if beside else "without its base model"
        detail = f"an adapter {what} ({base or 'not named'}); merge them (PEFT's merge_and_unload)"
        raise _refusal(source, f"{detail} and save the whole model")
    config = _json(source, folder / "config.json")
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else "none named"
    if architecture not in _ARCHITECTURES:
        detail = f"architecture {architecture}; give a SmolVLM or Idefics3 checkpoint"
        raise _refusal(source, detail)
    if (packed := config.get("quantization_config")) is not None:
        method = packed.get("quant_method", "") if isinstance(packed, dict) else packed
        detail = f"config.json has a quantization_config ({method}): its weights are quantized"
        raise _refusal(source, f"{detail} already; save the model in bfloat16 or float32")
    tile_size, tokens_per_tile = _vision(source, config)
    if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
        raise _refusal(source, f"no {_PROCESSOR_FILES[0]}; save the processor beside the model")
    tile = processor_settings(folder).get("max_image_size")
    declared = tile.get("longest_edge") if isinstance(tile, dict) else tile
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

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.path, trust_remote_code=False
        )
        pixels = Idefics3ImageProcessorPil(**processor_settings(checkpoint.path))
        return transformers.Idefics3Processor(
            pixels,
            tokenizer,
            image_seq_len=checkpoint.tokens_per_tile,
            chat_template=_chat_template(checkpoint.path),
        )
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(checkpoint, "processor", error) from error


def _chat_template(folder: Path) -> str | None:
    """In a file of its own; published SmolVLM checkpoints have it as JSON."""
    written, older = folder / "chat_template.jinja", folder / "chat_template.json"
    if written.is_file():
        return files.read(written).decode("utf-8")
    return _json(str(folder), older).get("chat_template") if older.is_file() else None


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
    """The image processor's own settings; newer checkpoints keep them inside the processor's.
    Raises CheckpointError where both files have them and disagree: transformers takes one, the
    converter the other."""
    names = {"image_processor_type", "processor_class", "auto_map", "video_sampling"}
    found: dict[str, Any] = {}
    for name in reversed(_PROCESSOR_FILES):
        settings = _json(str(folder), folder / name) if (folder / name).is_file() else {}
        if name != _PROCESSOR_FILES[0]:
            inside = settings.get("image_processor")
            settings = inside if isinstance(inside, dict) else {}
        for key in sorted(settings.keys() & found.keys() - names):
            if settings[key] != found[key]:
                raise _refusal(
                    str(folder),
                    f"{name} says {key} {settings[key]}, processor_config.json {found[key]}; "
                    "keep what the model was trained with and correct the other",
                )
        found |= settings
    return {key: value for key, value in found.items() if key not in names}


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

    @property
    def fits(self) -> bool:
        """Whether its bytes are as many as its values take."""
        size = _TYPES.get(self.dtype)
        return size is None or self.end - self.begin == prod(self.shape) * size


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The header of a safetensors file (its length as u64 LE, then JSON), by tensor name. Raises
    OSError: it cannot be read; ValueError: it is no safetensors file, or cut short."""
    with files.opened(file) as stream:
        files.refuse_lfs_pointer(stream.peek(64))
        start, size = stream.read(8), file.stat().st_size
        length = int.from_bytes(start, "little")
        if len(start) < 8 or 8 + length > size or length > _MOST_HEADER:
            raise ValueError("its header is cut short")
        header = files.json_of(stream.read(length))
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
        odd = next((name for name, tensor in tensors.items() if not tensor.fits), None)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"its header is damaged ({error!r})") from error
    if odd is not None:
        raise ValueError(f"its header is damaged: {odd} has other bytes than its shape takes")
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
        content = files.json_of(files.read(file))
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
        if min(size, patch, side) < 1:
            raise ValueError("no image token at all")
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise _refusal(
            source,
            "config.json does not give vision_config.image_size, vision_config.patch_size and "
            "scale_factor as whole numbers of which a tile can be made",
        ) from error
    return size, side * side


def _weights(source: str, folder: Path) -> tuple[Path, ...]:
    single, index = folder / "model.safetensors", folder / _INDEX
    missing = "save the model as safetensors"
    names = [single.name]
    if index.is_file():
        if single.is_file():
            stale = min(single, index, key=lambda file: file.stat().st_mtime)
            detail = f"{single.name} lies beside {index.name}, each with weights of its own"
            raise _refusal(source, f"{detail}; remove the stale one ({stale.name} is older)")
        table = _json(source, index).get("weight_map")
        names = sorted(set(table.values())) if isinstance(table, dict) and table else []
        if not names or any(PurePath(name).name != name for name in names):
            raise _refusal(source, f"{index.name} names no files beside it; save the model again")
        missing = f"{index.name} names it: copy it too"
    further = sorted({file.name for file in folder.glob("model*.safetensors")} - set(names))
    if further and not index.is_file() and not single.is_file():
        raise _refusal(source, f"no {index.name} beside {further[0]}; copy it too")
    if further:
        listed = index.name if index.is_file() else single.name
        detail = f"{further[0]} does not belong to {listed}, and the converter would take it too"
        raise _refusal(source, f"{detail}; remove it")
    weights = tuple(folder / name for name in names)
    for file in weights:
        _check_weights(source, file, missing)
    return weights


def _check_weights(source: str, file: Path, missing: str) -> None:
    try:
        tensors = stored_tensors(file)
    except FileNotFoundError:
        raise _refusal(source, f"no {file.name}; {missing}") from None
    except (OSError, ValueError) as error:
        detail = f"{file.name} is cut short or damaged: {error}"
        raise _refusal(source, detail) from error
    if not tensors or max(tensor.end for tensor in tensors.values()) != file.stat().st_size:
        raise _refusal(source, f"{file.name} is cut short or damaged")
    for name, tensor in tensors.items():
        if tensor.dtype not in _TYPES:
            detail = f"{name} in {file.name} is stored as {tensor.dtype}"
            raise _refusal(source, f"{detail}; save the model in bfloat16, float16 or float32")


def _transformers() -> ModuleType:
    with extra("torch", "reading a checkpoint"):
        import torch  # noqa: F401  (transformers hides its models when torch is absent)
        import transformers
    transformers.utils.logging.disable_progress_bar()
    module: ModuleType = transformers
    return module


def _unreadable(checkpoint: Checkpoint, part: str, error: Exception) -> CheckpointError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    detail = f"transformers cannot read its {part} ({reason}); save it with save_pretrained again"
    return _refusal(checkpoint.source, detail)
