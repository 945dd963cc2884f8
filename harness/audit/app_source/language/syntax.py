"""Bytes to a grammar's syntax tree, and what is read of its nodes."""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.errors import ArmUnavailable

if TYPE_CHECKING:
    from tree_sitter import Node as Syntax

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "0": "\0", "s": " ", "\n": ""}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{1,2}|.|\n)", re.DOTALL)


@cache
def _parser(grammar: str) -> Any:  # noqa: ANN401  (the class is known only where the extra is)
    try:
        tree_sitter = importlib.import_module("tree_sitter")
        language = importlib.import_module(f"tree_sitter_{grammar}").language()
    except ImportError as error:
        raise ArmUnavailable(
            f"reading an app's source needs the package {error.name}; "
            "install it with: pip install 'driftloop[audit]'"
        ) from None
    return tree_sitter.Parser(tree_sitter.Language(language))


def parse(grammar: str, source: bytes) -> Syntax:
    """The syntax tree of `source`; what is not understood stands in it as ERROR nodes.

    Raises:
        ArmUnavailable: the grammar's package is not installed.
    """
    root: Syntax = _parser(grammar).parse(source).root_node
    return root


def text(node: Syntax | None) -> str:
    """The source text of `node`."""
    return node.text.decode("utf-8", "replace") if node is not None and node.text else ""


def unescaped(raw: str) -> str:
    """A string literal's characters with its escapes resolved."""

    def one(match: re.Match[str]) -> str:
        body = match.group(1)
        if body[0] in "ux" and len(body) > 1:
            return chr(int(body[1:], 16))
        return _ESCAPES.get(body, body)

    return _ESCAPE.sub(one, raw)


def named(node: Syntax) -> list[Syntax]:
    """Its named children without comments: what was commented out never counts."""
    return [child for child in node.named_children if "comment" not in child.type]


def first(node: Syntax, *types: str) -> Syntax | None:
    """The first child of one of those types."""
    return next((child for child in node.children if child.type in types), None)


def type_name(raw: str) -> str:
    """`List<Foo>?` -> `List`, `android.graphics.Bitmap` -> `Bitmap`, `const Foo &` -> `Foo`."""
    plain = re.sub(r"<.*", "", raw, flags=re.DOTALL)
    words = re.findall(r"[\w:.]+", re.sub(r"\b(const|struct|static|enum|class)\b", "", plain))
    return re.split(r"[.:]+", words[0])[-1] if words else ""
