"""Context, batch, KV cache and flash attention, as the native code asks for them."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.app_source.language.tree import (
    Call,
    Function,
    text_of,
)
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.structs import BASE, Members, Set, members, symbols
from harness.audit.app_source.program.values import Known, Resolver, Unknown
from harness.audit.app_source.threads import DEFAULT, UNFOLLOWED, threads_of
from harness.audit.findings import Finding, Value

_CONTEXTS = {
    "llama_init_from_model": 1,
    "llama_new_context_with_model": 1,
    "common_init_from_params": 0,
}
_EVALS = {"mtmd_helper_eval_chunks": 5, "mtmd_helper_eval_chunk_single": 5}
_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 30: "bf16"}
_NO_CONTEXT = "no live code here makes a llama.cpp context"


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """The findings about the runtime."""
    made = program.calls_of(_CONTEXTS, program.live)
    made = [(c, f) for c, f in made if not _embeds(_params(c, f, resolver, _CONTEXTS))]
    if not made:
        for aspect in (
            "context",
            "batch",
            "cache_type_k",
            "cache_type_v",
            "flash_attention",
            "threads",
        ):
            yield Finding(aspect, "app", None, ".", _NO_CONTEXT)
    else:
        call, function = made[0]
        given = _params(call, function, resolver, _CONTEXTS)
        where = call.at.where
        known = BASE in given
        yield _number("context", given.get("n_ctx"), where, 512 if known else None)
        yield from _batches(program, resolver, given, where)
        for side in "kv":
            names = given.get(f"type_{side}") or given.get(f"cache_type_{side}")
            yield _cache_type(f"cache_type_{side}", names, where, known=known)
        yield _flash(given, where)
        threads = given.get("n_threads") or given.get("cpuparams.n_threads")
        yield threads_of("threads", threads, where, known=known)
    yield from _vision(program, resolver)


def _params(
    call: Call, function: Function, resolver: Resolver, positions: dict[str, int]
) -> Members:
    argument = call.argument(positions[call.name])
    return members(argument, function, resolver) if argument is not None else {}


def _embeds(given: Members) -> bool:
    flags = [item.resolver.flag(item.value, item.function) for item in given.get("embeddings", [])]
    return True in flags


def _number(aspect: str, given: list[Set] | None, where: str, default: int | None) -> Finding:
    if not given:
        if default is None:
            return Finding(aspect, "app", None, where, UNFOLLOWED)
        return Finding(aspect, "app", default, where, DEFAULT)
    found = [item.resolver.one(item.value, item.function) for item in given]
    numbers = {item.value for item in found if isinstance(item, Known)}
    unknown = next((item for item in found if isinstance(item, Unknown)), None)
    place = given[-1].at.where
    if unknown is not None or len(numbers) != 1:
        why = unknown.why if unknown is not None else f"it is one of {sorted(map(str, numbers))}"
        return Finding(aspect, "app", None, place, why)
    first = found[0]
    value = numbers.pop()
    if not isinstance(value, int) or isinstance(value, bool):
        return Finding(aspect, "app", None, place, f"it is {value!r}")
    if aspect == "context" and value == 0:
        return Finding(aspect, "app", None, place, "0 takes what the model was trained with")
    came = isinstance(first, Known) and first.at.where != place
    note = f"the value stands in {first.at.where}" if came else ""
    return Finding(aspect, "app", value, place, note)


def _batches(program: Program, resolver: Resolver, given: Members, where: str) -> Iterator[Finding]:
    """The context's own, and what the prompt is cut into when it is evaluated, where it differs."""
    own = _number("batch", given.get("n_batch"), where, 2048 if BASE in given else None)
    cut: list[Finding] = []
    for call, function in program.calls_of(_EVALS, program.live):
        node = call.argument(_EVALS[call.name])
        if node is None or (isinstance(node, Call) and node.name == "llama_n_batch"):
            continue
        item = Set(node, function, call.at, resolver)
        cut.append(_number("batch", [item], call.at.where, None))
    cut = [item for item in cut if item.value is not None]
    if given.get("n_batch") or not cut:
        yield own
    for value in dict.fromkeys(item.value for item in cut):
        if value != own.value or not given.get("n_batch"):
            first = next(item for item in cut if item.value == value)
            note = "what mtmd cuts the prompt into"
            yield Finding("batch", "app", value, first.where, note)


def _cache_type(aspect: str, given: list[Set] | None, where: str, *, known: bool) -> Finding:
    if not given and not known:
        return Finding(aspect, "app", None, where, UNFOLLOWED)
    if not given:
        return Finding(aspect, "app", "f16", where, DEFAULT)
    found = [symbols(item.value, item.function, item.resolver, "GGML_TYPE_") for item in given]
    place = given[-1].at.where
    if any(part is None for part in found):
        return Finding(
            aspect, "app", None, place, f"{text_of(given[-1].value)} is made at run time"
        )
    names = {_type_name(name) for part in found for name, _ in part or []}
    if len(names) != 1:
        return Finding(aspect, "app", None, place, f"it is one of {', '.join(sorted(names))}")
    return Finding(aspect, "app", names.pop(), place)


def _type_name(name: str | int) -> str:
    if isinstance(name, int):
        return _TYPES.get(name, f"type {name}")
    return name.removeprefix("GGML_TYPE_").lower()


def _flash(given: Members, where: str) -> Finding:
    aspect = "flash_attention"
    plain, typed = given.get("flash_attn"), given.get("flash_attn_type")
    if not plain and not typed and BASE not in given:
        return Finding(aspect, "app", None, where, UNFOLLOWED)
    if not plain and not typed:
        return Finding(
            aspect, "app", None, where, "not set: the default depends on llama.cpp's version"
        )
    item = (typed or plain or [])[-1]
    if typed:
        found = symbols(item.value, item.function, item.resolver, "LLAMA_FLASH_ATTN_TYPE_")
        words = {str(name).rsplit("_", 1)[-1] for name, _ in found or []}
        known: dict[str, Value | None] = {"ENABLED": True, "1": True, "DISABLED": False, "0": False}
        if len(words) == 1 and (word := words.pop()) in known:
            return Finding(aspect, "app", known[word], item.at.where)
        return Finding(
            aspect, "app", None, item.at.where, "llama.cpp decides (AUTO) or it is set at run time"
        )
    worth = item.resolver.one(item.value, item.function)
    if isinstance(worth, Known) and isinstance(worth.value, bool | int):
        return Finding(aspect, "app", bool(worth.value), item.at.where)
    why = worth.why if isinstance(worth, Unknown) else f"it is {worth.value!r}"
    return Finding(aspect, "app", None, item.at.where, why)


def _vision(program: Program, resolver: Resolver) -> Iterator[Finding]:
    made = program.calls_of(["mtmd_init_from_file"], program.live)
    if not made:
        yield Finding(
            "vision_threads", "app", None, ".", "no live code here loads an mmproj with libmtmd"
        )
        return
    call, function = made[0]
    given = members(call.args[-1].value, function, resolver) if call.args else {}
    yield threads_of("vision_threads", given.get("n_threads"), call.at.where, known=BASE in given)
