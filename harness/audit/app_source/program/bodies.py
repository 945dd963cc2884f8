"""Functions' bodies: what of them can run, and what a name in them is bound to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache

from harness.audit.app_source.language.tree import (
    Binary,
    Call,
    Choice,
    Declare,
    Function,
    If,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Return,
    Throw,
    Try,
    Unary,
    children,
    walk,
)
from harness.audit.app_source.program.declared import Declared
from harness.audit.app_source.sources import Sources


class Bodies(Declared):
    """The nodes of each function, with what holds them and what they declare."""

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self.nodes = cache(self._nodes)
        self.parents = cache(self._parents)
        self.locals = cache(self._locals)

    def _nodes(self, function: Function) -> tuple[Node, ...]:
        """Everything in the body that can run."""
        return tuple(self._running(function.body or ()))

    def _running(self, nodes: Iterable[Node]) -> Iterator[Node]:
        for node in nodes:
            yield node
            if isinstance(node, If | Choice) and node.condition is not None:
                flag = self.flag(node.condition)
                yield from self._running([node.condition])
                yes, no = (
                    (node.then, node.otherwise)
                    if isinstance(node, If)
                    else ((node.yes,), (node.no,))
                )
                if flag is not False:
                    yield from self._running(yes)
                if flag is not True:
                    yield from self._running(no)
            elif isinstance(node, Try):
                for part in (node.body, *node.handlers, node.finish):
                    yield from self._running(part)
            else:
                yield from self._running(children(node))
            if isinstance(node, Return | Throw):
                return

    def flag(self, node: Node) -> bool | None:
        """What a condition always is, where constants alone decide it."""
        match node:
            case Literal(value=bool() as value):
                return value
            case Unary(op="!", value=value):
                inner = self.flag(value)
                return None if inner is None else not inner
            case Binary(op="&&" | "||" as op, left=left, right=right):
                flags = (self.flag(left), self.flag(right))
                decisive = op == "||"
                if decisive in flags:
                    return decisive
                return None if None in flags else not decisive
            case Name(text=name) | Member(name=name):
                known = self.variables.get(name, [])
                if len(known) == 1 and known[0].fixed and known[0].value is not None:
                    return self.flag(known[0].value)
        return None

    def _parents(self, function: Function) -> dict[Node, Node]:
        return {child: node for node in walk(*(function.body or ())) for child in children(node)}

    def ancestors(self, node: Node, function: Function) -> Iterator[Node]:
        """The nodes `node` stands in, from the inside to the outside."""
        parents = self.parents(function)
        while node in parents:
            node = parents[node]
            yield node

    def _locals(self, function: Function) -> dict[str, list[Declare]]:
        found: dict[str, list[Declare]] = defaultdict(list)
        for node in walk(*(function.body or ())):
            if isinstance(node, Declare):
                found[node.name].append(node)
        return found

    def local(self, name: str, function: Function, offset: int) -> Declare | None:
        """The innermost declaration of `name` whose scope holds `offset`."""
        found = [
            d for d in self.locals(function).get(name, []) if d.scope[0] <= offset <= d.scope[1]
        ]
        before = [item for item in found if item.at.offset <= offset]
        return min(before or found, key=lambda d: d.scope[1] - d.scope[0], default=None)

    def bound_by(self, name: Name, function: Function) -> tuple[Lambda, int, Call | None] | None:
        """The lambda whose parameter `name` is, its position, and the call it is given to."""
        for node in self.ancestors(name, function):
            if isinstance(node, Lambda) and name.text in node.params:
                call = next(
                    (a for a in self.ancestors(node, function) if isinstance(a, Call)), None
                )
                return node, node.params.index(name.text), call
        return None
