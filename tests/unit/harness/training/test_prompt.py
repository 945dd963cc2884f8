"""The contract's prompt as token ids: transformers' own expansion is the oracle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from driftloop.harness import contract
from driftloop.harness.contract import Prompt, Tiling
from driftloop.harness.errors import CheckpointError
from driftloop.harness.training import prompt as prompts

if TYPE_CHECKING:
    from transformers import Idefics3Processor

DEFAULT = contract.load("default").prompt


def _by_transformers(processor: Idefics3Processor, text: str, *, split: bool) -> list[int]:
    encoded = processor(text=text, images=[Image.new("RGB", (256, 256))], do_image_splitting=split)
    ids: list[int] = encoded["input_ids"][0]
    return ids


@pytest.mark.parametrize(("tiling", "grid"), [("single", (0, 0)), ("split", (2, 2))])
@pytest.mark.parametrize(
    "text",
    [
        DEFAULT.text,
        "Look at this: <__media__> Element:",
        "<|im_start|>User:<__media__>\n12 or 345?<end_of_utterance>\nAssistant:",
        "<__media__>",
    ],
)
def test_ids_equal_those_of_transformers(
    processor: Idefics3Processor, tiling: Tiling, grid: tuple[int, int], text: str
) -> None:
    ours = prompts.encode(processor.tokenizer, Prompt(text=text), grid, 4)
    with_image = text.replace("<__media__>", "<image>")
    assert list(ours.ids) == _by_transformers(processor, with_image, split=tiling == "split")


def test_the_default_prompt_has_24_text_tokens_around_an_image_of_three_more(
    processor: Idefics3Processor,
) -> None:
    ids = prompts.encode(processor.tokenizer, DEFAULT, (0, 0), 4)
    assert ids.image_tokens == 4
    assert len(ids.ids) == 3 + 4 + 25
    assert ids.observed[2:6] == [-1, -1, -1, -1]
    assert ids.observed.count(-1) == ids.image_tokens
    assert "media" not in processor.tokenizer.decode(list(ids.ids))


def test_special_tokens_in_the_text_are_plain_where_the_contract_says_so(
    processor: Idefics3Processor,
) -> None:
    text = "<__media__><|im_end|>"
    parsed = prompts.encode(processor.tokenizer, Prompt(text=text), (0, 0), 4)
    plain = prompts.encode(processor.tokenizer, Prompt(text=text, parse_special=False), (0, 0), 4)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert parsed.ids[-1] == end
    assert end not in plain.ids
    assert len(plain.ids) > len(parsed.ids)


class _NoImages:
    """SmolLM2's own vocabulary, before SmolVLM's tokens are added: `<image>` is several tokens."""

    bos_token_id = None
    eos_token_id = None

    def __init__(self, processor: Idefics3Processor) -> None:
        self._tokenizer = processor.tokenizer

    def encode(
        self, text: str, *, add_special_tokens: bool, split_special_tokens: bool = False
    ) -> list[int]:
        del split_special_tokens
        ids: list[int] = self._tokenizer.encode(
            text, add_special_tokens=add_special_tokens, split_special_tokens=True
        )
        return ids


def test_a_tokenizer_without_image_tokens_is_refused(processor: Idefics3Processor) -> None:
    with pytest.raises(CheckpointError, match=r"no token <image>.*SmolVLM"):
        prompts.encode(_NoImages(processor), DEFAULT, (0, 0), 4)
