"""The contracts that come with driftloop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from PIL import Image

from driftloop.harness import contract
from driftloop.harness.training import prompt as prompts

if TYPE_CHECKING:
    from transformers import Idefics3Processor

TRAINED = contract.load("as-trained")


@pytest.mark.parametrize("name", contract.names())
def test_every_contract_that_comes_along_loads_under_its_own_name(name: str) -> None:
    assert contract.load(name).name == name


def test_as_trained_differs_from_the_default_where_the_scripts_do() -> None:
    default = contract.load("default")
    assert TRAINED.pixels.spelled_out.recipe == "lanczos"
    assert (TRAINED.tiling, TRAINED.limits.max_tokens) == ("split", 128)
    assert (TRAINED.answer, TRAINED.runtime) == (default.answer, default.runtime)


def test_as_trained_has_the_ids_of_smolvlms_own_chat_template(processor: Idefics3Processor) -> None:
    from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE

    words = TRAINED.prompt.text.split("<image>")[1].split("<end_of_utterance>")[0]
    content = [{"type": "image"}, {"type": "text", "text": words}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=DEFAULT_CHAT_TEMPLATE,
        add_generation_prompt=True,
    )
    picture = Image.new("RGB", (256, 256))
    theirs = processor(text=text, images=[picture], do_image_splitting=True)["input_ids"][0]
    ours = prompts.encode(processor.tokenizer, TRAINED.prompt, (2, 2), processor.image_seq_len)
    assert list(ours.ids) == theirs


def test_libmtmds_marker_in_a_training_text_is_plain_characters(
    processor: Idefics3Processor,
) -> None:
    ids = prompts.encode(processor.tokenizer, TRAINED.prompt, (0, 0), 4).ids
    assert "<__media__>" in processor.tokenizer.decode(list(ids))
