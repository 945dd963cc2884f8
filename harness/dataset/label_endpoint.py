"""Labels from a vision endpoint, made on the very squares that the model will see."""

from __future__ import annotations

import string
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.contract import Prompt
from harness.dataset import assemble, labels
from harness.dataset.endpoint import Endpoint
from harness.dataset.labels import Said
from harness.dataset.manifest import Dataset, Entry
from harness.jsonl import Appender
from harness.progress import Advance

_AROUND = string.whitespace + string.punctuation


@dataclass(frozen=True)
class Question:
    """What is asked about every square."""

    prompt: str
    max_tokens: int


@dataclass(frozen=True)
class Pace:
    """How hard an endpoint is worked: requests at once, and requests begun in a minute."""

    concurrency: int = 4
    per_minute: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The dataset with its new labels."""

    dataset: Dataset
    asked: int
    unread: Counter[str]
    """Answers of this model to this prompt that are none of the labels, ever, and how often."""


def text_of(prompt: Prompt) -> str:
    """The contract's prompt without the marker, which only libmtmd knows."""
    return prompt.text.replace(prompt.marker, "").strip()


def read_label(answer: str, known: Iterable[str]) -> str | None:
    """The label that `answer` is, whatever its case and the punctuation around it.

    None for everything else, a sentence that holds a label among it: a wrong label costs more than
    a missing one.
    """
    word = answer.strip(_AROUND).lower()
    return word if word in known else None


def label(
    folder: Path,
    endpoint: Endpoint,
    question: Question,
    pace: Pace,
    *,
    relabel: bool = False,
    progress: Advance | None = None,
) -> Outcome:
    """Ask `endpoint` about every square of the dataset in `folder` that has no label.

    The same pixels are asked about once. Every answer is kept as soon as it is there; what this
    model has answered to this prompt is not asked again, whether it was a label or not.

    Args:
        relabel: ask about labelled squares as well; an answer that is a label replaces theirs.

    Raises:
        DatasetError: no dataset, a square was changed since, or another process is writing.
        EndpointRefused, EndpointFailed: the endpoint, once requests under way have ended; all
            answers so far are in the manifest.
    """
    with assemble.writing(folder):
        # A killed call left answers that are not in the manifest yet.
        dataset = assemble.again(folder)
        known = assemble.read(folder).labels
        pending = _pending(dataset, endpoint.model, question.prompt, relabel)
        try:
            with labels.book(folder) as book:
                asking = _Asking(endpoint, question, known, book, pending, pace, progress)
                asking.run()
        finally:
            dataset = assemble.again(folder)
        unread = Counter(
            said.answer or ""
            for said in labels.read(folder)
            if said.label is None and (said.model, said.prompt) == (endpoint.model, question.prompt)
        )
    return Outcome(dataset, len(pending), unread)


def _pending(dataset: Dataset, model: str, prompt: str, relabel: bool) -> list[Entry]:
    answered = {
        said.pixels_sha256
        for said in labels.read(dataset.folder)
        if (said.model, said.prompt) == (model, prompt)
    }
    by_pixels = {
        entry.pixels_sha256: entry
        for entry in dataset.entries
        if (relabel or entry.label is None) and entry.pixels_sha256 not in answered
    }
    return list(by_pixels.values())


class _Asking:
    """Threads that take squares from one queue until it is empty or one of them fails."""

    def __init__(
        self,
        endpoint: Endpoint,
        question: Question,
        known: tuple[str, ...],
        book: Appender,
        pending: list[Entry],
        pace: Pace,
        progress: Advance | None,
    ) -> None:
        self._endpoint, self._question, self._known = endpoint, question, known
        self._book, self._pace, self._progress = book, pace, progress
        self._queue, self._total, self._done = iter(pending), len(pending), 0
        self._taking, self._keeping = threading.Lock(), threading.Lock()
        self._stopped = threading.Event()
        self._next_at = 0.0

    def run(self) -> None:
        threads = min(self._pace.concurrency, self._total)
        if not threads:
            return
        with ThreadPoolExecutor(threads) as pool:
            try:
                for future in [pool.submit(self._work) for _ in range(threads)]:
                    future.result()
            finally:
                self._stopped.set()

    def _work(self) -> None:
        try:
            while entry := self._take():
                self._keep(entry, self._ask(entry))
        finally:
            # Whoever ends first has found the queue empty, or failed.
            self._stopped.set()

    def _take(self) -> Entry | None:
        """The next square, when its turn comes."""
        with self._taking:
            if self._pace.per_minute:
                wait_s = self._next_at - time.monotonic()
                if wait_s > 0 and self._stopped.wait(wait_s):
                    return None
                self._next_at = max(time.monotonic(), self._next_at) + 60 / self._pace.per_minute
            return None if self._stopped.is_set() else next(self._queue, None)

    def _ask(self, entry: Entry) -> str:
        entry.square()  # what is sent must be what the manifest says
        png = entry.path.read_bytes()
        return self._endpoint.ask(png, self._question.prompt, self._question.max_tokens)

    def _keep(self, entry: Entry, answer: str) -> None:
        said = Said(
            pixels_sha256=entry.pixels_sha256,
            label=read_label(answer, self._known),
            label_source="endpoint",
            label_image_sha256=entry.pixels_sha256,
            answer=answer,
            model=self._endpoint.model,
            prompt=self._question.prompt,
        )
        with self._keeping:
            self._book.append([said])
            self._done += 1
            if self._progress:
                self._progress(self._done, self._total)
