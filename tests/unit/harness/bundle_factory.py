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

from devices.hashing import file_sha256
from harness import bundle, contract
from harness.bundle.names import checkpoint_name, is_rotary, rotary_rows

WIDTH, HEADS, TILE, PATCH, SCALE = 32, 2, 32, 8, 2
TOKENS = ("a", "b", "<fake_token_around_image>", "<global-img>", "<image>")
QUANT = "f16"
Tensors = dict[str, NDArray[np.float32]]
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
_CONFIG = {
    "scale_factor": SCALE,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "text_config": {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e5,
    },
    "vision_config": {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": HEADS,
        "patch_size": PATCH,
        "layer_norm_eps": 1e-6,
    },
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
        self._checkpoint(checkpoint, text | vision)
        self._text(folder / "text-f16.gguf", text)
        seed = self.vision_seed if self.mmproj_seed is None else self.mmproj_seed
        self._mmproj(folder / "mmproj-f16.gguf", _noise(_VISION, seed))
        write_manifest(folder)
        return bundle.load(folder)

    def _checkpoint(self, folder: Path, tensors: Tensors) -> None:
        named = {str(checkpoint_name(name)): values for name, values in tensors.items()}
        save_file(named, folder / "model.safetensors")
        processor = {
            "max_image_size": {"longest_edge": TILE},
            "size": {"longest_edge": 2 * TILE},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_seq_len": (TILE // PATCH // SCALE) ** 2,
        } | self.processor
        _write_json(folder / "processor_config.json", processor)
        _write_json(folder / "config.json", _CONFIG)
        added = [
            {"id": index, "content": token, "special": True} for index, token in enumerate(TOKENS)
        ]
        tokenizer = {
            "added_tokens": added[2:],
            "pre_tokenizer": {"pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]},
            "model": {"vocab": {"a": 0, "b": 1}, "merges": [["a", "b"], ["b", "a"]]},
        }
        _write_json(folder / "tokenizer.json", tokenizer)

    def _text(self, path: Path, tensors: Tensors) -> None:
        writer = gguf.GGUFWriter(path, self.text_architecture)
        writer.add_embedding_length(WIDTH)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(HEADS)
        writer.add_context_length(128)
        writer.add_block_count(2)
        writer.add_feed_forward_length(64)
        writer.add_rope_freq_base(1e5)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        unused = [f"[PAD{len(TOKENS) + index}]" for index in range(self.unused_tokens)]
        writer.add_token_list([*self.tokens, *unused])
        writer.add_token_types([1, 1, 3, 3, 3, *[5] * len(unused)])
        writer.add_token_merges(["a b", "b a"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        self._finish(writer, tensors)

    def _mmproj(self, path: Path, tensors: Tensors) -> None:
        writer = gguf.GGUFWriter(path, self.mmproj_architecture)
        writer.add_clip_projector_type(self.projector)
        writer.add_vision_projection_dim(self.projection)
        writer.add_vision_image_size(TILE)
        writer.add_vision_patch_size(PATCH)
        writer.add_vision_projector_scale_factor(SCALE)
        writer.add_vision_embedding_length(WIDTH)
        writer.add_vision_feed_forward_length(64)
        writer.add_vision_block_count(1)
        writer.add_vision_head_count(HEADS)
        writer.add_vision_attention_layernorm_eps(1e-6)
        writer.add_vision_use_gelu(True)
        writer.add_vision_preproc_image_size(2 * TILE)
        writer.add_vision_image_mean([0.5, 0.5, 0.5])
        writer.add_vision_image_std([0.5, 0.5, 0.5])
        self._finish(writer, tensors)

    def _finish(self, writer: gguf.GGUFWriter, tensors: Tensors) -> None:
        for key, value in self.keys.items():
            if key.startswith("clip.") == (writer.arch == "clip"):
                _add_key(writer, key, value)
        laid_out = {
            name: rotary_rows(values, HEADS) if is_rotary(name) else values
            for name, values in tensors.items()
        }
        self.plant(laid_out)
        for name, values in laid_out.items():
            chosen = self.types.get(name, "f16" if values.ndim > 1 else "f32").upper()
            ggml_type = gguf.GGMLQuantizationType[chosen]
            packed = gguf.quants.quantize(values, ggml_type)
            writer.add_tensor(name, packed, raw_dtype=ggml_type)
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
        text={QUANT: _weights(folder, "text-f16.gguf")},
        mmproj={QUANT: _weights(folder, "mmproj-f16.gguf")},
        tokenizer_sha256="0" * 64,
        source=bundle.Source(checkpoint="miniature", weights_sha256={}),
        created=bundle.Created(llama_cpp_commit="none", versions={}),
        contract=contract.load("default"),
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def _weights(folder: Path, name: str) -> bundle.Weights:
    return bundle.Weights.of(folder, name, QUANT)


def _noise(shapes: dict[str, tuple[int, ...]], seed: int) -> Tensors:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _add_key(writer: gguf.GGUFWriter, key: str, value: Key) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, value)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
