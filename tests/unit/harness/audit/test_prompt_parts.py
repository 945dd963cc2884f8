"""A prompt is taken apart into template, image, words, context block and end."""

from __future__ import annotations

import pytest

from driftloop.harness.audit import prompt_parts
from driftloop.harness.audit.aspects import changed
from driftloop.harness.contract import Contract

WORDS = "Which element is this?\n\nElement:"


@pytest.mark.parametrize(
    ("text", "template", "after_marker", "end"),
    [
        (f"<image>\n{WORDS}", "{prompt}", "\n", ""),
        (f"<__media__>{WORDS} ", "{prompt}", "", " "),
        (
            f"<|im_start|>User:<image>{WORDS}<end_of_utterance>\nAssistant:",
            "<|im_start|>User:{prompt}<end_of_utterance>\nAssistant:",
            "",
            "",
        ),
        (
            f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\n{WORDS}<|im_end|>"
            "\n<|im_start|>assistant\n",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>"
            "\n<|im_start|>assistant\n",
            "\n",
            "",
        ),
        (f"USER: <image>\n{WORDS} ASSISTANT:", "USER: {prompt} ASSISTANT:", "\n", ""),
        (f"[INST] <image>\n{WORDS} [/INST]", "[INST] {prompt} [/INST]", "\n", ""),
    ],
)
def test_what_is_around_the_words_is_told_apart(
    text: str, template: str, after_marker: str, end: str
) -> None:
    parts = prompt_parts.split(text, "<__media__>")
    assert parts.words == WORDS
    assert (parts.template, parts.after_marker, parts.end) == (template, after_marker, end)


def test_a_context_block_is_no_part_of_the_words() -> None:
    text = f"<image>\n{WORDS}".replace("\n\nE", "\n\nContext: flames: orange ones\n\nE")
    parts = prompt_parts.split(text, "<__media__>")
    assert parts.context == "Context: flames: orange ones"
    assert parts.words == WORDS


def test_the_marker_is_the_image_for_libmtmd_and_text_for_training(contract: Contract) -> None:
    for side, value in (("app", "image token"), ("dataset", "literal text")):
        found = prompt_parts.findings(contract.prompt.text, side, "here", contract)  # type: ignore[arg-type]
        assert next(one.value for one in found if one.aspect == "marker") == value


@pytest.mark.parametrize(
    ("aspect", "value", "text"),
    [
        ("after_marker", "", "<__media__>Classify"),
        ("prompt_end", " ", "Element: "),
        ("context_block", True, "\n\nContext: a photo\n\nElement:"),
        ("marker", "literal text", "<image><__media__>\nClassify"),
        ("chat_template", "User:{prompt}\nAssistant:", "User:<__media__>\nClassify"),
    ],
)
def test_a_found_prompt_can_be_tried_as_a_contract(
    aspect: str, value: str | bool, text: str, contract: Contract
) -> None:
    other = changed(contract, aspect, value)
    assert other is not None
    assert text in other.prompt.text
    assert other.prompt.text.count(other.prompt.marker) == 1


@pytest.mark.parametrize(
    ("target", "label", "form"),
    [
        ("sea water", "sea water", "label"),
        ("fire_wood<end_of_utterance>", "fire_wood", "label"),
        ("fire", "fire", "label"),
        ("It is sea water.", "sea water", "label inside a text"),
        ("fire and water", None, "several labels"),
        ("firewood", None, "none of the labels"),
    ],
)
def test_a_target_may_be_of_several_words(target: str, label: str | None, form: str) -> None:
    read = prompt_parts.read_target(target, ("fire", "water", "sea water", "fire_wood"))
    assert (read.label, read.form) == (label, form)
