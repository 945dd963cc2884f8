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

from harness.audit.app import grammar
from harness.audit.app.grammar import Fact, Function
from harness.errors import BadInput

if TYPE_CHECKING:
    from tree_sitter import Node

LARGEST: Final = 1_000_000
"""Bytes of one file. What is larger is generated or vendored."""
MOST_FILES: Final = 20_000
DEEPEST: Final = 40
"""Folders inside one another."""
SECONDS: Final = 8.0
"""After so long the scan stops and says how far it came."""
DEEPEST_CODE: Final = 400
"""Brackets inside one another."""
FILE_SECONDS: Final = 1.5
"""After so long one file is given up."""
PARSE_ALL: Final = 3_000_000
"""Bytes of source up to which every file is parsed, so that all that does not parse is listed."""

_EVERYWHERE: Final = 60
"""A name in so many files leads nowhere."""
_LANGUAGES: Final = {".kt": "kotlin", ".java": "java", ".c": "cpp"} | dict.fromkeys(
    (".cpp", ".cc", ".cxx", ".c++", ".h", ".hpp", ".hh", ".hxx", ".inl"), "cpp"
)
_NOT_THE_APP: Final = re.compile(
    r"(tests?|androidtest\w*|sharedtest|unittests?|benchmarks?|\w+Test|build|node_modules|out|bin"
    r"|obj|Pods)$",
    re.I,
)
_ENGINE_FILE: Final = re.compile(
    r"(ggml|gguf|llama|mtmd|clip|unicode|sampling|common|chat|json|log|arg|regex|speculative)"
)
"""llama.cpp's own files where an app keeps them beside its own."""
_GENERATED: Final = re.compile(
    rb"@generated|auto-?generated|generated (?:by|from|code)|do not (?:edit|modify)", re.I
)
_DELEGATED: Final = re.compile(
    rb"(\bclass\s+\w[^{}=;]{0,1000}?[:,]\s*[\w.<>?]+)"
    rb"(\s+by\s+[\w.]+\s*\([^(){}]*\))"
    rb"(?=\s*(?:,[^{}=;]{0,1000})?\{)"
)
_IF_ZERO: Final = re.compile(
    rb"^[ \t]*#\s*if\s+0\b(?s:.{0,20000}?)^[ \t]*#\s*(?:endif|else)\b", re.M
)
_JNI_MACRO: Final = re.compile(rb"\bJNI(?:EXPORT|CALL)\b")
_COMMENT_OR_TEXT: Final = re.compile(
    rb'/\*.*?\*/|//[^\n]*|"""(?s:.)*?"""|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S
)
_DECLARED: Final = {
    "kotlin": re.compile(
        rb"\b(?:class|interface|object)\s+(\w+)"
        rb"|\bfun\s+(?:<[^>(]*>\s*)?(?:[\w.<>?*, ]+\.)?(\w+)\s*\("
    ),
    "java": re.compile(rb"\b(?:class|interface|enum)\s+(\w+)"),
    "cpp": re.compile(rb"\b(Java_\w+)\s*\([^;{}]*\)\s*\{"),
}


@dataclass
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
        """The line that `node` begins on, from 1."""
        return int(node.start_point[0]) + 1

    def quoted(self, line: int) -> str:
        """That line as it stands, without white space around it."""
        lines = self._lines
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""

    @cached_property
    def _lines(self) -> list[str]:
        return self.content.decode("utf-8", "replace").split("\n")

    @cached_property
    def facts(self) -> dict[str, list[Fact]]:
        """What the file says, by the name it says it of."""
        found: defaultdict[str, list[Fact]] = defaultdict(list)
        for fact in self._parsed[0]:
            found[fact.name].append(fact)
        return found

    @property
    def functions(self) -> list[Function]:
        """Every function with its parameters."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[list[Fact], list[Function]]:
        content = self.content
        if time.monotonic() > self.deadline:
            return [], []
        if self.language == "cpp":
            # JNI's macros stand where the grammar expects a type.
            content = _IF_ZERO.sub(lambda match: _blank(match.group()), content)
            content = _JNI_MACRO.sub(lambda match: _blank(match.group()), content)
        elif self.language == "kotlin":
            content = self._undelegated(content)
        code = _COMMENT_OR_TEXT.sub(lambda match: _blank(match.group()), content)
        if grammar.nesting(code) > DEEPEST_CODE:
            self.notes.append("nested too deeply: not read")
            return [], []
        until = min(self.deadline, time.monotonic() + FILE_SECONDS)
        tree = grammar.parse(content, self.language)
        found = grammar.facts(tree.root_node, content, self.language, until)
        if found is None:
            if time.monotonic() < self.deadline:
                self.notes.append("takes too long to parse: not read")
            return [], []
        facts, functions, declared = found
        named = _DECLARED[self.language].finditer(code)
        wanted = {name for match in named for name in match.groups() if name}
        if lost := sorted(wanted - declared):
            names = ", ".join(name.decode("utf-8", "replace") for name in lost[:3])
            said = "vanishes" if len(lost) == 1 else "vanish"
            self.notes.append(f"{names} {said} in parsing: not all is read")
        elif tree.root_node.has_error and (line := grammar.first_error(tree.root_node)):
            self.notes.append(f"line {line} does not parse: what stands near it may be missed")
        return facts, functions

    def _undelegated(self, content: bytes) -> bytes:
        """`class A : B by c() { }` without its delegation: the grammar takes the body for c's."""
        blanked, count = _DELEGATED.subn(
            lambda match: match.group(1) + _blank(match.group(2)), content
        )
        if count:
            self.notes.append(
                "a class header delegates by a call; it is read without the delegation"
            )
        return blanked

    def function_at(self, node: Node) -> Function | None:
        """The innermost function around `node`."""
        around = [f for f in self.functions if f.start <= node.start_byte < f.end]
        return max(around, key=lambda function: function.start, default=None)


