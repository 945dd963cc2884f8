"""A dataset's images as examples, opened when they are needed."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from driftloop.harness.contract import Contract
from driftloop.harness.dataset import Entry
from driftloop.harness.training.dataset import Example, example

if TYPE_CHECKING:
    from transformers import Idefics3Processor

_READ_AHEAD = 2
"""Batches made in the background while one is trained on."""


class Examples:
    """Labelled entries under a contract. The first ones stay in memory, up to a bound; the others
    are opened again each time: in a pass over all of them any other choice would keep fewer."""

    def __init__(
        self,
        processor: Idefics3Processor,
        contract: Contract,
        entries: Sequence[Entry],
        kept_bytes: int = 512 << 20,
    ) -> None:
        self.labels = tuple(str(entry.label) for entry in entries)
        self._processor, self._contract, self._entries = processor, contract, entries
        self._room = kept_bytes
        self._kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def batches(self, order: Iterable[Sequence[int]]) -> Generator[list[Example]]:
        """The examples at the places that `order` lists, a batch at a time; read in a thread.
        Raises DatasetError where an image is missing or changed since it was prepared."""
        with ThreadPoolExecutor(1, thread_name_prefix="examples") as reader:
            waiting: list[Future[list[Example]]] = []
            try:
                for places in order:
                    waiting.append(reader.submit(self._batch, places))
                    if len(waiting) > _READ_AHEAD:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                reader.shutdown(cancel_futures=True)

    def _batch(self, places: Sequence[int]) -> list[Example]:
        return [self._at(place) for place in places]

    def _at(self, place: int) -> Example:
        if (kept := self._kept.get(place)) is not None:
            return kept
        square = self._entries[place].square()
        made = example(self._processor, self._contract, square, self.labels[place])
        size = made.pixel_values.nbytes
        if size <= self._room:
            self._room -= size
            self._kept[place] = made
        return made
