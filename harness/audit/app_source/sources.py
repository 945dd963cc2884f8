"""The files of an app's source folder: what is read, and what is none of the app's."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from harness.audit.app_source.language import cpp, java, kotlin
from harness.audit.app_source.language.tree import Unit
from harness.errors import BadInput

_NATIVE = {".cpp", ".cc", ".cxx", ".c++", ".h", ".hpp", ".hh", ".hxx", ".inl"}
_TESTS = re.compile(r"^(tests?|androidtest\w*|sharedtest|unittests?|benchmarks?|\w+Test)$", re.I)
_BUILT = {"build", "node_modules", "out", "bin", "obj", "Pods"}
_ENGINE_EXAMPLE = "llama.android"
_ENGINE_FILE = re.compile(
    r"(ggml|gguf|llama|mtmd|clip|unicode|sampling|common|chat|json|log|arg|regex|speculative)"
)
"""llama.cpp's own files where an app keeps them beside its own."""
_LARGEST = 2_000_000
"""Bytes. A larger file is generated or vendored, and no person wrote an app into it."""

_BUILD_FIELD = re.compile(
    r'buildConfigField\s*\(?\s*"(\w+)"\s*,\s*"(\w+)"\s*,\s*(?:"((?:[^"\\]|\\.)*)"|\'([^\']*)\')'
)


@dataclass
class Sources:
    """What was read of the folder."""

    units: dict[str, Unit] = field(default_factory=dict)
    strings: dict[str, str] = field(default_factory=dict)
    """String resources by name."""
    build_fields: dict[str, str] = field(default_factory=dict)
    """`BuildConfig`'s fields by name, as the build file spells their values."""
    jvm: int = 0
    """How many of the files are Kotlin or Java."""
    unread: list[str] = field(default_factory=list)
    """Files nested too deeply to be read."""


def load(folder: Path) -> Sources:
    """Every Kotlin, Java, C and C++ file of the app under `folder`.

    Left out: test source sets, build outputs, and a llama.cpp checkout inside the app (but not
    its Android example, which apps are grown from).

    Raises:
        BadInput: no such folder, or no such file in it.
        ArmUnavailable: the grammars are not installed.
    """
    if not folder.is_dir():
        raise BadInput(
            f"{folder}: no such folder; --app-source takes the folder of the app's source"
        )
    sources = Sources()
    for path in _files(folder):
        _read(sources, path, path.relative_to(folder).as_posix())
    if not sources.units and not sources.unread:
        raise BadInput(
            f"{folder}: no Kotlin, Java or C++ file in it; "
            "point --app-source at the folder with the app's source"
        )
    return sources


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    checkout, flat = _is_checkout(folder), (folder / "ggml.h").is_file()
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith("."):
            continue
        if path.is_dir():
            ours = not flat and not (checkout and path.name != "examples")
            if folder.name == "examples" and _is_checkout(folder.parent):
                ours = path.name == _ENGINE_EXAMPLE
            if ours and not _TESTS.match(path.name) and path.name not in _BUILT:
                found += _files(path)
        elif not checkout and not (flat and _ENGINE_FILE.match(path.name)):
            found += [path] if path.is_file() and path.stat().st_size <= _LARGEST else []
    return found


def _is_checkout(folder: Path) -> bool:
    """A checkout of llama.cpp, and not the app."""
    return (folder / "ggml" / "include").is_dir() or (folder / "src" / "llama.cpp").is_file()


def _read(sources: Sources, path: Path, name: str) -> None:
    suffix = path.suffix.lower()
    if suffix in (".kt", ".java"):
        front = kotlin.unit if suffix == ".kt" else java.unit
        _lowered(sources, name, lambda: front(name, path.read_bytes()))
        sources.jvm += 1
    elif suffix in _NATIVE or suffix == ".c":
        grammar = "c" if suffix == ".c" else "cpp"
        _lowered(sources, name, lambda: cpp.unit(name, path.read_bytes(), grammar))
    elif suffix == ".xml" and path.parent.name == "values":
        reader = _Strings()
        reader.feed(path.read_text("utf-8", "replace"))
        sources.strings |= reader.found
    elif path.name in ("build.gradle", "build.gradle.kts"):
        text = re.sub(r"^\s*//.*$", "", path.read_text("utf-8", "replace"), flags=re.M)
        for _, label, double, single in _BUILD_FIELD.findall(text):
            sources.build_fields[label] = (double or single).replace('\\"', '"')


def _lowered(sources: Sources, name: str, front: Callable[[], Unit]) -> None:
    try:
        sources.units[name] = front()
    except RecursionError:
        sources.unread.append(name)


class _Strings(HTMLParser):
    """`<string name="x">text</string>` of a resource file."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[str, str] = {}
        self._name: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "string":
            self._name = dict(attrs).get("name")
            if self._name:
                self.found[self._name] = ""

    def handle_data(self, data: str) -> None:
        if self._name:
            self.found[self._name] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "string" and self._name:
            raw = self.found[self._name].strip()
            if raw.startswith('"') and raw.endswith('"') and len(raw) > 1:
                raw = raw[1:-1]
            else:
                raw = re.sub(r"\s+", " ", raw)
            self.found[self._name] = re.sub(
                r"\\(.)", lambda m: {"n": "\n", "t": "\t"}.get(m.group(1), m.group(1)), raw
            )
            self._name = None
