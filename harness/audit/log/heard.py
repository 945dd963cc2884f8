"""What a log tells: aspects of the contract, and what else is worth knowing of a load."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from statistics import median
from typing import Final

from harness.audit.aspects import APP_THREADS
from harness.audit.findings import Finding, Quote, Value
from harness.audit.log.logcat import LogLine
from harness.contract import Contract
from harness.errors import AuditError

_SLICE: Final = re.compile(r"image(?: or| |/)slice|image slice|decoding image batch|image decoded")
"""What libmtmd says from the beginning of a slice to its end."""
_TYPE_WORDS: Final = ((" - medium", "_m"), (" - small", "_s"), (" - large", "_l"), ("mostly ", ""))
_TITLES: Final = {
    "text_file": "text model",
    "text_name": "text model's name",
    "text_mib": "text model, MiB",
    "text_tensors": "text model's tensors",
    "mmproj_file": "mmproj",
    "mmproj_name": "mmproj's name",
    "mmproj_mib": "mmproj, MiB",
    "mmproj_tensors": "mmproj's weights",
    "vision_image_size": "a tile's side, pixels",
    "ubatch": "physical batch",
    "cores": "cores",
    "gpu": "GPU",
    "offloaded": "layers on the GPU",
    "vision_backend": "vision runs on",
    "slice_tokens": "image tokens a slice",
    "slice_ms": "encode, ms a slice (median)",
    "prompt_tokens": "prompt tokens",
    "prompt_ms": "prefill, ms (median)",
    "token_ms": "decode, ms a token (median)",
    "prompt_ids": "prompt ids",
}
"""What the contract does not fix, in the order it is shown."""
_MEASURED: Final = frozenset({"slice_ms", "prompt_ms", "token_ms"})


@dataclass(frozen=True)
class Fact:
    """One thing a log tells that no contract fixes."""

    key: str
    title: str
    value: str
    line: LogLine


@dataclass(frozen=True)
class _Said:
    """A value, and the line that says it."""

    value: Value
    line: LogLine
    why: str = ""


@dataclass
class Heard:
    """What one process said of its models."""

    pid: int | None
    said: dict[str, dict[str, LogLine]] = field(default_factory=lambda: defaultdict(dict))
    """By what is told, each value with the first line that says it."""
    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    runs: list[tuple[int, LogLine]] = field(default_factory=list)
    """How many slices were encoded in a row, nothing else being said between them."""
    _is_in_run: bool = False

    def take(self, line: LogLine) -> None:
        """Hear one more line."""
        for tells, pattern in _patterns():
            if (found := pattern.search(line.text)) is None:
                continue
            value = " ".join(found["value"].split())
            self.said[tells].setdefault(value, line)
            if tells in _MEASURED:
                self.measured[tells].append(float(value))
            if tells == "slice" and self._is_in_run:
                self.runs[-1] = (self.runs[-1][0] + 1, self.runs[-1][1])
            elif tells == "slice":
                self.runs.append((1, line))
        self._is_in_run = bool(self.runs) and _SLICE.search(line.text) is not None

    def facts(self) -> Iterator[Fact]:
        """What no contract fixes."""
        for key, title in _TITLES.items():
            if not (values := self.said.get(key)):
                continue
            shown = ", ".join(values)
            if key in _MEASURED:
                shown = f"{median(self.measured[key]):g}"
            yield Fact(key, title, shown, next(iter(values.values())))

    def findings(self, contract: Contract, images: int | None, name: str) -> Iterator[Finding]:
        """The aspects of a contract, each with the lines that say it.

        `images`: how many were classified; without it, slices of one image cannot always be told
        from single tiles of several. `name`: the log, as in `name:LINE`.
        """
        readers: Mapping[str, Iterable[_Said]] = {
            "image_size": self._values("image_size", _square),
            "max_tokens": self._values("max_tokens", int),
            "tiling": self._tiling(images),
            "context": self._values("context", int),
            "prompt_fits": self._values("prompt_fits", lambda said: False),
            "batch": self._values("batch", int),
            "cache_type_k": self._values("cache_type_k", str),
            "cache_type_v": self._values("cache_type_v", str),
            "flash_attention": self._values("flash_attention", _is_on),
            "threads": self._threads(contract),
            "backend": self._backend(),
            "weights": self._values("weights", _weight_type),
        }
        for aspect, found in readers.items():
            said = list(found)
            if not said:
                continue
            quotes = tuple(
                Quote(one.value, f"{name}:{one.line.number}", one.line.text, one.why)
                for one in said
            )
            values = {one.value for one in said}
            is_sure = len(values) == 1 and not said[0].why
            note = said[0].line.text if is_sure else said[0].why or "the log says several"
            value = said[0].value if is_sure else None
            yield Finding(aspect, "log", value, quotes[0].where, note, quotes=quotes)

    def _values(self, key: str, read: Callable[[str], Value | None]) -> Iterator[_Said]:
        for said, line in self.said.get(key, {}).items():
            if (value := read(said)) is not None:
                yield _Said(value, line)

    def _threads(self, contract: Contract) -> Iterator[_Said]:
        runtime = contract.runtime
        cores = next((int(one) for one in self.said.get("cores", ())), None)
        for said, line in self.said.get("threads", {}).items():
            if runtime.threads:
                yield _Said(int(said), line)
            elif cores is not None:
                is_rule = int(said) == runtime.threads_on(cores)
                yield _Said(APP_THREADS if is_rule else int(said), line)

    def _backend(self) -> Iterator[_Said]:
        """Where the weights lie is where they are computed; a GPU's host buffers hold what is
        looked up on the CPU."""
        buffers = {
            name: line for name, line in self.said.get("buffer", {}).items() if "_Host" not in name
        }
        on_gpu = {name: line for name, line in buffers.items() if not name.startswith("CPU")}
        for name, line in on_gpu.items():
            yield _Said(re.sub(r"\d+$", "", name).lower(), line)
        if buffers and not on_gpu:
            wanted = self.said.get("gpu_wanted", {})
            line = next(iter(wanted.values()), next(iter(buffers.values())))
            yield _Said("cpu, where a GPU was wanted" if wanted else "cpu", line)

    def _tiling(self, images: int | None) -> Iterator[_Said]:
        for line in self.said.get("grid", {}).values():
            yield _Said("split", line)
        slices = sum(count for count, _ in self.runs)
        if not slices or "grid" in self.said:
            return
        longest, line = max(self.runs, key=lambda run: run[0])
        if images is not None:
            yield _Said("single" if slices == images else "split", line)
        elif longest == 1:
            yield _Said("single", line)
        else:
            why = f"{longest} slices in a row; --images N says of how many images the log is"
            yield _Said("split", line, why)


def hear(lines: Iterable[LogLine], pid: int | None = None) -> tuple[Heard, list[int]]:
    """What the last process that loaded a model said, or the one of `pid`; and the others' pids.

    Raises:
        AuditError: nothing that llama.cpp says is in it.
    """
    heard: dict[int | None, Heard] = {}
    for line in lines:
        heard.setdefault(line.pid, Heard(line.pid)).take(line)
    loaded = [one for one in heard.values() if one.said.keys() & {"text_file", "context", "buffer"}]
    chosen = [one for one in loaded if pid is None or one.pid == pid]
    if not chosen:
        where = "the log" if pid is None else f"what process {pid} wrote into the log"
        raise AuditError(
            f"{where} holds no line in which llama.cpp loads a model; the app must hand on the "
            "log of llama.cpp (llama_log_set, mtmd_log_set), and load its model while it is kept"
        )
    last = chosen[-1]
    return last, [one.pid for one in loaded if one.pid is not None and one is not last]


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    table = tomllib.loads((resources.files(__package__) / "lines.toml").read_text("utf-8"))
    return tuple((row["tells"], re.compile(row["pattern"])) for row in table["lines"])


def _is_on(said: str) -> bool | None:
    """None for `auto`: what came of it is a line of its own."""
    return {"1": True, "enabled": True, "0": False, "disabled": False}.get(said)


def _square(said: str) -> int | None:
    width, height = (int(side) for side in said.split(" x "))
    return width if width == height else None


def _weight_type(said: str) -> str:
    """`Q4_K - Medium` as driftloop and llama.cpp's quantizer write it, q4_k_m."""
    name = said.lower().removeprefix("(guessed) ")
    for words, letters in _TYPE_WORDS:
        name = name.replace(words, letters)
    return name
