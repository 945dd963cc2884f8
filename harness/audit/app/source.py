"""An app's source tree: its files, parsed once each and only as far as something asks for them."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from driftloop.devices import files
from driftloop.harness.audit.app import grammar
from driftloop.harness.audit.app.grammar import Fact
from driftloop.harness.errors import BadInput
from driftloop.harness.shipped import shipped

if TYPE_CHECKING:
    from tree_sitter import Node

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
    deadline: float
    notes: list[str] = field(default_factory=list)
    """What is wrong with it, in words."""

    def line(self, node: Node) -> int:
        """The line that `node` begins on, from 1; of a call, the one with what is called, which
        in a chain of calls is not the first."""
        if node.type == "call_expression":
            return int(node.children[0].end_point[0]) + 1
        named = node.child_by_field_name("name") if node.type == "method_invocation" else None
        return int((named or node).start_point[0]) + 1

    def quoted(self, line: int) -> str:
        """That line as it stands, without white space around it."""
        return self._lines[line - 1].strip() if 0 < line <= len(self._lines) else ""

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.content.decode("utf-8", "replace")

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def facts(self) -> dict[str, list[Fact]]:
        """What the file says, by the name it says it of."""
        found: defaultdict[str, list[Fact]] = defaultdict(list)
        for one in self._parsed:
            found[one.name].append(one)
        return found

    @cached_property
    def functions(self) -> list[Fact]:
        """Every function."""
        return [one for one in self._parsed if one.kind == "function"]

    def function_at(self, node: Node) -> Fact | None:
        """The innermost function around `node`."""
        start = node.start_byte
        around = [one for one in self.functions if one.span[0] <= start < one.span[1]]
        return around[-1] if around else None

    @cached_property
    def _parsed(self) -> list[Fact]:
        known = _WRITTEN["languages"][self.language]
        content, count = re.subn(known["blanked"].encode(), _blanked, self.content)
        if count and "said" in known:
            self.notes.append(known["said"])
        code = re.sub(_WRITTEN["comment_or_text"].encode(), _blanked, content)
        brackets = (1 if bracket in b"([{" else -1 for bracket in re.findall(rb"[()\[\]{}]", code))
        if max(itertools.accumulate(brackets), default=0) > _DEEPEST_CODE:
            self.notes.append("nested too deeply: not read")
            return []
        until = min(self.deadline, time.process_time() + FILE_SECONDS)
        found: list[Fact] = []
        for one in grammar.facts(content, self.language):
            if time.process_time() > until:
                self.notes.append("takes too long to parse: not read")
                return []
            found.append(one)
        told = {one.name for one in found if one.kind in ("function", "class")}
        named = re.finditer(known["declared"].encode(), code)
        lost = sorted({one[one.lastindex or 0].decode() for one in named} - told)
        error = next((one for one in found if one.kind == "error"), None)
        if lost:
            self.notes.append(f"{lost[0]} vanishes in parsing: not all is read")
        elif error is not None:
            line = self.line(error.node)
            self.notes.append(f"line {line} does not parse: what stands near it may be missed")
        return found


class Source:
    """All files of the app. Raises BadInput where there is no such folder, or no Kotlin, Java, C or
    C++ in it, and ArmUnavailable where the grammars are not installed."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            said = "no such folder; --app-source takes the folder of the app's source"
            raise BadInput(f"{folder}: {said}")
        grammar.language("kotlin")
        self.deadline = time.process_time() + SECONDS
        self.files: list[File] = []
        self.left_out: list[str] = []
        """One line for each file or folder that is not read, and why."""
        self.is_whole = True
        """Nothing was left out for time or number."""
        self._by_name: dict[str, list[File]] = {}
        for count, path in enumerate(_walked(folder)):
            if count >= _MOST_FILES or self.is_late:
                self.stop(f"the folder is not read to its end: stopped after {count:,} files")
                break
            name = path.relative_to(folder).as_posix()
            if isinstance(read := _read(path), str):
                self.left_out.append(f"{name}: {read}")
            elif read:
                language = LANGUAGES[path.suffix.lower()]
                self.files.append(File(name, language, read, self.deadline))
        if not self.files and not self.left_out:
            said = "no Kotlin, Java or C++ file in it"
            raise BadInput(f"{folder}: {said}; point --app-source at the app's source")

    @property
    def is_late(self) -> bool:
        """The time for the scan has passed."""
        return time.process_time() > self.deadline

    def stop(self, why: str) -> None:
        """The scan ends before the source does."""
        self.is_whole = False
        self.left_out.append(f"{why}; point --app-source at the app's own modules")

    def naming(self, name: str) -> list[File]:
        """The files in which `name` occurs as a word; none where that is everywhere."""
        if self.is_late:
            return []
        if name not in self._by_name:
            written = name.encode()
            word = re.compile(rb"\b" + re.escape(written) + rb"\b")
            found = (
                one for one in self.files if written in one.content and word.search(one.content)
            )
            first = list(itertools.islice(found, _EVERYWHERE))
            self._by_name[name] = first if len(first) < _EVERYWHERE else []
        return self._by_name[name]

    def notes(self) -> list[str]:
        """What was left out, then what is wrong with a file that was read; one line each."""
        wrong = (f"{file.name}: {note}" for file in self.files for note in file.notes)
        return [*self.left_out, *wrong]


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


def _blanked(match: re.Match[bytes]) -> bytes:
    """Spaces in place of what is found, or of its group `out`; every line stays where it was."""
    start, end = match.span("out") if "out" in match.re.groupindex else match.span()
    spaces = re.sub(rb"[^\n]", b" ", match.string[start:end])
    return match.string[match.start() : start] + spaces + match.string[end : match.end()]
