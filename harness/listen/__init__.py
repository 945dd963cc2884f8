"""An app's log: what llama.cpp said there about the model, the context and the image.

llama.cpp says what it really does, whatever the source asks for: this is the stronger evidence.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from driftloop.harness.audit import values
from driftloop.harness.audit.aspects import APP_THREADS
from driftloop.harness.audit.findings import Finding, Quote, Value, settled
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError
from driftloop.harness.jsonl import Record
from driftloop.harness.listen.logcat import LogLine
from driftloop.harness.shipped import shipped

_SLICE: Final = re.compile(r"image(?: or| |/)slice|image slice|decoding image batch|image decoded")
"""What libmtmd logs from the beginning of a slice to its end."""
_LOADS: Final = {"text_file", "context", "buffer"}
"""Facts that are logged where a model is loaded."""
_Said = tuple[str, Value, LogLine, str]
"""An aspect, its value, the line, and why it may be something else."""
_TYPE_WORDS: Final = ((" - medium", "_m"), (" - small", "_s"), (" - large", "_l"), ("mostly ", ""))


class Row(Record):
    """One row of `lines.toml`, which says what each field means."""

    tells: str
    pattern: re.Pattern[str]
    title: str = ""
    is_measured: bool = False
    aspect: str = ""


_ROWS: Final = tuple(
    map(Row.model_validate, shipped("driftloop.harness.listen", "lines.toml")["lines"])
)


@dataclass
class Heard:
    """What one process said of its models."""

    pid: int | None
    said: dict[str, dict[str, LogLine]] = field(default_factory=lambda: defaultdict(dict))
    """Fact -> its values, each with the first line that says it."""
    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    runs: list[tuple[int, LogLine]] = field(default_factory=list)
    """How many slices were encoded in a row, with nothing else logged between them."""
    _is_in_run: bool = False

    def take(self, line: LogLine) -> None:
        """Take in one more line."""
        for row in _ROWS:
            if (found := row.pattern.search(line.text)) is None:
                continue
            value = " ".join(found["value"].split())
            self.said[row.tells].setdefault(value, line)
            if row.is_measured:
                self.measured[row.tells].append(float(value))
            if row.tells == "slice" and self._is_in_run:
                self.runs[-1] = (self.runs[-1][0] + 1, self.runs[-1][1])
            elif row.tells == "slice":
                self.runs.append((1, line))
        self._is_in_run = bool(self.runs) and _SLICE.search(line.text) is not None

    def others(self) -> Iterator[tuple[Row, str, LogLine]]:
        """The facts that no contract fixes."""
        for row in _ROWS:
            if row.title and (values := self.said.get(row.tells)):
                times = self.measured.get(row.tells)
                shown = f"{median(times):g}" if times else ", ".join(values)
                yield row, shown, next(iter(values.values()))

    def findings(self, contract: Contract, images: int | None, name: str) -> Iterator[Finding]:
        """The aspects of a contract, each with the lines that say it.

        `images`: how many were classified; without it, slices of one image and single tiles of
        several can look the same. `name`: the log, as in `name:LINE`.
        """
        found: defaultdict[str, list[Quote]] = defaultdict(list)
        parts = (self._values(), self._threads(contract), self._backend(), self._tiling(images))
        for aspect, value, line, why in itertools.chain(*parts):
            where = f"{name}:{line.number}"
            found[aspect].append(Quote(value, where, line.text, why, aspect, not why))
        yield from (settled(aspect, "log", candidates) for aspect, candidates in found.items())

    def _values(self) -> Iterator[_Said]:
        for row in _ROWS:
            # An aspect's first row has its reader; the others are other ways of saying it.
            for said, line in self.said.get(row.tells, {}).items() if row.aspect else ():
                if (value := _READ[row.aspect](said)) is not None:
                    yield row.tells, value, line, ""

    def _threads(self, contract: Contract) -> Iterator[_Said]:
        runtime = contract.runtime
        cores = next((int(one) for one in self.said.get("cores", ())), None)
        for said, line in self.said.get("threads", {}).items():
            if runtime.threads:
                yield "threads", int(said), line, ""
            elif cores is not None:
                is_rule = int(said) == runtime.threads_on(cores)
                yield "threads", APP_THREADS if is_rule else int(said), line, ""

    def _backend(self) -> Iterator[_Said]:
        """A model runs where its weights lie; a GPU's host buffers hold what the CPU looks up."""
        buffers = {
            name: line for name, line in self.said.get("buffer", {}).items() if "_Host" not in name
        }
        on_gpu = {name: line for name, line in buffers.items() if not name.startswith("CPU")}
        for name, line in on_gpu.items():
            yield "backend", re.sub(r"\d+$", "", name).lower(), line, ""
        if buffers and not on_gpu:
            wanted = self.said.get("gpu_wanted", {})
            line = next(iter(wanted.values()), next(iter(buffers.values())))
            yield "backend", "cpu, where a GPU was wanted" if wanted else "cpu", line, ""

    def _tiling(self, images: int | None) -> Iterator[_Said]:
        for line in self.said.get("grid", {}).values():
            yield "tiling", "split", line, ""
        slices = sum(count for count, _ in self.runs)
        if not slices or "grid" in self.said:
            return
        longest, line = max(self.runs, key=lambda run: run[0])
        if images is not None:
            yield "tiling", "single" if slices == images else "split", line, ""
        elif longest == 1:
            yield "tiling", "single", line, ""
        else:
            why = f"{longest} slices in a row; --images N says how many images the log covers"
            yield "tiling", "split", line, why


def hear(lines: Iterable[LogLine], pid: int | None = None) -> tuple[Heard, list[int]]:
    """What the last process that loaded a model said, or the one of `pid`; and the others' pids.
    Raises AuditError where no line is llama.cpp's."""
    heard: dict[int | None, Heard] = {}
    for line in lines:
        heard.setdefault(line.pid, Heard(line.pid)).take(line)
    loaded = [one for one in heard.values() if one.said.keys() & _LOADS]
    chosen = [one for one in loaded if pid is None or one.pid == pid]
    if not chosen:
        where = "the log" if pid is None else f"what process {pid} wrote into the log"
        raise AuditError(
            f"{where} holds no line in which llama.cpp loads a model; the app must hand on the "
            "log of llama.cpp (llama_log_set, mtmd_log_set), and load its model while it is kept"
        )
    last = chosen[-1]
    return last, [one.pid for one in loaded if one.pid is not None and one is not last]


def _square(said: str) -> int | None:
    sides = values.sides(said)
    return sides[0] if len(set(sides)) == 1 else None


def _weight_type(said: str) -> str:
    """`Q4_K - Medium` as driftloop and llama.cpp's quantizer write it, q4_k_m."""
    name = said.lower().removeprefix("(guessed) ")
    for words, letters in _TYPE_WORDS:
        name = name.replace(words, letters)
    return name


_READ: Final[Mapping[str, Callable[[str], Value | None]]] = {
    "whole": int,
    "text": str,
    "side": _square,
    "weight type": _weight_type,
    # `auto` is no value: what came of it is a line of its own.
    "truth": values.truth,
    "no": lambda said: False,
}
"""How a fact is read as a value of the contract, by the table's word for it."""
