"""Labels from a vision model behind an OpenAI-compatible endpoint.

It is asked about the very squares that the trained model will see.
"""

from __future__ import annotations

import base64
import json
import os
import string
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from driftloop.harness.contract import Prompt
from driftloop.harness.dataset import assemble
from driftloop.harness.dataset.assemble import BookEntry
from driftloop.harness.dataset.manifest import Dataset, Entry
from driftloop.harness.errors import EndpointFailed, EndpointRefused, extra
from driftloop.harness.progress import Advance

_KEY_VARIABLES: Final = ("DRIFTLOOP_API_KEY", "OPENAI_API_KEY")
"""Where the key is read from, the first that is set; it is never written anywhere."""
_LONGEST_DETAIL: Final = 200
_HINTS: Final = {
    400: "the endpoint does not take this request; is the model one for images?",
    401: f"set {' or '.join(_KEY_VARIABLES)} to a valid key",
    403: "the key may not use this model",
    404: "check --model, and --endpoint, which usually ends in /v1",
}
_AROUND: Final = string.whitespace + string.punctuation


class Endpoint:
    """A client that retries temporary faults and stops at permanent ones. Thread-safe."""

    def __init__(self, url: str, model: str, *, retries: int = 6, timeout_s: float = 120) -> None:
        """
        Args:
            url: the base of the API, usually ending in `/v1`.
            retries: how often a request is repeated after 429, 5xx, a time-out or a broken
                connection: after what `Retry-After` says (up to two minutes), else after half a
                second and then twice as long each time, up to 8 s.

        Raises:
            EndpointRefused: `url` is no http(s) address.
            ArmUnavailable: the package `openai` is missing.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise EndpointRefused(f"--endpoint {url!r} is no http(s) address")
        with extra("label", "labelling"):
            import openai

        self.model = model
        self._url = url
        self._key = next((os.environ[name] for name in _KEY_VARIABLES if os.environ.get(name)), "")
        self._client = openai.OpenAI(
            base_url=url.removesuffix("/").removesuffix("/chat/completions"),
            api_key=self._key or "none",
            max_retries=retries,
            timeout=timeout_s,
        )

    def ask(self, png: bytes, prompt: str, max_tokens: int) -> str:
        """The model's greedy answer to `png` and `prompt`; empty where it gives none.

        Raises:
            EndpointRefused: it will never take this request (401, 403, 404, 400, ...).
            EndpointFailed: it cannot be reached, stays busy or broken after all retries, or its
                answer is no chat completion.
        """
        import openai

        image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        try:
            reply = self._client.chat.completions.with_raw_response.create(
                model=self.model,
                max_tokens=max_tokens,
                temperature=0,
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": image}},
                            {"type": "text", "text": prompt},
                        ],
                    }
                ],
            )
            content = json.loads(reply.text)["choices"][0]["message"].get("content") or ""
            if not isinstance(content, str):
                raise TypeError("content is no text")
        except openai.APIStatusError as error:
            status = error.status_code
            if status in (408, 409, 429) or status >= 500:
                detail = f"{error.message}, after all retries; try again later"
                raise self._failure(detail) from None
            hint = _HINTS.get(status, "correct the request")
            raise EndpointRefused(self._line(error.message, hint)) from None
        except openai.APITimeoutError:
            raise self._failure("no answer in time, after all retries") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self._failure(f"cannot be reached: {cause}; is it running?") from None
        except (openai.APIError, ValueError, LookupError, TypeError, AttributeError):
            raise self._failure("its answer is no chat completion of OpenAI's form") from None
        return content

    def _failure(self, detail: str) -> EndpointFailed:
        return EndpointFailed(self._line(detail, "labels so far are kept"))

    def _line(self, detail: str, hint: str) -> str:
        """One line that cannot hold the key, even where the endpoint repeats it."""
        words = " ".join(detail.split())
        if self._key:
            words = words.replace(self._key, "[key]")
        short = words if len(words) <= _LONGEST_DETAIL else f"{words[:_LONGEST_DETAIL]}..."
        return f"{self._url}: {short}; {hint}"


@dataclass(frozen=True)
class Outcome:
    """The dataset with its new labels."""

    dataset: Dataset
    asked: int
    unread: Counter[str]
    """All answers of this model to this prompt that are none of the labels, and how often."""


def text_of(prompt: Prompt) -> str:
    """The contract's prompt without the marker, which only libmtmd knows."""
    return prompt.text.replace(prompt.marker, "").strip()


