"""Texts that are put together: templates, `+=`, `append`, `<<`, `format`, `snprintf`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.audit.app_source.language.tree import (
    Assign,
    At,
    Binary,
    Call,
    Function,
    Lambda,
    Name,
    Node,
    text_of,
    walk,
)
from harness.audit.app_source.program.names import Names
from harness.audit.app_source.program.plain import Known, Origin, Unknown, Worth, with_part

_APPENDS = {"append", "push_back", "appendLine", "concat"}
_FORMATS = re.compile(r"%[-+ 0#]*\d*(?:\.\d+)?(?:l|ll|z|h)?[sdiufgcxX]|%%")
MOST = 8
"""Alternatives of one value that are kept; more are as good as unknown."""


class Texts(Names):
    """The methods that put a text together of its parts."""

    def _mapped(
        self, target: Node, function: Function, change: Callable[[str], str]
    ) -> list[Worth]:
        return [
            replace(item, value=change(item.value))
            if isinstance(item, Known) and isinstance(item.value, str)
            else item
            for item in self.values(target, function)
        ]

    def _text_call(self, node: Call, function: Function) -> list[Worth]:
        args = [self.values(arg.value, function) for arg in node.args]
        if node.name == "joinToString" and node.target is not None:
            each = node.args[-1].value if node.args else None
            shown = isinstance(each, Lambda)
            separator = node.argument(0, "separator")
            separator = None if separator is each and shown else separator
            between = (
                self.one(separator, function) if separator is not None else Known(", ", node.at)
            )
            found = []
            for item in self._each(node, function) if shown else self.values(node.target, function):
                if (
                    isinstance(item, Known)
                    and isinstance(item.value, tuple)
                    and isinstance(between, Known)
                ):
                    item = replace(item, value=str(between.value).join(str(v) for v in item.value))
                found.append(item)
            return found
        if node.name == "plus" and node.target is not None:
            return self._joined([self.values(node.target, function), *args], node.at)
        if node.name in ("format", "formatted"):
            static = node.target is None or text_of(node.target) in ("String", "fmt", "std")
            pattern = (
                args[0]
                if static and args
                else self.values(node.target, function)
                if node.target
                else []
            )
            rest = args[1:] if static else args
            return [self._formatted(item, rest, node.at) for item in pattern]
        if node.name == "replace" and node.target is not None and len(args) == 2:
            found = []
            for item in self.values(node.target, function):
                old, new = (self.one(arg.value, function) for arg in node.args)
                if (
                    isinstance(item, Known)
                    and isinstance(item.value, str)
                    and isinstance(old, Known)
                ):
                    found.append(_replaced(item, item.value, str(old.value), new))
                else:
                    found.append(item)
            return found
        return [Unknown(f"{text_of(node)} is made at run time", node.at)]

    def _formatted(self, pattern: Worth, args: list[list[Worth]], at: At) -> Worth:
        if isinstance(pattern, Unknown) or not isinstance(pattern.value, str):
            return pattern
        pieces: list[list[Worth]] = []
        last, used = 0, 0
        for match in re.finditer(_FORMATS.pattern + r"|%\d\$[sd]", pattern.value):
            pieces.append([Known(pattern.value[last : match.start()], at)])
            last = match.end()
            if match.group() == "%%":
                pieces.append([Known("%", at)])
                continue
            position = int(match.group()[1]) - 1 if "$" in match.group() else used
            used += 1
            pieces.append(
                args[position] if position < len(args) else [Unknown("a value is missing", at)]
            )
        pieces.append([replace(pattern, value=pattern.value[last:])])
        return self._joined(pieces, at)[0]

    def _each(self, node: Call, function: Function) -> list[Worth]:
        """What a lambda makes of every element, in order."""
        block = node.args[-1].value
        body = block.body if isinstance(block, Lambda) else ()
        found = self.values(body[-1], function) if body else []
        if any(isinstance(item, Unknown) for item in found):
            return [*[item for item in found if isinstance(item, Unknown)][:1]]
        values = tuple(
            w.value for w in found if isinstance(w, Known) and not isinstance(w.value, tuple)
        )
        return [Known(values, node.at)]

    def _resource(self, node: Call, function: Function) -> list[Worth]:
        found = self.values(node.args[0].value, function)
        if len(node.args) == 1:
            return found
        rest = [self.values(arg.value, function) for arg in node.args[1:]]
        return [self._formatted(item, rest, node.at) for item in found]

    def _built(self, node: Name, function: Function) -> list[Worth] | None:
        """A text put together by `+=`, `append`, `<<` or `snprintf` before it is used."""
        local = self.program.local(node.text, function, node.at.offset)
        steps: list[tuple[Node, Node]] = []
        for item, added in self._building(function).get(node.text, []):
            before = item.at.offset < node.at.offset
            declared = self.program.local(node.text, function, item.at.offset)
            if before and declared is local and self.runs(item, function):
                steps.append((item, added))
        if not steps or self.program.type_of(node, function) in ("int", "float", "double"):
            return None
        whole = [
            step
            for step in steps
            if isinstance(step[0], Call) and step[0].name in ("snprintf", "sprintf")
        ]
        if whole:
            call = whole[-1][0]
            assert isinstance(call, Call)  # noqa: S101  (narrowed by the line above)
            skip = 2 if call.name == "snprintf" else 1
            args = [self.values(arg.value, function) for arg in call.args[skip + 1 :]]
            return [
                self._formatted(item, args, call.at)
                for item in self.values(call.args[skip].value, function)
            ]
        own = {item.at for item, _ in steps}
        start = [
            o
            for o in self.origins(node, function)
            if not _refers_to(o.node, node.text) and o.node.at not in own
        ]
        first = self._through(start) if start else [Known("", node.at)]
        first = [Known("", w.at) if isinstance(w, Unknown) and _empty(start) else w for w in first]
        first = [
            replace(w, value="") if isinstance(w, Known) and w.value is None else w for w in first
        ]
        return self._appended([first], steps, function, node.at)

    def _building(self, function: Function) -> dict[str, list[tuple[Node, Node]]]:
        """By name, the statements of `function` that add to a text, and what they add."""
        known = self.program.building.get(function)
        if known is None:
            known = self.program.building[function] = {}
            for item in self.program.nodes(function):
                added = _added(item)
                if added is not None:
                    known.setdefault(added[0], []).append((item, added[1]))
        return known

    def _appended(
        self,
        first: list[list[Worth]],
        steps: Sequence[tuple[Node, Node | None]],
        function: Function,
        at: At,
    ) -> list[Worth]:
        pieces = list(first)
        for item, added in steps:
            if added is None and isinstance(item, Call):
                added = item.args[0].value if item.args else None
            if added is not None:
                pieces.append(self.values(added, function))
            if isinstance(item, Call) and item.name == "appendLine":
                pieces.append([Known("\n", item.at)])
        return self._joined(pieces, at)

    def _joined(self, pieces: list[list[Worth]], at: At) -> list[Worth]:
        found: list[Worth] = [Known("", at)]
        for options in pieces:
            parts = options or [Unknown("a part is made at run time", at)]
            following = [with_part(before, item) for before in found for item in parts]
            found = following[: MOST + 1]
        return found


def _added(node: Node) -> tuple[str, Node] | None:
    """The text a statement adds to, and what it adds."""
    match node:
        case Assign(target=Name(text=text), op="+=", value=value):
            return text, value
        case Assign(
            target=Name(text=text), op="=", value=Binary(op="+", left=Name(text=left), right=right)
        ):
            return (text, right) if text == left else None
        case Call(
            target=target, name="append" | "appendLine" | "push_back" | "write", args=args
        ) if args:
            root = target
            while isinstance(root, Call) and root.name in _APPENDS:
                root = root.target
            return (root.text, args[0].value) if isinstance(root, Name) else None
        case Call(target=None, name="snprintf" | "sprintf" | "strcat" | "strcpy", args=args) if (
            args
        ):
            return text_of(args[0].value), args[-1].value
        case Binary(op="<<", left=left, right=right):
            root = left
            while isinstance(root, Binary) and root.op == "<<":
                root = root.left
            return (root.text, right) if isinstance(root, Name) else None
    return None


def appends(nodes: tuple[Node, ...], name: str | None) -> list[Call]:
    return [
        item
        for item in walk(*nodes)
        if isinstance(item, Call)
        and item.name in ("append", "appendLine")
        and (item.target is None or isinstance(item.target, Call))
        and name is None
    ]


def _refers_to(node: Node, name: str) -> bool:
    return any(isinstance(item, Name) and item.text == name for item in walk(node))


def _empty(origins: list[Origin]) -> bool:
    """Whether a text starts out as nothing: `StringBuilder()`, `std::string s(n, 0)`."""
    return all(
        isinstance(o.node, Call)
        and o.node.name
        in ("StringBuilder", "string", "ostringstream", "stringstream", "StringBuffer")
        for o in origins
    )


def _replaced(item: Known, text: str, old: str, new: Worth) -> Worth:
    """`text.replace(old, new)`."""
    if old not in text or isinstance(new, Unknown):
        return new if old in text else item
    return replace(item, value=text.replace(old, str(new.value)), sites=(*item.sites, *new.sites))
