"""Prompts and targets, taken apart."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from driftloop.harness.audit.findings import Finding, Side, Value
from driftloop.harness.checkpoint import END_OF_GENERATION
from driftloop.harness.contract import Contract
from driftloop.harness.training import prompt

LIBMTMD_MARKERS = ("<__media__>", "<__image__>")
"""libmtmd's default marker, and the one it still takes for the same."""

IMAGE_TOKEN = prompt.IMAGE_TOKEN

_PLACEHOLDERS = (
    *(*LIBMTMD_MARKERS, IMAGE_TOKEN, "<|image|>", "<|image_1|>", "<|image_pad|>"),
    *("<image_soft_token>", "<img>", "<img></img>", "<ImageHere>", "[IMG]", "{image}"),
)
"""What training texts put where the image goes."""

END_TOKENS = (*END_OF_GENERATION, "<eos>", "<|eot_id|>", "<end_of_turn>")

_CONTEXT = re.compile(r"(?:(?<=\n)|^)[ \t]*context[ \t]*:[^\n]*(?:\n+|$)", re.IGNORECASE)
_ROLE = r"(?:user|human|system)"
_TURN = r"(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>)"
_OPENING = re.compile(
    r"^\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)\s*)?"
    rf"(?:{_TURN}\s*system\b.*?(?:<\|im_end\|>|<end_of_utterance>|<\|eot_id\|>|<end_of_turn>)\s*)?"
    rf"(?:{_TURN}\s*{_ROLE}(?:<\|end_header_id\|>)?[ \t]*:?[ \t]*\n*"
    rf"|<\|{_ROLE}\|>\n?|\[INST\][ ]?|{_ROLE}[ ]?:[ \t]*\n?"
    r"|###[ ]?(?:instruction|user)[ ]?:\s*\n?)",
    re.IGNORECASE | re.DOTALL,
)
_CLOSING = re.compile(
    r"(?:(?:<end_of_utterance>|<\|im_end\|>|<\|eot_id\|>|<\|end\|>|<end_of_turn>|</s>)\s*"
    rf"(?:{_TURN}?\s*(?:assistant|model)(?:<\|end_header_id\|>)?[ \t]*:?[ \t]*\n*"
    r"|<\|assistant\|>\n?)?"
    r"|[ ]?\[/INST\]|\n+(?:<\|im_start\|>)?assistant[ ]?:?[ \t]*\n?|\n+<\|assistant\|>\n?"
    r"|[ ]assistant:"
    r"|\n+###[ ]?(?:response|assistant)[ ]?:\s*)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Parts:
    """A prompt, taken apart; `template` with the rest in place of `{prompt}` gives it back."""

    template: str
    """What a chat template put around it, with `{prompt}`; `{prompt}` alone means nothing."""
    before: str
    placeholders: tuple[str, ...]
    """What stands for the image, in order; empty where nothing does."""
    after_marker: str
    """The white space between the image and the words."""
    words: str
    """The text proper, without a context block."""
    context: str
    """The context block's line; empty where there is none."""
    end: str
    """The white space after the last word."""

    @property
    def text(self) -> str:
        """The prompt, put together again; a context block stands before the last paragraph."""
        words = self.words
        if self.context:
            body, gap, last = words.rpartition("\n\n")
            words = f"{body}\n\n{self.context}{gap or chr(10)}{last}"
        said = "".join([self.before, *self.placeholders, self.after_marker, words, self.end])
        return self.template.replace("{prompt}", said)


def split(text: str, marker: str) -> Parts:
    """`text` taken apart; `marker` is a further text that may stand for the image."""
    opening, closing = _OPENING.match(text), _CLOSING.search(text)
    start = opening.end() if opening else 0
    stop = closing.start() if closing and closing.start() >= start else len(text)
    core = text[start:stop]
    known = sorted({*_PLACEHOLDERS, marker}, key=len, reverse=True)
    found = list(re.finditer("|".join(map(re.escape, known)), core))
    rest = core[found[-1].end() :] if found else core
    words = rest.strip()
    context = _CONTEXT.search(words)
    return Parts(
        template=f"{text[:start]}{{prompt}}{text[stop:]}",
        before=core[: found[0].start()] if found else "",
        placeholders=tuple(match.group() for match in found),
        after_marker=rest[: len(rest) - len(rest.lstrip())] if found else "",
        words=_CONTEXT.sub("", words, count=1).strip() if context else words,
        context=context.group().strip() if context else "",
        end=rest[len(rest.rstrip()) :] if words else "",
    )


def of_contract(contract: Contract) -> Parts:
    """Its prompt, taken apart."""
    return split(contract.prompt.text, contract.prompt.marker)


def findings(
    text: str, side: Side, where: str, contract: Contract, has_token: bool = False
) -> list[Finding]:
    """What a prompt, as it is sent or trained on, says about itself, the answer left out.
    `has_token`: training's tokenizer is known to take `<image>` for the image."""
    parts = split(text, contract.prompt.marker)
    known = (*LIBMTMD_MARKERS, contract.prompt.marker) if side == "app" else (IMAGE_TOKEN,)
    value, note = _marker(parts, side, known if side == "app" or has_token else ())
    found: list[tuple[str, Value | None, str]] = [
        ("marker", value, note),
        ("prompt_words", " ".join([parts.before, parts.words]).strip(), ""),
        ("context_block", bool(parts.context), f"it says {parts.context!r}" * bool(parts.context)),
        ("prompt_end", parts.end, ""),
        ("chat_template", "none" if parts.template == "{prompt}" else parts.template, ""),
    ]
    if parts.placeholders:
        found.append(("after_marker", parts.after_marker, ""))
    return [Finding(aspect, side, value, where, note) for aspect, value, note in found]


def _marker(parts: Parts, side: Side, image_texts: Collection[str]) -> tuple[str | None, str]:
    """How the image stands in the prompt, and a note."""
    literal = next((item for item in parts.placeholders if item not in image_texts), None)
    if literal in LIBMTMD_MARKERS:
        note = "is libmtmd's marker, not a token of the model: in training it is ordinary text"
        return "literal text", f"{literal} {note} that the phone never sends"
    if literal is not None:
        note = f"{literal} is text unless --checkpoint shows that it is the image's token"
        return f"{literal} as text", note
    if parts.placeholders:
        return "image token", ""
    if side in ("app", "collator"):
        return "missing", "nothing in the prompt is the image"
    return None, "the text holds no marker: the collator decides where the image goes"


@dataclass(frozen=True)
class Target:
    """A target, read."""

    label: str | None
    """The one label it holds; None for no label or several."""
    form: str
    """`label`, or in words what stands around the label or in its place."""
    ends: bool


def read_target(target: str, labels: Sequence[str]) -> Target:
    """Which of `labels` the target is, and in which form."""
    body, ends = _without_end(target)
    lowered = body.strip().lower()
    spelled = "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))
    words = re.findall(rf"(?<![^\W_])(?:{spelled})(?![^\W_])", lowered)
    label = words[0] if len(set(words)) == 1 else None
    if label is None:
        return Target(None, "several labels" if words else "none of the labels", ends)
    around = len(lowered.replace(label, "", 1).strip())
    traits = {
        "label with trailing text": around and lowered.startswith(label),
        "label inside a text": around and not lowered.startswith(label),
        "label in other letters": not around and body.strip() not in labels,
        "label after a space": around != 1 and body[:1].isspace(),
        "white space at the end": around != 1 and body != body.rstrip(),
    }
    form = " and ".join(trait for trait, holds in traits.items() if holds)
    return Target(label, form or "label", ends)


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
