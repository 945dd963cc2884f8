"""An app's source tree: its files, parsed once each and only as far as something asks for them."""

from __future__ import annotations

import itertools
import os
import re
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from driftloop.devices import files
from driftloop.harness.audit.app import grammar
from driftloop.harness.audit.app.grammar import Fact, Node
from driftloop.harness.errors import BadInput
from driftloop.harness.shipped import shipped

SECONDS: Final = 8.0
"""CPU time, so that a busy machine reads as much; then the scan stops and says how far it came."""
FILE_SECONDS: Final = 1.5
"""CPU time after which one file is given up."""
PARSE_ALL: Final = 3_000_000
"""Bytes of source up to which every file is parsed, so that all that does not parse is listed."""
_LARGEST: Final = 1_000_000
"""Bytes of one file. What is larger is generated or vendored."""
_MOST_FILES: Final = 20_000
_DEEPEST_CODE: Final = 400
"""Brackets inside one another."""
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"()[]{}"))
_EVERYWHERE: Final = 60
"""A name that occurs in this many files leads nowhere."""
_WRITTEN: Final = shipped("driftloop.harness.audit.app", "source.toml")
LANGUAGES: Final[dict[str, str]] = {
    suffix: name for name, one in _WRITTEN["languages"].items() for suffix in one["suffixes"]
}


@dataclass(eq=False)
class File:
    """One file of the app."""

    name: str
    """Below the app's folder."""
    language: str
    content: bytes = field(repr=False)
    notes: list[str] = field(default_factory=list)
    """What is wrong with it, in words."""

    def line(self, node: Node) -> int:
        """The line, from 1, that `node` begins on; of a call in a chain, the one with its name."""
        if node.type == "call_expression":
            return int(node.children[0].end_point[0]) + 1
        named = node.child_by_field_name("name") if node.type == "method_invocation" else None
        return int((named or node).start_point[0]) + 1

    @cached_property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    @cached_property
    def words(self) -> frozenset[bytes]:
        return frozenset(re.findall(rb"\w+", self.content))

    @cached_property
    def lowered(self) -> str:
        return self.text.lower()

    @cached_property
    def lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def facts(self) -> dict[str, list[Fact]]:
        """What the file says, by the name it says it of."""
        found: defaultdict[str, list[Fact]] = defaultdict(list)
        for one in self.parsed:
            found[one.name].append(one)
        return found

    @cached_property
    def functions(self) -> list[Fact]:
        return [one for one in self.parsed if one.kind == "function"]

    def function_at(self, node: Node) -> Fact | None:
        """The innermost function around `node`."""
        before = bisect_right(self.functions, node.start_byte, key=lambda one: one.node.start_byte)
        around = (self.functions[at] for at in range(before - 1, -1, -1))
        return next((one for one in around if one.holds(node)), None)

    @cached_property
    def parsed(self) -> list[Fact]:
        known = _WRITTEN["languages"][self.language]
        content, count = re.subn(known.get("blanked", "(?!)").encode(), _blanked, self.content)
        if count and "said" in known:
            self.notes.append(known["said"])
        # Comments and texts may hold anything; they are only gone through where that decides.
        if _depth(content) > _DEEPEST_CODE and _depth(_bare(content)) > _DEEPEST_CODE:
            self.notes.append("nested too deeply: not read")
            return []
        found = list(grammar.facts(content, self.language))
        told = {one.name for one in found if one.kind in ("function", "class")}
        lost = _declared(known, content) - told
        lost = lost and _declared(known, _bare(content)) - told
        error = next((one for one in found if one.kind == "error"), None)
        if lost:
            self.notes.append(f"{min(lost)} is lost in parsing: the file is read only in part")
        elif error is not None:
            line = self.line(error.node)
            self.notes.append(f"line {line} cannot be parsed: what is near it may be missed")
        return found


class Source:
    """All files of the app. Raises BadInput where the folder holds no Kotlin, Java or C++."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            said = "no such folder; --app-source takes the folder of the app's source"
            raise BadInput(f"{folder}: {said}")
        self.deadline = time.process_time() + SECONDS
        self.files: list[File] = []
        self.left_out: list[str] = []
        """One line for each file or folder that is not read, and why."""
        self.is_whole = True
        """Nothing was left out for time or number."""
        self._by_name: dict[str, list[File]] = {}
        for count, path in enumerate(_walked(folder)):
            if count >= _MOST_FILES or self.is_late:
                self.stop(f"only {count:,} files of the folder were read")
                break
            name = path.relative_to(folder).as_posix()
            if isinstance(read := _read(path), str):
                self.left_out.append(f"{name}: {read}")
            elif read:
                self.files.append(File(name, LANGUAGES[path.suffix.lower()], read))
        if not self.files and not self.left_out:
            said = "no Kotlin, Java or C++ file in it"
            raise BadInput(f"{folder}: {said}; point --app-source at the app's source")

    @property
    def is_late(self) -> bool:
        return time.process_time() > self.deadline

    def stop(self, why: str) -> None:
        """The scan ends before the source does."""
        self.is_whole = False
        self.left_out.append(f"{why}; point --app-source at the app's own modules")

    def naming(self, name: str) -> list[File]:
        """The files in which `name` occurs as a word; none where that is everywhere."""
        if name not in self._by_name and not self.is_late:
            word = name.encode()
            found = (one for one in self.files if word in one.content and word in one.words)
            first = list(itertools.islice(found, _EVERYWHERE))
            self._by_name[name] = first if len(first) < _EVERYWHERE else []
        return self._by_name.get(name, [])


def _read(path: Path) -> bytes | str:
    try:
        content = files.read(path, _LARGEST)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if b"\0" in content:
        return "binary: not read"
    is_generated = re.search(_WRITTEN["generated"].encode(), content[:1000])
    return "generated code: not read" if is_generated else content


def _walked(folder: Path) -> Iterator[Path]:
    """The app's files in order: without tests, build outputs, and a llama.cpp checkout in it (but
    with its Android example, which apps are grown from)."""
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        if (here / "ggml/include").is_dir() or (here / "src/llama.cpp").is_file():
            folders.clear()
            yield from _walked(here / "examples/llama.android")
            continue
        if "ggml.h" in names:
            folders[:] = [one for one in folders if not re.match(_WRITTEN["engine_folders"], one)]
            names = [one for one in names if not re.match(_WRITTEN["engine_files"], one)]
        folders[:] = sorted(one for one in folders if not re.match(_WRITTEN["not_the_app"], one))
        paths = (here / name for name in sorted(names) if Path(name).suffix.lower() in LANGUAGES)
        yield from (path for path in paths if not path.is_symlink())


def _depth(content: bytes) -> int:
    steps = (1 if bracket in b"([{" else -1 for bracket in content.translate(None, _NO_BRACKETS))
    return max(itertools.accumulate(steps), default=0)


def _declared(known: dict[str, str], content: bytes) -> set[str]:
    found = re.finditer(known["declared"].encode(), content)
    return {one[one.lastindex or 0].decode() for one in found}


def _bare(content: bytes) -> bytes:
    """Without what stands in comments and texts."""
    return re.sub(_WRITTEN["comment_or_text"].encode(), _blanked, content)


def _blanked(match: re.Match[bytes]) -> bytes:
    """Spaces in place of what is found, or of its group `out`; every line stays where it was."""
    start, end = match.span("out") if "out" in match.re.groupindex else match.span()
    spaces = re.sub(rb"[^\n]", b" ", match.string[start:end])
    return match.string[match.start() : start] + spaces + match.string[end : match.end()]
