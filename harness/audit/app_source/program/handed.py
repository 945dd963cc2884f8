"""Settings handed to code that is not in this source: a binding's library, missing JNI.

Only their names say what they are, and the findings say that this is how they were read.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.app_source.language.tree import Argument, Call, Function
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Known, Resolver
from harness.audit.findings import Finding, Value

_NAMES = {
    "max_tokens": ("maxtokens", "maxnewtokens", "npredict", "numpredict", "nlen", "maxlength"),
    "context": ("nctx", "contextsize", "contextlength", "ctxsize", "numctx"),
    "batch": ("nbatch", "batchsize"),
    "threads": ("nthreads", "numthreads", "threadcount"),
    "sampling": ("temp", "temperature"),
    "cache_type_k": ("typek", "cachetypek"),
    "cache_type_v": ("typev", "cachetypev"),
    "flash_attention": ("flashattn", "flashattention"),
    "backend": ("ngpulayers", "gpulayers", "usegpu"),
}
_ASPECTS = {name: aspect for aspect, names in _NAMES.items() for name in names}


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """What live Kotlin or Java hands to code that is not here, by the arguments' names."""
    for function in sorted(program.live, key=lambda f: f.at):
        if function.language == "jvm":
            for call in program.nodes(function):
                if isinstance(call, Call) and call.args:
                    yield from _handed(call, function, program, resolver)


def _handed(
    call: Call, function: Function, program: Program, resolver: Resolver
) -> Iterator[Finding]:
    targets = program.targets(call, function)
    if any(t.body is not None or t in program.natives for t in targets):
        return
    if call.target is None and call.name in program.classes:
        return
    for name, arg in _by_name(call, targets):
        aspect = _ASPECTS.get(name.lower().replace("_", ""))
        found = resolver.one(arg.value, function) if aspect else None
        if aspect and isinstance(found, Known):
            value = _value(aspect, found.value)
            if value is not None:
                note = f"handed to {call.name} as {name}; what that does is not in this source"
                yield Finding(aspect, "app", value, arg.at.where, note)


def _by_name(call: Call, targets: tuple[Function, ...]) -> Iterator[tuple[str, Argument]]:
    names = [param.name for param in targets[0].params] if targets else []
    for place, arg in enumerate(call.args):
        name = arg.name or (names[place] if place < len(names) else "")
        if name:
            yield name, arg
    if not targets and len(call.args) == 1 and call.name.startswith("set"):
        yield call.name.removeprefix("set"), call.args[0]


def _value(aspect: str, value: object) -> Value | None:
    if aspect == "sampling" and isinstance(value, int | float):
        return "greedy" if value <= 0 else f"temperature {float(value)}"
    if aspect == "backend" and isinstance(value, int | float):
        return "gpu" if value else "cpu"
    if aspect.startswith("cache_type") and isinstance(value, str):
        return value.lower().removeprefix("ggml_type_")
    if aspect == "flash_attention":
        return value if isinstance(value, bool) else None
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) else None
