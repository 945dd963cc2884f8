"""The sampler: greedy, or a temperature, by what is made of llama.cpp's samplers."""

from __future__ import annotations

from harness.audit.app_source.language.tree import Binary, Call, Function, Member, Node, text_of
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.structs import BASE, members
from harness.audit.app_source.program.values import Resolver, Unknown
from harness.audit.findings import Finding

LOGITS = ("llama_get_logits_ith", "llama_get_logits")


def read(program: Program, resolver: Resolver) -> Finding:
    """The finding about sampling."""
    calls = {name: found for name in _SAMPLERS if (found := _first(program, resolver, name))}
    settings = _common(program, resolver)
    if settings is not None:
        return settings
    where = next((call.at.where for call, _ in calls.values()), ".")
    greedy = next((calls[name] for name in _GREEDY if name in calls), None)
    penal = "llama_sampler_init_penalties" in calls
    if greedy is not None and not penal:
        rest = [name.rsplit("init_", 1)[-1] for name in calls if name not in _GREEDY]
        note = f"after {', '.join(rest)}, which leave the likeliest token in place" if rest else ""
        return Finding("sampling", "app", "greedy", greedy[0].at.where, note)
    if greedy is not None:
        return Finding("sampling", "app", "greedy with penalties", greedy[0].at.where)
    if "llama_sampler_init_top_k" in calls:
        call, function = calls["llama_sampler_init_top_k"]
        if resolver.number(call.argument(0), function) == 1:
            return Finding("sampling", "app", "greedy", call.at.where, "top-k of 1")
    for name in _TEMPERATURES:
        if name in calls:
            call, function = calls[name]
            position = 1 if name == "llama_sample_temp" else 0
            return _temperature(
                call.args[-1].value if position else call.argument(0),
                function,
                resolver,
                call.at.where,
            )
    if any(name in calls for name in _DRAWN):
        return Finding(
            "sampling", "app", "temperature 1.0", where, "tokens are drawn, no temperature set"
        )
    logits = program.calls_of(LOGITS, program.live)
    for call, function in logits:
        if any(isinstance(n, Binary) and n.op in (">", "<") for n in program.nodes(function)):
            return Finding("sampling", "app", "greedy", call.at.where, "the largest logit is taken")
    why = "no sampler of llama.cpp is made in live code here"
    return Finding("sampling", "app", None, where, why)


_GREEDY = ("llama_sampler_init_greedy", "llama_sample_token_greedy")


_TEMPERATURES = ("llama_sampler_init_temp", "llama_sampler_init_temp_ext", "llama_sample_temp")


_DRAWN = ("llama_sampler_init_dist", "llama_sample_token", "llama_sampler_init_mirostat_v2")


_SAMPLERS = (
    *_GREEDY,
    *_TEMPERATURES,
    *_DRAWN,
    "llama_sampler_init_top_k",
    "llama_sampler_init_top_p",
    "llama_sampler_init_min_p",
    "llama_sampler_init_penalties",
)


def _first(program: Program, resolver: Resolver, name: str) -> tuple[Call, Function] | None:
    found = program.calls_of([name], program.live)
    return next(((call, f) for call, f in found if resolver.runs(call, f)), None)


def _common(program: Program, resolver: Resolver) -> Finding | None:
    """`common_sampler_init(model, params)`: its temperature, 0.8 where none is set."""
    made = _first(program, resolver, "common_sampler_init") or _first(
        program, resolver, "gpt_sampler_init"
    )
    if made is None:
        return None
    call, function = made
    node = call.argument(1)
    given = members(node, function, resolver) if node is not None else {}
    inside = text_of(node).rsplit(".", 1)[-1] if node is not None else ""
    if isinstance(node, Member):
        outer = members(node.target, function, resolver)
        given |= {
            name.removeprefix(f"{inside}."): sets
            for name, sets in outer.items()
            if name.startswith((f"{inside}.", BASE))
        }
    temperature = given.get("temp") or given.get("sampling.temp") or given.get("sparams.temp")
    if not temperature and BASE not in given:
        return Finding("sampling", "app", None, call.at.where, "the temperature is set at run time")
    if not temperature:
        return Finding(
            "sampling", "app", "temperature 0.8", call.at.where, "not set: common_sampler's default"
        )
    item = temperature[-1]
    return _temperature(item.value, item.function, item.resolver, item.at.where)


def _temperature(node: Node | None, function: Function, resolver: Resolver, where: str) -> Finding:
    found = resolver.one(node, function)
    if isinstance(found, Unknown) or not isinstance(found.value, int | float):
        why = found.why if isinstance(found, Unknown) else f"it is {found.value!r}"
        return Finding("sampling", "app", None, where, f"the temperature: {why}")
    if found.value <= 0:
        return Finding("sampling", "app", "greedy", where, f"a temperature of {found.value:g}")
    return Finding("sampling", "app", f"temperature {float(found.value)}", where)
