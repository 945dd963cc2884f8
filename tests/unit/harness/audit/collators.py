# ruff: noqa: ANN401
"""Collators as people write them: aligned ones, a notebook's, and one for each fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from driftloop.harness.checkpoint import load, load_processor

WORDS = (
    "Classify this image into one of these elements: water, land, fire, wood, metal.\n\nElement:"
)
PROMPT = f"<image>\n{WORDS}"

Batch = dict[str, Any]
processor: Any = None
model: Any = None
"""Globals of the notebooks below, which the notebooks' own cells set."""
Collate = Callable[[list[dict[str, Any]]], Batch]


def batch_of(
    processor: Any,
    examples: list[dict[str, Any]],
    *,
    prompt: str | Callable[[dict[str, Any]], str] = PROMPT,
    ending: str | None = None,
    split: bool = False,
    masks: bool = True,
    change: Callable[[Image.Image], Image.Image] = lambda image: image,
) -> Batch:
    """What an aligned collator does, with one thing to be done otherwise."""
    tokenizer = processor.tokenizer
    end = tokenizer.eos_token if ending is None else ending
    asked = [prompt if isinstance(prompt, str) else prompt(example) for example in examples]
    texts = [f"{p}{e['label']}{end}" for p, e in zip(asked, examples, strict=True)]
    pictures = [[change(example["image"].convert("RGB"))] for example in examples]
    processor.image_processor.do_image_splitting = split
    batch = processor(
        text=texts,
        images=pictures,
        return_tensors="pt",
        padding=True,
        padding_side="right",
        do_image_splitting=split,
    )
    labels = batch["input_ids"].clone()
    labels[batch["attention_mask"] == 0] = -100
    for row, (example, ids) in enumerate(zip(examples, batch["input_ids"], strict=True)):
        tail = f"{example['label']}{end}"
        kept = int(batch["attention_mask"][row].sum())
        answer = len(tokenizer.encode(tail, add_special_tokens=False))
        labels[row, : kept - answer if masks else 0] = -100
        assert len(ids) >= kept
    batch["labels"] = labels
    return dict(batch)


def make_collator(processor: Any) -> Collate:
    """A factory, as a trainer's script has it."""
    return lambda examples: batch_of(processor, examples)


class Collator:
    """A class, as transformers' own data collators are."""

    def __init__(self, processor: Any, max_length: int = 512) -> None:
        self.processor = processor
        self.max_length = max_length

    def __call__(self, examples: list[dict[str, Any]]) -> Batch:
        return batch_of(self.processor, examples)


def fault(**otherwise: Any) -> Callable[[list[dict[str, Any]], Any], Batch]:
    """An aligned collator but for one thing."""

    def collate(examples: list[dict[str, Any]], processor: Any) -> Batch:
        return batch_of(processor, examples, **otherwise)

    return collate


def _with_reason(example: dict[str, Any]) -> str:
    return PROMPT.replace("\n\nElement:", f"\n\nContext: {example['reason']}\n\nElement:")


