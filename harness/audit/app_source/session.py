"""A session: how many images it has, and whether the cache is cleared between them."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.app_source.language.tree import (
    Binary,
    Call,
    Choice,
    Function,
    If,
    Lambda,
    Loop,
    Member,
    Name,
    Node,
    text_of,
    walk,
)
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Known, Resolver
from harness.audit.findings import Finding

_CLEARS = (
    "llama_memory_clear", "llama_kv_cache_clear", "llama_kv_self_clear", "llama_memory_seq_rm",
    "llama_kv_cache_seq_rm", "llama_kv_self_seq_rm",
)  # fmt: skip
_MAKES = ("llama_init_from_model", "llama_new_context_with_model")
_EACH = ("map", "forEach", "forEachIndexed", "mapIndexed", "repeat", "List", "mapNotNull")
_MOST = 20


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """The findings about a session."""
    yield _images(program, resolver)
    yield _cleared(program)


def _images(program: Program, resolver: Resolver) -> Finding:
    aspect = "session_images"
    way = sorted(
        (f for f in program.live & program.reaching if f.language == "jvm"), key=lambda f: f.at
    )
    for function in way:
        for call in _leading(function, program):
            for holder in _holders(call, function, program):
                number = _times(holder, function, resolver)
                if number is not None:
                    return Finding(aspect, "app", number, holder.at.where)
    for function in way:
        calls = [c for c in _leading(function, program) if not list(_holders(c, function, program))]
        by_name: dict[str, list[Call]] = {}
        for call in calls:
            by_name.setdefault(call.name, []).append(call)
        for found in by_name.values():
            distinct = {text_of(call) for call in found}
            if 1 < len(distinct) <= _MOST and _in_a_row(found, function, program):
                return Finding(
                    aspect, "app", len(distinct), found[0].at.where, "called once for each"
                )
    owners = {f.owner for f in way}
    for function in sorted(program.live, key=lambda f: f.at):
        if function.owner in owners and function.language == "jvm":
            for node in program.nodes(function):
                told = _counted(node, function, resolver)
                if told is not None:
                    return Finding(aspect, "app", told, node.at.where, f"as {text_of(node)} says")
    return Finding(aspect, "app", None, ".", "the number of images is decided at run time")


def _leading(function: Function, program: Program) -> Iterator[Call]:
    """The calls in `function` that lead to a whole classification."""
    for node in program.nodes(function):
        if isinstance(node, Call):
            targets = program.targets(node, function)
            whole = any(t in program.reaching and "external" not in t.marks for t in targets)
            if whole and _tokenizes(targets, program):
                yield node


def _tokenizes(targets: tuple[Function, ...], program: Program) -> bool:
    return bool(program.calls_of(["mtmd_tokenize"], program.closure(targets)))


def _holders(call: Call, function: Function, program: Program) -> Iterator[Node]:
    for outer in program.ancestors(call, function):
        if isinstance(outer, Loop) or (isinstance(outer, Call) and outer.name in _EACH):
            yield outer


def _times(node: Node, function: Function, resolver: Resolver) -> int | None:
    """How often a loop runs, where the source says it."""
    if isinstance(node, Call):
        if node.name in ("repeat", "List"):
            number = resolver.number(node.argument(0), function)
            return number if isinstance(number, int) else None
        return _length(node.target, function, resolver)
    assert isinstance(node, Loop)  # noqa: S101  (the only other holder)
    if node.collection is not None:
        return _length(node.collection, function, resolver)
    if isinstance(node.condition, Binary) and node.condition.op in ("<", "<="):
        number = resolver.number(node.condition.right, function)
        if isinstance(number, int):
            return number + (node.condition.op == "<=")
    return None


def _length(node: Node | None, function: Function, resolver: Resolver) -> int | None:
    if isinstance(node, Binary) and node.op in ("until", "..", "..<"):
        ends = [resolver.number(side, function) for side in (node.left, node.right)]
        if isinstance(ends[0], int) and isinstance(ends[1], int):
            return ends[1] - ends[0] + (node.op == "..")
        return None
    if isinstance(node, Call) and node.name == "take":
        number = resolver.number(node.argument(0), function)
        return number if isinstance(number, int) else None
    if node is None:
        return None
    found = resolver.one(node, function)
    if isinstance(found, Known) and isinstance(found.value, tuple):
        return len(found.value)
    for item in walk(node):
        if (
            isinstance(item, Call)
            and item.name in ("listOf", "arrayOf", "arrayListOf", "asList")
            and len(item.args) > 1
        ):
            return len(item.args)
    origins = resolver.origins(node, function) if isinstance(node, Name) else []
    if len(origins) == 1 and origins[0].node is not node:
        return _length(origins[0].node, origins[0].function, resolver)
    return None


def _counted(node: Node, function: Function, resolver: Resolver) -> int | None:
    """`photos.size == 3`."""
    if isinstance(node, Binary) and node.op in ("==", ">=", "<", "!="):
        for side, other in ((node.left, node.right), (node.right, node.left)):
            sized = (isinstance(side, Member) and side.name in ("size", "count")) or (
                isinstance(side, Call) and side.name in ("size", "count") and not side.args
            )
            number = resolver.number(other, function) if sized else None
            if isinstance(number, int) and 1 < number <= _MOST:
                return number
    return None


def _in_a_row(calls: list[Call], function: Function, program: Program) -> bool:
    """Whether the calls follow one another, and are no alternatives of an `if` or `when`."""
    parents = [
        tuple(id(o) for o in program.ancestors(c, function) if isinstance(o, If | Choice))
        for c in calls
    ]
    return len(set(parents)) == 1


def _cleared(program: Program) -> Finding:
    aspect = "cache_cleared"
    makers = {f for _, f in program.calls_of(_MAKES, program.live)}
    # What clears as it makes the context, after a warm-up, does so once and not between images.
    found = [item for item in program.calls_of(_CLEARS, program.live) if item[1] not in makers]
    way = {f for _, f in program.calls_of(["mtmd_tokenize"], program.live)}
    reading = program.leading_to(way)
    between = next((item for item in found if _beside_images(item[1], reading, program)), None)
    if between is not None:
        return Finding(aspect, "app", True, between[0].at.where)
    if found:
        note = "it is cleared here, and whether each image comes that way could not be followed"
        return Finding(aspect, "app", None, found[0][0].at.where, note)
    made = program.calls_of(_MAKES, program.closure(way) & set(program.live))
    if made:
        return Finding(aspect, "app", True, made[0][0].at.where, "each image has a new context")
    if not way:
        return Finding(aspect, "app", None, ".", "no live code here runs an image with libmtmd")
    where = next(iter(way)).at.where
    return Finding(aspect, "app", False, where, "the next image is read after the one before it")


def _beside_images(clears: Function, reading: frozenset[Function], program: Program) -> bool:
    """Whether some function has an image read (what leads to that is `reading`) and the cache
    cleared in one run of its body, by two calls: of one that leads to both, what it runs is asked.
    """
    leading = program.leading_to({clears})
    for function in program.live & leading:
        reads, cleared = [], []
        for call in program.nodes(function):
            if isinstance(call, Call):
                targets = program.targets(call, function)
                if call.name == "mtmd_tokenize" or not reading.isdisjoint(targets):
                    reads.append(call)
                direct = function is clears and call.name in _CLEARS
                if direct or not leading.isdisjoint(targets):
                    cleared.append(call)
        if any(
            _in_one_run(read, clear, function, program)
            for read in reads
            for clear in cleared
            if read is not clear
        ):
            return True
    return False


def _in_one_run(one: Call, other: Call, function: Function, program: Program) -> bool:
    """Whether the lambdas that the calls stand in do not part them."""
    lambdas = [
        [outer for outer in program.ancestors(call, function) if isinstance(outer, Lambda)][::-1]
        for call in (one, other)
    ]
    shorter = min(map(len, lambdas))
    return lambdas[0][:shorter] == lambdas[1][:shorter]
