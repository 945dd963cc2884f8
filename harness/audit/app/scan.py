"""The scan: every rule on every fact of the app's source, and what comes of each aspect."""

from __future__ import annotations

import itertools
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.audit.app import rules, texts
from harness.audit.app.candidates import Candidate, Reading, settled
from harness.audit.app.constants import Constants
from harness.audit.app.rules import Scene
from harness.audit.app.source import FILE_SECONDS, File, Source
from harness.contract import Contract

ASPECTS: Final = (
    "image_size", "padding", "marker", "max_tokens", "sampling", "images_per_prompt",
    "after_marker", "prompt_words", "context_block", "prompt_end", "chat_template",
    "resize", "size_arithmetic", "centring", "alpha", "exif", "channels", "tiling",
    "add_special", "parse_special", "labels", "answer_reading", "limit_counts_prompt",
    "context", "batch", "cache_type_k", "cache_type_v", "flash_attention", "threads",
    "vision_threads", "backend", "cache_cleared", "session_images", "weights", "mmproj",
)  # fmt: skip
"""What an app decides."""

_TRIGGER: Final = re.compile(
    rb"llama|mtmd|gguf|<__|<image>|n_ctx|n_?len|predict|[mM]ax_?\w*[tT]oken|MAX_\w*TOKEN"
    rb"|createScaledBitmap|createBitmap|drawColor|eraseColor|drawBitmap|ExifInterface|decodeStream"
    rb"|getPixels|lockPixels|[pP]rompt|PROMPT|temperature|[cC]ontext_?[sS]ize|BitmapFactory"
)
"""Files without any of it state nothing, and are parsed only where a name leads to them."""


@dataclass(frozen=True)
class Scan:
    """What the source says."""

    readings: tuple[Reading, ...]
    notes: tuple[str, ...]
    """Files that were not read, or not well; one line each."""


def scan(folder: Path, contract: Contract) -> Scan:
    """What the app's source under `folder` says about each of ASPECTS.

    `contract` decides nothing but which texts and lists are of its labels.

    Raises:
        BadInput: no such folder, or no Kotlin, Java or C++ in it.
        ArmUnavailable: the packages of the extra `audit` are not installed.
    """
    source = Source(folder)
    constants = Constants(source)
    found: defaultdict[str, list[Candidate]] = defaultdict(list)
    every = texts.settled_together(list(_candidates(source, constants, contract)))
    for candidate in every:
        found[candidate.aspect].append(candidate)
    whole = source.is_whole
    readings = tuple(settled(aspect, found.get(aspect, []), whole) for aspect in ASPECTS)
    return Scan(readings, tuple(source.notes()))


def _candidates(source: Source, constants: Constants, contract: Contract) -> Iterator[Candidate]:
    is_small = source.is_small
    labels = "|".join(re.escape(label) for label in contract.answer.labels if label)
    lists = re.compile(rf'(?i)"(?:{labels or "(?!)"})"'.encode())
    for file in source.files:
        if source.is_late:
            source.stop()
            return
        is_relevant = _TRIGGER.search(file.content) or lists.search(file.content)
        if is_relevant or is_small:
            yield from _of_file(file, constants, contract)


def _of_file(file: File, constants: Constants, contract: Contract) -> Iterator[Candidate]:
    own = [rule for rule in rules.table() if file.language in rule.languages]
    until = time.monotonic() + FILE_SECONDS
    for name, facts in file.facts.items():
        fitting = [rule for rule in own if rule.name.fullmatch(name)]
        for rule, fact in itertools.product(fitting, facts):
            if fact.kind in rule.finds:
                if time.monotonic() > until:
                    file.notes.append("takes too long: not read to its end")
                    return
                yield from rule.read(Scene(fact, file, constants, contract), rule)
