"""How many tokens an answer may have, and whether the prompt is counted among them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Assign,
    Binary,
    Block,
    Call,
    Function,
    If,
    Jump,
    Lambda,
    Loop,
    Member,
    Name,
    Node,
    Return,
    Unary,
    children,
    text_of,
    walk,
)
from harness.audit.app_source.program.amounts import Amount, amount_of, root_of
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Resolver
from harness.audit.app_source.sampling import LOGITS
from harness.audit.findings import Finding

_SAMPLE = (
    "llama_sampler_sample",
    "common_sampler_sample",
    "llama_sampling_sample",
    "gpt_sampler_sample",
    "llama_sample_token_greedy",
    "llama_sample_token",
)
_COMPARE = ("<", "<=", ">", ">=", "==", "!=")


Way = tuple[tuple[Call, Function], ...]
"""The calls from a loop down to the sampler, each with the function it stands in."""


class Limit(NamedTuple):
    """One bound of the generation loop."""

    tokens: int
    counts_prompt: bool
    where: str


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """The findings about the limit."""
    yield from _limit(program, resolver)


def _limit(program: Program, resolver: Resolver) -> Iterator[Finding]:
    loop = _generation_loop(program)
    if loop is None:
        why = "no loop in live code here samples tokens"
        yield Finding("max_tokens", "app", None, ".", why)
        yield Finding("limit_counts_prompt", "app", None, ".", why)
        return
    node, function, way = loop
    limits = list(_bounds(node, function, way, program, resolver))
    if not limits:
        why = "the bound of the generation loop is known at run time"
        yield Finding("max_tokens", "app", None, node.at.where, why)
        yield Finding("limit_counts_prompt", "app", None, node.at.where, why)
        return
    certain = [limit for limit in limits if not limit.counts_prompt] or limits
    least = min(certain, key=lambda limit: limit.tokens)
    yield Finding("max_tokens", "app", least.tokens, least.where)
    yield Finding("limit_counts_prompt", "app", least.counts_prompt, least.where)


def _generation_loop(
    program: Program,
) -> tuple[Loop | Call, Function, Way] | None:
    """The innermost loop around sampling, nearest to where the image goes in, and the calls from
    it down to the sampler."""
    starts = program.calls_of(_SAMPLE, program.live) or program.calls_of(LOGITS, program.live)
    found: list[tuple[int, Loop | Call, Function, Way]] = []
    for call, function in starts:
        ahead: list[tuple[Call, Function, Way]] = [(call, function, ((call, function),))]
        seen = {function}
        while ahead:
            here, home, way = ahead.pop(0)
            loop = _around(here, home, program)
            if loop is not None:
                found.append((_distance(home, program), loop, home, way))
                continue
            for site in program.sites.get(home, []):
                if site.caller not in seen:
                    seen.add(site.caller)
                    ahead.append((site.call, site.caller, ((site.call, site.caller), *way)))
    if not found:
        return None
    _, loop, home, way = min(found, key=lambda item: item[0])
    return loop, home, way


def _around(node: Node, function: Function, program: Program) -> Loop | Call | None:
    for outer in program.ancestors(node, function):
        if isinstance(outer, Loop):
            return outer
        if isinstance(outer, Call) and outer.name == "repeat" and outer.target is None:
            return outer
    return None


def _distance(function: Function, program: Program) -> int:
    """How many calls up from `function` the image goes into the model."""
    level, here, seen = 0, {function}, {function}
    while here:
        if here & program.reaching:
            return level
        here = {site.caller for f in here for site in program.sites.get(f, [])} - seen
        seen |= here
        level += 1
    return 1000


def _bounds(
    loop: Loop | Call,
    function: Function,
    way: Way,
    program: Program,
    resolver: Resolver,
) -> Iterator[Limit]:
    if isinstance(loop, Call):
        number = resolver.number(loop.argument(0, "times"), function)
        if isinstance(number, int):
            yield Limit(number, counts_prompt=False, where=loop.at.where)
        body: tuple[Node, ...] = ()
        if loop.args and isinstance(loop.args[-1].value, Lambda):
            body = loop.args[-1].value.body
    else:
        yield from _range(loop, function, resolver)
        body = loop.body
        for test in _conjuncts(loop.condition):
            yield from _compared(test, loop, function, resolver, stops=False)
    for item in _ends(body):
        for test in _disjuncts(item.condition):
            yield from _compared(test, loop, function, resolver, stops=True)
    for _, target in way[1:]:
        for item in _ends(target.body or ()):
            for test in _disjuncts(item.condition):
                yield from _compared(test, loop, target, resolver, stops=True)


def _range(loop: Loop, function: Function, resolver: Resolver) -> Iterator[Limit]:
    """`for (i in 0 until n)`."""
    collection = loop.collection
    if isinstance(collection, Binary) and collection.op in ("until", "..", "..<"):
        start, end = (
            amount_of(side, function, resolver) for side in (collection.left, collection.right)
        )
        extra = 1 if collection.op == ".." else 0
        yield from _told(end, start, extra, collection.at.where)


def _compared(
    test: Node, loop: Loop | Call, function: Function, resolver: Resolver, *, stops: bool
) -> Iterator[Limit]:
    """A comparison of a counter with a bound; `stops`: the loop ends where it is true."""
    if not isinstance(test, Binary) or test.op not in _COMPARE:
        return
    left, right, op = test.left, test.right, test.op
    if not _counts(left, loop, function, resolver) and _counts(right, loop, function, resolver):
        left, right = right, left
        op = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op)
    elif not _counts(left, loop, function, resolver):
        return
    start = amount_of(left, function, resolver, initial=True)
    bound = amount_of(right, function, resolver)
    down = _falls(left, loop)
    if down:
        start, bound = bound, start
        op = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(op, op)
    extra = 1 if op == "<=" and not stops else 1 if op == ">" and stops else 0
    yield from _told(bound, start, extra, test.at.where)


def _told(bound: Amount | None, start: Amount | None, extra: int, where: str) -> Iterator[Limit]:
    if bound is None or start is None:
        return
    left = bound.minus(start)
    if not left.unknown:
        if 0 < left.constant + extra < 100_000:
            yield Limit(left.constant + extra, counts_prompt=False, where=where)
    elif not bound.unknown and start.unknown:
        yield Limit(bound.constant + extra, counts_prompt=True, where=where)


def _counts(node: Node, loop: Loop | Call, function: Function, resolver: Resolver) -> bool:
    """Whether this side grows (or falls) as the loop runs."""
    root = root_of(node)
    changed = {text_of(root_of(item)) for item in walk(loop) if _steps(item)}
    changed |= {
        item.target.text
        for item in walk(loop)
        if isinstance(item, Assign) and isinstance(item.target, Name)
    }
    if isinstance(node, Member) and node.name in ("value", "size", "length"):
        return True
    if isinstance(node, Call) and node.name in ("size", "length", "get", "CallIntMethod"):
        return True
    if not isinstance(root, Name):
        return False
    if root.text in changed:
        return True
    origins = resolver.origins(root, function)
    return any(isinstance(o.node, Call) and o.node.name == "CallIntMethod" for o in origins) or any(
        _steps(item) and text_of(root_of(item)) == root.text
        for item in walk(*(function.body or ()))
    )


def _steps(node: Node) -> bool:
    return isinstance(node, Unary) and node.op in ("++", "--")


def _falls(node: Node, loop: Loop | Call) -> bool:
    name = text_of(root_of(node))
    for item in walk(loop):
        if isinstance(item, Unary) and item.op == "--" and text_of(item.value) == name:
            return True
        if isinstance(item, Assign) and item.op == "-=" and text_of(item.target) == name:
            return True
    return False


def _conjuncts(node: Node | None) -> Iterator[Node]:
    if isinstance(node, Binary) and node.op == "&&":
        yield from _conjuncts(node.left)
        yield from _conjuncts(node.right)
    elif node is not None:
        yield node


def _disjuncts(node: Node) -> Iterator[Node]:
    if isinstance(node, Binary) and node.op == "||":
        yield from _disjuncts(node.left)
        yield from _disjuncts(node.right)
    else:
        yield node


def _ends(body: tuple[Node, ...]) -> Iterator[If]:
    """The `if (...) break` and `if (...) return` right in a body."""
    for node in body:
        if isinstance(node, If) and any(
            (isinstance(item, Jump) and item.kind == "break") or isinstance(item, Return)
            for item in node.then
        ):
            yield node
        elif isinstance(node, Block):
            yield from _ends(tuple(children(node)))