def _letterboxed(
    image: Image.Image, size: int, colour: tuple[int, int, int] = (0, 0, 0)
) -> Image.Image:
    """The app guide's `resize_for_android`."""
    scale = min(size / image.width, size / image.height)
    width, height = int(image.width * scale), int(image.height * scale)
    padded = Image.new("RGB", (size, size), colour)
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    padded.paste(resized, ((size - width) // 2, (size - height) // 2))
    return padded


aligned = fault()
no_newline = fault(prompt=f"<image>{WORDS}")
literal_marker = fault(prompt=f"<image><__media__>\n{WORDS}")
with_context = fault(prompt=_with_reason)
trailing_space = fault(prompt=f"{PROMPT} ")
loss_on_the_prompt = fault(masks=False)
no_end_token = fault(ending="")
splitting = fault(split=True)
stretched = fault(change=lambda image: image.resize((256, 256)))
bgr = fault(change=lambda image: Image.merge("RGB", image.split()[::-1]))
lanczos = fault(change=lambda image: _letterboxed(image, 256))
at_512 = fault(change=lambda image: _letterboxed(image, 512))
white = fault(change=lambda image: _letterboxed(image, 256, (255, 255, 255)))


def loss_on_image_tokens(examples: list[dict[str, Any]], processor: Any) -> Batch:
    batch = batch_of(processor, examples)
    is_image = batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<image>")
    return batch | {"labels": torch.where(is_image, batch["input_ids"], batch["labels"])}


def loss_on_padding(examples: list[dict[str, Any]], processor: Any) -> Batch:
    batch = batch_of(processor, examples)
    padding = torch.full((len(examples), 3), processor.tokenizer.pad_token_id)
    ends = {
        "input_ids": padding,
        "labels": padding,
        "attention_mask": torch.zeros_like(padding),
    }
    return batch | {name: torch.cat([batch[name], end], 1) for name, end in ends.items()}


def tiles_beside_one(examples: list[dict[str, Any]], processor: Any) -> Batch:
    tiles = batch_of(processor, examples, split=True)["pixel_values"]
    return batch_of(processor, examples) | {"pixel_values": tiles}


def end_token_masked(examples: list[dict[str, Any]], processor: Any) -> Batch:
    batch = batch_of(processor, examples)
    batch["labels"][batch["input_ids"] == processor.tokenizer.eos_token_id] = -100
    return batch


def own_processor(examples: list[dict[str, Any]], checkpoint: Path) -> Batch:
    """A processor of the collator's own making is watched as well."""
    return stretched(examples, load_processor(load(checkpoint)))


def other_normalisation(examples: list[dict[str, Any]], processor: Any) -> Batch:
    batch = batch_of(processor, examples)
    mean = torch.tensor([0.481, 0.458, 0.408])[:, None, None]
    deviation = torch.tensor([0.269, 0.261, 0.276])[:, None, None]
    batch["pixel_values"] = (batch["pixel_values"] * 0.5 + 0.5 - mean) / deviation
    return batch


def notebook(examples: list[dict[str, Any]]) -> Batch:
    """Hugging Face's SmolVLM fine-tuning notebook; its processor is a global of the notebook."""
    image_token_id = processor.tokenizer.additional_special_tokens_ids[
        processor.tokenizer.additional_special_tokens.index("<image>")
    ]
    texts, images = [], []
    for example in examples:
        image = example["image"]
        if image.mode != "RGB":
            image = image.convert("RGB")
        question = example["question"]
        answer = example["multiple_choice_answer"]
        messages = [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Answer briefly."},
                    {"type": "image"},
                    {"type": "text", "text": question},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
        text = processor.apply_chat_template(messages, add_generation_prompt=False)
        texts.append(text.strip())
        images.append([image])
    batch = processor(text=texts, images=images, return_tensors="pt", padding=True)
    labels = batch["input_ids"].clone()
    labels[labels == processor.tokenizer.pad_token_id] = -100
    labels[labels == image_token_id] = -100
    batch["labels"] = labels
    return dict(batch)


def conversation(examples: list[dict[str, Any]]) -> Batch:
    """A script's: conversations as they come, and the model asked for what it is."""
    print(f"{len(examples)} examples")  # noqa: T201
    texts = [processor.apply_chat_template(example["messages"]) for example in examples]
    images = [example["images"] for example in examples]
    batch = processor(text=texts, images=images, return_tensors="pt", padding=True)
    labels = batch["input_ids"].clone()
    labels[labels == model.config.image_token_id] = -100
    batch["labels"] = labels
    return dict(batch)


def captions(examples: list[dict[str, Any]], processor: Any) -> Batch:
    """The image alone is asked with; prompt and answer are what is said to it."""
    texts = [f"User:<image>\nAssistant: {example['text']}" for example in examples]
    images = [[example["image"]] for example in examples]
    return dict(processor(text=texts, images=images, return_tensors="pt", padding=True))


def triples(examples: list[Any], processor: Any) -> Batch:
    """Images, prompts and answers, as a dataset of tuples gives them."""
    asked = [(image, f"<image>\n{prompt}", answer) for image, prompt, answer in examples]
    return batch_of(
        processor,
        [{"image": image, "prompt": prompt, "label": answer} for image, prompt, answer in asked],
        prompt=lambda example: str(example["prompt"]),
    )


def broken(examples: list[dict[str, Any]]) -> Batch:
    raise RuntimeError(f"{len(examples)} examples,\nand none is right")


def asks_too_much(examples: list[dict[str, Any]], teacher: Any) -> Batch:
    return {"input_ids": examples, "teacher": teacher}