def read_label(answer: str, known: Iterable[str]) -> str | None:
    """The label that `answer` is, whatever its case and the punctuation around it. None for
    anything else, even a sentence with a label in it: a wrong label costs more than a missing
    one."""
    word = answer.strip(_AROUND).lower()
    return word if word in known else None


def label(
    folder: Path,
    endpoint: Endpoint,
    prompt: str,
    max_tokens: int,
    *,
    concurrency: int = 4,
    per_minute: float | None = None,
    relabel: bool = False,
    progress: Advance | None = None,
) -> Outcome:
    """Ask `endpoint` about every square of the dataset in `folder` that has no label.

    The same pixels are asked about once. Every answer is kept as soon as it is there; what this
    model has answered to this prompt is not asked again, whether it was a label or not.

    Args:
        concurrency: requests at once; `per_minute`: most requests begun in a minute.
        relabel: ask about labelled squares as well; an answer that is a label replaces theirs.

    Raises:
        DatasetError: no dataset, a square has changed since, or another process is writing.
        EndpointRefused, EndpointFailed: the endpoint, once requests under way have ended; all
            answers so far are in the manifest.
    """

    def answers() -> list[BookEntry]:
        asked = endpoint.model, prompt
        return [one for one in assemble.read_book(folder) if (one.model, one.prompt) == asked]

    def ask(entry: Entry) -> BookEntry:
        entry.square()  # what is sent must be what the manifest says
        answer = endpoint.ask(entry.path.read_bytes(), prompt, max_tokens)
        return BookEntry(
            pixels_sha256=entry.pixels_sha256,
            label=read_label(answer, known),
            label_source="endpoint",
            label_image_sha256=entry.pixels_sha256,
            answer=answer,
            model=endpoint.model,
            prompt=prompt,
        )

    with assemble.writing(folder):
        # A killed call left answers that are not in the manifest yet.
        dataset = assemble.reassemble(folder)
        answered = {one.pixels_sha256 for one in answers()}
        pending = {
            entry.pixels_sha256: entry
            for entry in dataset.entries
            if (relabel or entry.label is None) and entry.pixels_sha256 not in answered
        }
        known = assemble.read(folder).labels
        keeping, done = threading.Lock(), count(1)
        try:
            with assemble.book(folder) as book:

                def keep(line: BookEntry) -> None:
                    with keeping:
                        book.append([line])
                        if progress:
                            progress(next(done), len(pending))

                _work_through(
                    list(pending.values()), lambda entry: keep(ask(entry)), concurrency, per_minute
                )
        finally:
            dataset = assemble.reassemble(folder)
        unread = Counter(one.answer or "" for one in answers() if one.label is None)
    return Outcome(dataset, len(pending), unread)


def _work_through(
    pending: list[Entry], work: Callable[[Entry], None], threads: int, per_minute: float | None
) -> None:
    """Threads that take squares from one queue until it is empty or one of them fails."""
    queue, taking, stopped = iter(pending), threading.Lock(), threading.Event()
    next_at = 0.0

    def take() -> Entry | None:
        """The next square, when its turn comes."""
        nonlocal next_at
        with taking:
            if per_minute:
                wait_s = next_at - time.monotonic()
                if wait_s > 0 and stopped.wait(wait_s):
                    return None
                next_at = max(time.monotonic(), next_at) + 60 / per_minute
            return None if stopped.is_set() else next(queue, None)

    def run() -> None:
        try:
            while entry := take():
                work(entry)
        finally:
            stopped.set()  # the first thread to end has found the queue empty, or failed

    with ThreadPoolExecutor(threads) as pool:
        try:
            for future in [pool.submit(run) for _ in range(min(threads, len(pending)))]:
                future.result()
        finally:
            stopped.set()
