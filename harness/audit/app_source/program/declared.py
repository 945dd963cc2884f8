"""What the files declare, and which C function a Kotlin or Java function runs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from harness.audit.app_source.language.tree import (
    Cast,
    Class,
    Function,
    Items,
    Literal,
    Macro,
    Name,
    Node,
    Unary,
    Variable,
)
from harness.audit.app_source.sources import Sources


class Declared:
    """Functions, variables, classes and macros by name."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        units = list(sources.units.values())
        self.functions = [item for unit in units for item in unit.functions]
        self.named: dict[str, list[Function]] = _by_name(self.functions)
        self.variables: dict[str, list[Variable]] = _by_name(
            [item for unit in units for item in unit.variables]
        )
        self.classes: dict[str, list[Class]] = _by_name([i for unit in units for i in unit.classes])
        self.macros: dict[str, list[Macro]] = _by_name([i for unit in units for i in unit.macros])
        self.natives = self._linked()

    def _linked(self) -> dict[Function, Function]:
        """Kotlin's `external` and Java's `native` functions to their C functions."""
        registered = self._registered()
        exported: dict[tuple[str, str], Function] = {}
        for function in self.functions:
            if (
                function.language == "native"
                and function.name.startswith("Java_")
                and function.body is not None
            ):
                words = _demangled(function.name)
                exported[words[-2:][0], words[-1]] = function
        linked = {}
        for function in self.functions:
            if "external" not in function.marks:
                continue
            owner = function.owner or function.at.file.rsplit("/", 1)[-1].replace(".kt", "Kt")
            found = exported.get((owner, function.name)) or registered.get(function.name)
            if found is None:
                same = [item for (_, name), item in exported.items() if name == function.name]
                found = same[0] if len(same) == 1 else None
            if found is not None:
                linked[function] = found
        return linked

    def _registered(self) -> dict[str, Function]:
        found = {}
        for variables in self.variables.values():
            for variable in variables:
                if variable.type.startswith("JNINativeMethod") and isinstance(
                    variable.value, Items
                ):
                    for entry in variable.value.items:
                        parts = entry.value.items if isinstance(entry.value, Items) else ()
                        if len(parts) == 3 and isinstance(parts[0].value, Literal):
                            target = _bare(parts[2].value)
                            name = target.text if isinstance(target, Name) else ""
                            for function in self.named.get(name, []):
                                if function.body is not None:
                                    found[str(parts[0].value.value)] = function
        return found

    def family(self, owner: str | None) -> set[str | None]:
        """A class with the classes it comes from."""
        seen: set[str | None] = set()
        ahead = [owner]
        while ahead:
            name = ahead.pop()
            if name and name not in seen:
                seen.add(name)
                ahead += [parent for item in self.classes.get(name, []) for parent in item.supers]
        return seen

    def heirs(self, owner: str) -> set[str | None]:
        """The classes that come from `owner`."""
        return {n for n in self.classes if n != owner and owner in self.family(n)}

    def visible(self, name: str, function: Function) -> list[Variable]:
        """The field or global that `name` stands for in `function`: the nearest first."""
        known = [v for v in self.variables.get(name, []) if v.language == function.language]
        kin = self.family(function.owner)
        own = [v for v in known if v.owner is not None and v.owner in kin]
        file = [v for v in known if v.at.file == function.at.file]
        free = [v for v in known if v.owner is None]
        top = [v for v in file if v.owner is None]
        return own or top or free or file or (known if len(known) == 1 else [])


def _by_name(items: Iterable[object]) -> dict[str, list]:  # type: ignore[type-arg]
    found = defaultdict(list)
    for item in items:
        found[item.name].append(item)  # type: ignore[attr-defined]
    return found


def _bare(node: Node) -> Node:
    while isinstance(node, Cast | Unary):
        node = node.value
    return node


def _demangled(name: str) -> list[str]:
    """`Java_a_b_C_load_1model__I` -> [a, b, C, load_model]."""
    body = name.removeprefix("Java_").split("__")[0]
    parts = re.split(r"_(?![123])", body)
    plain = [re.sub(r"_1", "_", part) for part in parts]
    return plain if len(plain) > 1 else ["", *plain]
