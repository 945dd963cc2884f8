"""The model files the app names: the text model's quantization, and whose mmproj it is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.audit.app_source.language.tree import At, Literal, Member, Name, walk
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Known, Resolver
from harness.audit.findings import Finding

_FILE = re.compile(r"(?:.*[/\\])?([^/\\\s?]+\.gguf)(?:\?\S*)?$", re.IGNORECASE)
_QUANTIZED = re.compile(
    r"(?<![a-z0-9])(iq\d_[a-z]+|q\d_k(?:_[sml])?|q\d_\d|q8|bf16|f16|fp16|f32|fp32)(?![a-z0-9])",
    re.I,
)
_PROJECTOR = re.compile(r"mm-?proj|projector|clip|vision", re.IGNORECASE)
_STOCK = re.compile(
    r"(smolvlm2?|idefics\d?|smoldocling|internvl\d*|qwen[\d.]*-?vl|gemma)[-_]", re.I
)
_UNTOLD = {"", "model", "f16", "default", "vision"}


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """The findings about the model's files."""
    names = _named(program, resolver)
    models = {n: at for n, at in names.items() if not _PROJECTOR.search(n)}
    projectors = {n: at for n, at in names.items() if _PROJECTOR.search(n)}
    yield _weights(models)
    yield _mmproj(models, projectors)


def _named(program: Program, resolver: Resolver) -> dict[str, At]:
    """Every `.gguf` that live code names, and where it is written."""
    fields = {k for k, v in program.sources.build_fields.items() if ".gguf" in v}
    holders = {
        name
        for name, variables in program.variables.items()
        for variable in variables
        if variable.value is not None
        and any(
            (isinstance(n, Literal) and isinstance(n.value, str) and ".gguf" in n.value)
            or (isinstance(n, Member) and n.name in fields)
            for n in walk(variable.value)
        )
    }
    found: dict[str, At] = {}
    for function in sorted(program.live, key=lambda f: f.at):
        own = "initializer" in function.marks and isinstance((function.body or (None,))[0], Literal)
        for node in program.nodes(function):
            worth = []
            if isinstance(node, Literal) and isinstance(node.value, str) and not own:
                worth = [Known(node.value, node.at)]
            elif isinstance(node, Name | Member):
                name = node.text if isinstance(node, Name) else node.name
                if name in holders | fields:
                    worth = [w for w in resolver.values(node, function) if isinstance(w, Known)]
            for item in worth:
                values = item.value if isinstance(item.value, tuple) else (item.value,)
                for value in values:
                    match = _FILE.fullmatch(value) if isinstance(value, str) else None
                    if match:
                        found.setdefault(match.group(1), item.at)
    return found


def _weights(models: dict[str, At]) -> Finding:
    if not models:
        return Finding("weights", "app", None, ".", "no live code here names a model's .gguf file")
    kinds = {_type(name) for name in models}
    name, at = next(iter(models.items()))
    if len(kinds) != 1:
        listed = ", ".join(models)
        return Finding("weights", "app", None, at.where, f"several models are named: {listed}")
    kind = kinds.pop()
    if kind is None:
        return Finding("weights", "app", None, at.where, f"the name {name} does not say")
    return Finding("weights", "app", kind, at.where, f"the file's name says so: {name}")


def _mmproj(models: dict[str, At], projectors: dict[str, At]) -> Finding:
    if not projectors:
        return Finding("mmproj", "app", None, ".", "no live code here names an mmproj's .gguf file")
    name, at = next(iter(projectors.items()))
    if len(projectors) > 1 or len({_stem(model) for model in models}) > 1:
        listed = ", ".join([*models, *projectors])
        return Finding("mmproj", "app", None, at.where, f"several files are named: {listed}")
    stem = _stem(name)
    if not models:
        return Finding(
            "mmproj", "app", None, at.where, f"{name}, and no text model to put beside it"
        )
    model = next(iter(models))
    of_model = _stem(model)
    if stem in _UNTOLD or of_model in _UNTOLD:
        return Finding("mmproj", "app", None, at.where, f"the name {name} does not say whose it is")
    if stem == of_model or stem.startswith(of_model) or of_model.startswith(stem):
        note = f"by its name: {name} beside {model}"
        return Finding("mmproj", "app", "of this checkpoint", at.where, note)
    whose = f"stock {_shown(name)}" if _STOCK.match(stem) else _shown(name)
    return Finding("mmproj", "app", whose, at.where, f"{name} beside {model}")


def _type(name: str) -> str | None:
    match = _QUANTIZED.search(name.removesuffix(".gguf"))
    if match is None:
        return None
    kind = match.group(1).lower().replace("fp", "f")
    return "q8_0" if kind == "q8" else kind  # llama.cpp writes no other file type of 8 bits


def _shown(name: str) -> str:
    plain = _QUANTIZED.sub("", re.sub(r"\.gguf$", "", name, flags=re.I))
    plain = re.sub(r"[-_.]?(?:mm-?proj|projector)[-_.]?(?:model)?", "-", plain, flags=re.I)
    return re.sub(r"[-_.]{2,}", "-", plain).strip("-_.")


def _stem(name: str) -> str:
    """A file's name without what says mmproj, quantization and suffix."""
    return re.sub(r"[-_.]+", "-", _shown(name).lower()).strip("-")
