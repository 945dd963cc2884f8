"""A bundle of SmolVLM-256M's shape with random weights: as heavy as the real one, no cleverer."""

from __future__ import annotations

import tempfile
from pathlib import Path

from devices.paths import cache_dir
from fixtures import smolvlm, tiny
from harness import bundle as bundles
from harness import contract as contracts
from harness import convert

TILE = 512
SEED = 5


def bundle() -> Path:
    """The bundle's folder in the cache, about 0.9 GB; one slice and the overview per image."""
    folder = cache_dir("bundles") / f"smolvlm-256m-shape-{SEED}"
    if not (folder / bundles.MANIFEST_NAME).is_file():
        with tempfile.TemporaryDirectory() as checkpoint:
            _save_checkpoint(Path(checkpoint))
            convert.build(checkpoint, folder, ["q8_0"], contracts.load("default"), progress=print)
    return folder


def _save_checkpoint(folder: Path) -> None:
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig

    _, processor = tiny.untrained(tiny.Recipe())
    processor.image_processor.size = {"longest_edge": TILE}
    processor.image_processor.max_image_size = {"longest_edge": TILE}
    processor.image_seq_len = 64
    tokenizer = processor.tokenizer
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = LlamaConfig(
        architectures=["VLlama3ForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        **special,
    )
    config = Idefics3Config(
        text_config=text,
        vision_config={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": TILE,
            "patch_size": 16,
        },
        scale_factor=4,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tie_word_embeddings=True,
        **special,
    )
    torch.manual_seed(SEED)
    smolvlm.save(Idefics3ForConditionalGeneration(config), processor, folder)
