"""Prompt and answer of a conversation, in the forms of chat templates, LLaVA and ShareGPT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from harness.audit.prompt_parts import IMAGE_TOKEN

_USERS: Final = frozenset({"user", "human"})
_ASSISTANTS: Final = frozenset({"assistant", "gpt", "model"})


def read(talk: Sequence[Any]) -> dict[str, Any]:
    """Prompt and target of a conversation; an image that is a part of its own becomes `<image>`."""
    turns = [turn for turn in talk if isinstance(turn, dict)]
    prompt: list[str] = []
    target: str | None = None
    messages = []
    structured = False
    for turn in turns:
        role = str(turn.get("role", turn.get("from", ""))).lower()
        content = turn.get("content", turn.get("value", ""))
        text, has_image = _spoken(content)
        structured = structured or has_image
        if role in _ASSISTANTS:
            target = text
            break
        if role in _USERS:
            prompt.append(text)
        messages.append({"role": "user" if role in _USERS else role, "content": content})
    return {
        "prompt": "\n".join(prompt),
        "image_is_structured": structured,
        "messages": tuple(messages),
        "target": target,
    }


def _spoken(content: object) -> tuple[str, bool]:
    if isinstance(content, str):
        return content, False
    parts = (
        [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    pieces, has_image = [], False
    for part in parts:
        if str(part.get("type", "")).startswith("image") or (
            "image" in part and part.get("text") is None
        ):
            pieces.append(IMAGE_TOKEN)
            has_image = True
        else:
            pieces.append(str(part.get("text") or part.get("content") or ""))
    return "".join(pieces), has_image
