"""What the house's words mean to a reader, and how a number and a noun go together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.judgement.gate import GateName, Outcome

STAGE_WORDS: Final = {
    "resize": "the canonical pixels",
    "tile": "the tiles or the number of image tokens",
    "pixels": "the pixel values the vision graph gets",
    "embed": "the image embeddings",
    "tokens": "the prompt's token ids",
    "prefill": "the first step's probabilities",
    "decode": "the generated tokens",
    "label": "the label",
}
GATE_WORDS: Final[dict[GateName, str]] = {
    "blame": "nothing to blame",
    "agreement": "same answers",
    "session_agreement": "same sessions",
    "numeric_flips": "numeric flips",
    "resize": "same canonical pixels",
    "tile": "same tiles",
    "pixels": "pixel values",
    "embed": "image embeddings",
    "tokens": "same prompt ids",
    "prefill": "first step's probabilities",
    "attestation": "what ran is what was asked",
    "canary": "canaries",
    "accuracy": "accuracy",
    "errors": "cases without an answer",
    "session_s": "session time",
    "memory_mib": "peak memory",
}
CANARY_WORDS: Final[dict[str, str]] = {
    "again": "the first image again, as the last",
    "twice": "the same image twice",
    "reversed": "the first session backwards",
    "black": "a black image",
    "mirror": "an image mirrored",
}


def gate_words(name: GateName) -> str:
    """What a gate holds, for a reader."""
    return GATE_WORDS.get(name, name)


def stage_words(stage: str) -> str:
    """What a stage's blame means, for a reader."""
    return STAGE_WORDS.get(stage, stage)


def canary_words(name: str) -> str:
    """What a canary is, for a reader."""
    return CANARY_WORDS.get(name, name)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Fail before inconclusive before pass; `not judged` only where nothing was judged."""
    order: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
    there = set(outcomes)
    return next((outcome for outcome in order if outcome in there), "not judged")


def count(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def are(number: int) -> str:
    """`is` for one, `are` for any other number."""
    return "is" if number == 1 else "are"
