"""What is asked of the GPU, and whether anybody hears of it when it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Assign,
    Binary,
    Call,
    Function,
    If,
    Literal,
    Member,
    Name,
    Node,
    Throw,
    Try,
    Unary,
    text_of,
    walk,
)
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.structs import members
from harness.audit.app_source.program.values import Known, Resolver
from harness.audit.findings import Finding

_LOADS = {
    "n_gpu_layers": {
        "llama_model_load_from_file": 1,
        "llama_load_model_from_file": 1,
        "common_init_from_params": 0,
    },
    "use_gpu": {"mtmd_init_from_file": 2},
}
"""The field that asks for a GPU, and the calls that take it with the argument it is in."""


class Ask(NamedTuple):
    """One value that decides about the GPU; `gpu` None: known at run time."""

    field: str
    gpu: bool | None
    where: str


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """The findings about the backend."""
    loads = [
        (call, function, names[call.name], field)
        for field, names in _LOADS.items()
        for call, function in program.calls_of(names, program.live)
    ]
    if not loads:
        yield Finding("backend", "app", None, ".", "no live code here loads a model with llama.cpp")
        return
    asks = [ask for load in loads for ask in _asked(*load, resolver)]
    asked = [ask for ask in asks if ask.gpu]
    where = loads[0][0].at.where
    if not asks:
        why = "not set: the default depends on llama.cpp's version and build"
        yield Finding("backend", "app", None, where, why)
    elif asked:
        yield from _fall_back(program, asks, asked[0], [load[:2] for load in loads])
    elif None in {ask.gpu for ask in asks}:
        why = "whether a GPU is asked for is decided at run time"
        yield Finding("backend", "app", None, where, why)
    else:
        yield Finding("backend", "app", "cpu", where, "no layer is asked onto a GPU")
        yield Finding("gpu_fallback", "app", "none", where, "no GPU is asked for")


def _asked(
    call: Call, function: Function, position: int, field: str, resolver: Resolver
) -> Iterator[Ask]:
    """The values the field may have at a load, of all who lead to it."""
    argument = call.argument(position)
    if argument is None:
        return
    for item in members(argument, function, resolver).get(field, []):
        for found in item.resolver.values(item.value, item.function):
            gpu = bool(found.value) if isinstance(found, Known) else None
            yield Ask(field, gpu, item.at.where)


def _fall_back(
    program: Program, asks: list[Ask], first: Ask, loads: list[tuple[Call, Function]]
) -> Iterator[Finding]:
    again = next((ask for ask in asks if ask.field == first.field and ask.gpu is False), None)
    branch = _retry(program, loads)
    if again is None and branch is None:
        yield Finding("backend", "app", "gpu", first.where, "a GPU is asked for")
        note = "llama.cpp runs on the CPU where there is no GPU backend and the code does not look"
        yield Finding("gpu_fallback", "app", "silent", first.where, note)
        return
    note = "a GPU is asked for and the CPU taken where that fails: it is known at run time"
    yield Finding("backend", "app", None, first.where, note)
    where = branch[0].at.where if branch is not None else again.where if again is not None else "."
    told = branch is not None and branch[1]
    note = "the CPU is taken instead" + ("" if told else " and nobody is told but the log")
    yield Finding("gpu_fallback", "app", "told" if told else "silent", where, note)


def _fails(call: Call, function: Function, program: Program) -> If | Try | None:
    """The `if (!model)` or `catch` a second attempt stands in."""
    below: Node = call
    for outer in program.ancestors(call, function):
        if isinstance(outer, If) and below is not outer.condition and _is_missing(outer.condition):
            return outer
        if isinstance(outer, Try) and any(below in handler for handler in outer.handlers):
            return outer
        below = outer
    return None


def _is_missing(condition: Node) -> bool:
    match condition:
        case Unary(op="!"):
            return True
        case Binary(op="==", left=left, right=right):
            return any(isinstance(side, Literal) and not side.value for side in (left, right))
    return False


def _retry(program: Program, loads: list[tuple[Call, Function]]) -> tuple[If | Try, bool] | None:
    """The branch that tries again without the GPU, here or in a caller, and whether it tells."""
    ahead, seen = list(loads), set()
    while ahead:
        call, function = ahead.pop(0)
        branch = _fails(call, function, program)
        if branch is not None:
            inside = branch.then if isinstance(branch, If) else branch.handlers[0]
            return branch, any(_tells(node, function, program) for node in walk(*inside))
        if function not in seen:
            seen.add(function)
            ahead += [(site.call, site.caller) for site in program.sites.get(function, [])]
    return None


def _tells(node: Node, function: Function, program: Program) -> bool:
    """Throws, calls back into Kotlin, or sets a flag outside the function."""
    if isinstance(node, Throw):
        return True
    if isinstance(node, Assign) and function.language == "jvm":
        return isinstance(node.target, Member)
    if isinstance(node, Call) and function.language == "jvm":
        return node.name in ("emit", "makeText", "postValue", "update", "onFallback", "tryEmit")
    if isinstance(node, Call):
        return node.name.startswith(("Call", "ThrowNew", "SetStatic", "Set")) and (
            node.target is not None and text_of(node.target) in ("env", "jenv")
        )
    if isinstance(node, Assign) and isinstance(node.target, Name):
        name = node.target.text
        inside = program.local(name, function, node.at.offset) is not None
        inside = inside or name in (param.name for param in function.params)
        return not inside and isinstance(node.value, Literal)
    return False