class Source:
    """All files of the app.

    Raises:
        BadInput: no such folder, or no Kotlin, Java, C or C++ in it.
        ArmUnavailable: the grammars are not installed.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BadInput(
                f"{folder}: no such folder; --app-source takes the folder of the app's source"
            )
        grammar.check_installed()
        self.folder = folder
        self.deadline = time.monotonic() + SECONDS
        self.files: list[File] = []
        self.left_out: list[str] = []
        """One line for each file or folder that is not read, and why."""
        self._by_name: dict[str, list[File]] = {}
        self._load()
        if not self.files and not self.left_out:
            raise BadInput(
                f"{folder}: no Kotlin, Java or C++ file in it; "
                "point --app-source at the folder with the app's source"
            )

    @property
    def is_small(self) -> bool:
        """So little source that all of it is parsed."""
        return sum(len(file.content) for file in self.files) <= PARSE_ALL

    @property
    def is_late(self) -> bool:
        """The time for the scan has passed."""
        return time.monotonic() > self.deadline

    @property
    def is_whole(self) -> bool:
        """Nothing was left out for time or number."""
        return not self._stopped and not self.is_late

    def naming(self, name: str) -> list[File]:
        """The files in which `name` occurs as a word; none where that is everywhere."""
        if self.is_late:
            return []
        if name not in self._by_name:
            word = re.compile(rb"\b" + re.escape(name.encode()) + rb"\b")
            found = (
                file
                for file in self.files
                if name.encode() in file.content and word.search(file.content)
            )
            first = list(itertools.islice(found, _EVERYWHERE))
            self._by_name[name] = first if len(first) < _EVERYWHERE else []
        return self._by_name[name]

    def stop(self) -> None:
        """The scan ends before the source does."""
        self._stopped = True
        self.left_out.append(
            f"the scan stopped after {SECONDS:g} s; point --app-source at the app's own modules"
        )

    def notes(self) -> list[str]:
        """What was left out, then what is wrong with a file that was read; one line each."""
        return self.left_out + [
            f"{file.name}: {note}" for file in self.files for note in file.notes
        ]

    def _load(self) -> None:
        self._stopped = False
        for count, path in enumerate(_walked(self.folder)):
            if count >= MOST_FILES or self.is_late:
                why = f"{SECONDS:g} s" if self.is_late else f"{MOST_FILES:,} files"
                self.left_out.append(
                    f"the folder is not read to its end: stopped after {why} ({count:,} files); "
                    "point --app-source at the app's own modules"
                )
                self._stopped = True
                return
            self._read(path)

    def _read(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        try:
            size = path.stat().st_size
            if size > LARGEST:
                self.left_out.append(
                    f"{name}: {size / 1e6:.1f} MB, larger than {LARGEST / 1e6:.0f} MB: not read"
                )
                return
            content = path.read_bytes()
        except OSError as error:
            self.left_out.append(f"{name}: cannot be read ({error.strerror})")
            return
        if b"\0" in content:
            self.left_out.append(f"{name}: binary: not read")
        elif _GENERATED.search(content[:1000]):
            self.left_out.append(f"{name}: generated code: not read")
        elif content:
            language = _LANGUAGES[path.suffix.lower()]
            self.files.append(File(name, language, content, self.deadline))


def _walked(folder: Path) -> Iterator[Path]:
    """The app's files in order: without tests, build outputs, and a llama.cpp checkout in it (but
    with its Android example, which apps are grown from)."""
    depth = len(folder.parts)
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        flat = "ggml.h" in names
        checkout = _is_checkout(here)
        keep = []
        for name in sorted(folders):
            ours = not name.startswith(".") and not _NOT_THE_APP.match(name) and not flat
            if checkout:
                ours = name == "examples"
            elif here.name == "examples" and _is_checkout(here.parent):
                ours = name == "llama.android"
            if ours and len(here.parts) - depth < DEEPEST and not (here / name).is_symlink():
                keep.append(name)
        folders[:] = keep
        for name in sorted(names):
            path = here / name
            ours = not checkout and not (flat and _ENGINE_FILE.match(name))
            if ours and path.suffix.lower() in _LANGUAGES and not path.is_symlink():
                yield path


def _is_checkout(folder: Path) -> bool:
    return (folder / "ggml" / "include").is_dir() or (folder / "src" / "llama.cpp").is_file()


def _blank(text: bytes) -> bytes:
    """Spaces in the place of `text`, its lines kept, so that every place stays what it was."""
    return re.sub(rb"[^\n]", b" ", text)
