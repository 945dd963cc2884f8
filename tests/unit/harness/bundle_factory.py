"""A bundle in miniature: SmolVLM's file formats and tensor names around a little noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from driftloop.devices.hashing import file_sha256
from driftloop.harness import bundle, contract
from driftloop.harness.bundle.tensor_names import checkpoint_name, is_rotary, rotary_rows

WIDTH, HEADS, TILE, PATCH, SCALE = 32, 2, 32, 8, 2
TOKENS = ("a", "b", "<fake_token_around_image>", "<global-img>", "<image>")
QUANT = "f16"
Rows = NDArray[np.float32]
Tensors = dict[str, Rows]
Key = str | bool | int | float | list[float] | list[int] | list[str]

_TEXT = {
    "token_embd.weight": (len(TOKENS), WIDTH),
    "output_norm.weight": (WIDTH,),
    **{f"blk.0.{part}.weight": (WIDTH,) for part in ("attn_norm", "ffn_norm")},
    **{f"blk.0.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
    "blk.0.ffn_gate.weight": (64, WIDTH),
    "blk.0.ffn_up.weight": (64, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, 64),
    "blk.1.ffn_up.weight": (64, WIDTH),
}
_VISION = {
    "mm.model.fc.weight": (WIDTH, WIDTH * SCALE**2),
    "v.patch_embd.weight": (WIDTH, 3, PATCH, PATCH),
    "v.patch_embd.bias": (WIDTH,),
    "v.position_embd.weight": ((TILE // PATCH) ** 2, WIDTH),
    "v.blk.0.attn_q.weight": (WIDTH, WIDTH),
    "v.blk.0.attn_q.bias": (WIDTH,),
    "v.blk.0.ffn_up.weight": (64, WIDTH),
    "v.post_ln.weight": (WIDTH,),
    "v.blk.0.ffn_down.weight": (WIDTH, 64),
    "v.blk.0.ffn_up.bias": (64,),
    "v.blk.0.ffn_down.bias": (WIDTH,),
}
MATRICES = tuple(name for name, shape in _TEXT.items() if len(shape) > 1 and name[:3] == "blk")
"""The text model's, all of a layer."""
_TEXT_KEYS: dict[str, Key] = {
    "llama.embedding_length": WIDTH,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": HEADS,
    "llama.context_length": 128,
    "llama.block_count": 2,
    "llama.feed_forward_length": 64,
    "llama.rope.freq_base": 1e5,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.merges": ["a b", "b a"],
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.eos_token_id": 1,
}
_VISION_KEYS: dict[str, Key] = {
    "clip.vision.image_size": TILE,
    "clip.vision.patch_size": PATCH,
    "clip.vision.projector.scale_factor": SCALE,
    "clip.vision.embedding_length": WIDTH,
    "clip.vision.feed_forward_length": 64,
    "clip.vision.block_count": 1,
    "clip.vision.attention.head_count": HEADS,
    "clip.vision.attention.layer_norm_epsilon": 1e-6,
    "clip.use_gelu": True,
    "clip.vision.preproc_image_size": 2 * TILE,
    "clip.vision.image_mean": [0.5, 0.5, 0.5],
    "clip.vision.image_std": [0.5, 0.5, 0.5],
}
_CONFIG = {
    "scale_factor": SCALE, "bos_token_id": 0, "eos_token_id": 1,
    "text_config": {
        "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": HEADS, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
        "rope_theta": 1e5,
    },
    "vision_config": {
        "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": HEADS, "patch_size": PATCH, "layer_norm_eps": 1e-6,
    },
}  # fmt: skip
_TOKENIZER = {
    "added_tokens": [
        {"id": index, "content": token, "special": True} for index, token in enumerate(TOKENS)
    ][2:],
    "pre_tokenizer": {"pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]},
    "model": {"vocab": {"a": 0, "b": 1}, "merges": [["a", "b"], ["b", "a"]]},
}
_PROCESSOR = {
    "max_image_size": {"longest_edge": TILE},
    "size": {"longest_edge": 2 * TILE},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_seq_len": (TILE // PATCH // SCALE) ** 2,
}


@dataclass
class Miniature:
    """What to write; a test changes the one thing that shall be wrong."""

    text_seed: int = 1
    vision_seed: int = 2
    mmproj_seed: int | None = None
    """Other noise in the mmproj than in the checkpoint: an mmproj of another model."""
    text_architecture: str = "llama"
    mmproj_architecture: str = "clip"
    projector: str = "idefics3"
    projection: int = WIDTH
    tokens: tuple[str, ...] = TOKENS
    unused_tokens: int = 0
    """Rows of the embeddings that no token of the tokenizer has."""
    processor: dict[str, Any] = field(default_factory=dict)
    plant: Callable[[Tensors], None] = lambda tensors: None
    """Changes a GGUF's values, rows in llama.cpp's order, before they are stored."""
    types: dict[str, str] = field(default_factory=dict)
    """Tensor -> ggml type; the others are f16, or f32 with one dimension."""
    keys: dict[str, Key] = field(default_factory=dict)
    """Added to the text GGUF, or to the mmproj those of `clip`; in place of those there."""

    def write(self, folder: Path) -> bundle.Bundle:
        """Write the whole bundle, its manifest telling the truth about its files."""
        checkpoint = folder / "checkpoint"
        checkpoint.mkdir(parents=True)
        rows = {"token_embd.weight": (len(TOKENS) + self.unused_tokens, WIDTH)}
        text, vision = _noise(_TEXT | rows, self.text_seed), _noise(_VISION, self.vision_seed)
        named = {str(checkpoint_name(name)): values for name, values in (text | vision).items()}
        save_file(named, checkpoint / "model.safetensors")
        contents = (_PROCESSOR | self.processor, _CONFIG, _TOKENIZER)
        for name, content in zip(
            ("processor_config", "config", "tokenizer"), contents, strict=True
        ):
            (checkpoint / f"{name}.json").write_text(json.dumps(content))
        unused = [f"[PAD{len(TOKENS) + index}]" for index in range(self.unused_tokens)]
        keys: dict[str, Key] = _TEXT_KEYS | {
            "tokenizer.ggml.tokens": [*self.tokens, *unused],
            "tokenizer.ggml.token_type": [1, 1, 3, 3, 3, *[5] * len(unused)],
        }
        self._gguf(folder / "text-f16.gguf", self.text_architecture, keys, text)
        keys = {"clip.projector_type": self.projector}
        keys |= {"clip.vision.projection_dim": self.projection} | _VISION_KEYS
        if self.mmproj_seed is not None:
            vision = _noise(_VISION, self.mmproj_seed)
        self._gguf(folder / "mmproj-f16.gguf", self.mmproj_architecture, keys, vision)
        write_manifest(folder)
        return bundle.load(folder)

    def _gguf(self, path: Path, architecture: str, keys: dict[str, Key], tensors: Tensors) -> None:
        vision = "clip.use_gelu" in keys
        own = {key: value for key, value in self.keys.items() if key.startswith("clip.") == vision}
        laid_out = {
            name: rotary_rows(values, HEADS) if is_rotary(name) else values
            for name, values in tensors.items()
        }
        self.plant(laid_out)
        types = {
            name: self.types.get(name, "f16" if values.ndim > 1 else "f32")
            for name, values in laid_out.items()
        }
        packed = {
            name: gguf.quants.quantize(values, gguf.GGMLQuantizationType[types[name].upper()])
            for name, values in laid_out.items()
        }
        write_gguf(path, architecture, packed, types, keys | own)


def write_gguf(
    path: Path,
    architecture: str,
    tensors: dict[str, NDArray[Any]],
    types: dict[str, str],
    keys: dict[str, Key] | None = None,
) -> None:
    """A GGUF of `tensors`, packed as their ggml types in `types` are."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (keys or {}).items():
        add = {str: writer.add_string, list: writer.add_array, bool: writer.add_bool}
        add |= {int: writer.add_uint32, float: writer.add_float32}
        add[type(value)](key, value)
    for name, packed in tensors.items():
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType[types[name].upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_manifest(folder: Path) -> None:
    """A manifest that agrees with the files as they are."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    manifest = bundle.Manifest(
        files={
            path.relative_to(folder).as_posix(): bundle.FileRecord(
                sha256=file_sha256(path), size_bytes=path.stat().st_size
            )
            for path in sorted(files)
        },
        text={QUANT: bundle.Weights.of(folder, "text-f16.gguf", QUANT)},
        mmproj={QUANT: bundle.Weights.of(folder, "mmproj-f16.gguf", QUANT)},
        tokenizer_sha256="0" * 64,
        source=bundle.Source(checkpoint="miniature", weights_sha256={}),
        created=bundle.Created(llama_cpp_commit="none", versions={}),
        contract=contract.load("default"),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def _noise(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def planted(name: str, change: Callable[[Tensors], object]) -> Callable[[Tensors], None]:
    """A change to the file that holds the tensor `name`."""

    def plant(tensors: Tensors) -> None:
        if name in tensors:
            change(tensors)

    return plant


def changed(name: str, change: Callable[[Rows], object]) -> Callable[[Tensors], None]:
    """A change to the values of the tensor `name`."""
    return planted(name, lambda tensors: change(tensors[name]))


def zeroed(name: str) -> Callable[[Tensors], None]:
    """All values of the tensor `name` replaced by zeros."""
    return changed(name, lambda rows: rows.fill(0))
