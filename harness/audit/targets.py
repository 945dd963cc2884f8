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
    body, ends = _without_end(target)
    lowered = body.strip().lower()
    words = [word for word in re.findall(r"[^\W_]+", lowered) if word in labels]
    label = words[0] if len(set(words)) == 1 else None
    if label is None:
        return Target(None, "several labels" if words else "none of the labels", ends)
    return Target(label, " and ".join(_traits(body, label, labels)) or "label", ends)


def parted(text: str, labels: Sequence[str]) -> tuple[str, str] | None:
    """Prompt and target of a text that holds both, the answer last; None where no label ends it."""
    body, _ = _without_end(text)
    names = "|".join(re.escape(label) for label in labels)
    match = re.search(rf"({names})[.!\s]*$", body, re.IGNORECASE)
    return (text[: match.start()], text[match.start() :]) if match else None


def _without_end(text: str) -> tuple[str, bool]:
    stripped = text.rstrip()
    token = next((token for token in END_TOKENS if stripped.endswith(token)), None)
    return (stripped[: -len(token)], True) if token else (text, False)


def _traits(body: str, label: str, labels: Sequence[str]) -> Iterator[str]:
    lowered = body.strip().lower()
    if lowered != label:
        yield "label with trailing text" if lowered.startswith(label) else "label inside a text"
        if len(lowered.replace(label, "", 1).strip()) <= 1:
            return
    elif body.strip() not in labels:
        yield "label in other letters"
    if body[:1].isspace():
        yield "label after a space"
    if body != body.rstrip():
        yield "white space at the end"
