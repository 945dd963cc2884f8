"""What a training target is made of: the label alone, or something around it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.checkpoint import END_OF_GENERATION

END_TOKENS = (*END_OF_GENERATION, "<eos>", "<|eot_id|>", "<end_of_turn>")


@dataclass(frozen=True)
class Target:
    """A target, read."""

    label: str | None
    """The one label it holds; None: none of them, or more than one."""
    form: str
    """`label`, or in words what stands around or in the place of the label."""
    ends: bool
    """An end token is spelled out at its end."""


def read(target: str, labels: Sequence[str]) -> Target:
    """`target` against `labels`."""
    body, ends = without_end(target)
    lowered = body.strip().lower()
    words = [word for word in re.findall(r"[^\W_]+", lowered) if word in labels]
    label = words[0] if len(set(words)) == 1 else None
    return Target(label, _form(body, lowered, words, labels), ends)


def without_end(text: str) -> tuple[str, bool]:
    """`text` without the end token that is spelled out behind it, and whether there was one."""
    stripped = text.rstrip()
    token = next((token for token in END_TOKENS if stripped.endswith(token)), None)
    return (stripped[: -len(token)], True) if token else (text, False)


def parted(text: str, labels: Sequence[str]) -> tuple[str, str] | None:
    """Prompt and target of a text that holds both, the answer last; None where no label ends it."""
    body, _ = without_end(text)
    names = "|".join(re.escape(label) for label in labels)
    match = re.search(rf"({names})[.!\s]*$", body, re.IGNORECASE)
    return (text[: match.start()], text[match.start() :]) if match else None


def _form(body: str, lowered: str, words: Sequence[str], labels: Sequence[str]) -> str:
    return " and ".join(_traits(body, lowered, words, labels)) or "label"


def _traits(body: str, lowered: str, words: Sequence[str], labels: Sequence[str]) -> Iterator[str]:
    if not words:
        yield "none of the labels"
        return
    if len(set(words)) > 1:
        yield "several labels"
        return
    if lowered != words[0]:
        rest = lowered.replace(words[0], "", 1).strip()
        yield "label with trailing text" if lowered.startswith(words[0]) else "label inside a text"
        if len(rest) <= 1:
            return
    elif body.strip() not in labels:
        yield "label in other letters"
    if body[:1].isspace():
        yield "label after a space"
    if body != body.rstrip():
        yield "white space at the end"
