"""What a name stands for: its declaration, assignments, arguments of calls, fields, lambdas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Self

from harness.audit.app_source.language.tree import (
    Assign,
    Call,
    Choice,
    Declare,
    Element,
    Function,
    If,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Opaque,
    Param,
    Unary,
    Variable,
    text_of,
    walk,
)
from harness.audit.app_source.program.graph import Program, Site, params_with_defaults
from harness.audit.app_source.program.plain import ITSELF, Known, Origin, Unknown, Worth

Pins = Mapping[Function, Site]


class Names:
    """Origins of names under `pins`: calls already chosen for functions that several places
    call."""

    def __init__(self, program: Program, pins: Pins | None = None) -> None:
        self.program = program
        self.pins: dict[Function, Site] = dict(pins or {})
        self._busy: set[tuple[int, int]] = set()

    def pinned(self, *sites: tuple[Function, Site]) -> Self:
        """The same with those calls chosen."""
        return type(self)(self.program, {**self.pins, **dict(sites)})

    # names

    def sites(self, function: Function) -> list[Site]:
        """The calls that lead to `function`."""
        if function in self.pins:
            return [self.pins[function]]
        return self.program.sites.get(function, [])

    def params(self, function: Function) -> tuple[Param, ...]:
        return params_with_defaults(self.program, function)

    def arguments(self, function: Function, position: int) -> list[Origin]:
        """What the calls of `function` give for one parameter; its default where they give none."""
        param = self.params(function)[position]
        found: list[Origin] = []
        for site in self.sites(function):
            given = site.call.argument(position - site.skipped, param.name)
            if given is not None:
                found.append(Origin(given, site.caller, site))
            elif param.default is not None:
                found.append(Origin(param.default, function, site))
        if not found and param.default is not None:
            found.append(Origin(param.default, function))
        return found

    def origins(self, name: Name, function: Function) -> list[Origin]:
        """Every expression `name` may stand for: declaration, assignments, arguments, fields."""
        program = self.program
        local = program.local(name.text, function, name.at.offset)
        bound = program.bound_by(name, function)
        if bound is not None and (local is None or bound[0].span[0] > local.scope[0]):
            return self._given(bound, function)
        if local is not None:
            found = [Origin(local.value, function)] if local.value is not None else []
            found += [
                Origin(item.value, function)
                for item in self._assigned(name.text, function)
                if program.local(name.text, function, item.at.offset) is local
            ]
            return [*found, *self._changed(name.text, function, local)]
        for position, param in enumerate(function.params):
            if param.name == name.text:
                return self.arguments(function, position)
        return self._field(name, function)

    def _changed(self, name: str, function: Function, local: Declare) -> list[Origin]:
        """Where a number is counted up, or a native function is given its address to write to."""
        for node in self.program.nodes(function):
            match node:
                case Unary(op="++" | "--", value=Name(text=text)):
                    pass
                case Assign(target=Name(text=text), op=op) if op != "=":
                    pass
                case Call(args=args):
                    given = (
                        arg.value.value.text
                        for arg in args
                        if isinstance(arg.value, Unary)
                        and arg.value.op == "&"
                        and isinstance(arg.value.value, Name)
                    )
                    text = name if name in given else ""
                case _:
                    continue
            if text == name and self.program.local(name, function, node.at.offset) is local:
                return [
                    Origin(Opaque(node.at, f"{name} is changed in line {node.at.line}"), function)
                ]
        return []

    def _assigned(self, name: str, function: Function) -> list[Assign]:
        return [
            node
            for node in self.program.nodes(function)
            if isinstance(node, Assign)
            and node.op == "="
            and isinstance(node.target, Name)
            and node.target.text == name
        ]

    def _given(self, bound: tuple[Lambda, int, Call | None], function: Function) -> list[Origin]:
        """What a lambda's parameter is: the receiver of `let`, an element for `map`, ..."""
        _, position, call = bound
        if call is None:
            return []
        if call.target is not None and call.name in (
            "let",
            "also",
            "use",
            "takeIf",
            "run",
            "apply",
            "useLines",
        ):
            return [Origin(call.target, function)]
        each = call.name in (
            "forEach",
            "map",
            "any",
            "find",
            "first",
            "firstOrNull",
            "mapNotNull",
            "filter",
            "all",
            "flatMap",
            "indexOfFirst",
            "associateWith",
            "anyMatch",
            "joinToString",
            "last",
            "firstNotNullOfOrNull",
            "single",
            "singleOrNull",
        )
        indexed = call.name in ("forEachIndexed", "mapIndexed") and position == 1
        if call.target is not None and (each or indexed):
            return [Origin(Element(call.at, call.target), function)]
        for target in self.program.targets(call, function):
            for param in target.params:
                inside = self.program.calls_of([param.name], [target])
                for made, home in inside:
                    argument = made.argument(position)
                    if argument is not None:
                        return [Origin(argument, home)]
        return []

    def _field(self, name: Name, function: Function) -> list[Origin]:
        variables = self.program.visible(name.text, function)
        if variables:
            return self.variable(variables[0])
        for item in self.program.classes.get(function.owner or "", []):
            for position, param in enumerate(item.params):
                if param.name == name.text:
                    return self._constructed(item.name, position, param, function)
        return []

    def variable(self, variable: Variable) -> list[Origin]:
        """A constant's or field's value and what is assigned to it."""
        home = Function(variable.at, "<field>", variable.owner, (), (), "", variable.language)
        initial = [Origin(variable.value, home)] if variable.value is not None else []
        if variable.fixed:
            return initial
        given: list[Origin] = []
        for assign, caller in self.program.assignments.get(variable.name, []):
            if self._meant(assign.target, variable, caller):
                changed = Opaque(assign.at, f"{variable.name} is changed in {assign.at.where}")
                given.append(Origin(assign.value if assign.op == "=" else changed, caller))
        given += self._constructor_gives(variable)
        placeholder = isinstance(variable.value, Literal) and not variable.value.value
        return given if given and (placeholder or not initial) else [*initial, *given]

    def _meant(self, target: Node, variable: Variable, caller: Function) -> bool:
        if caller.language != variable.language:
            return False
        if isinstance(target, Name):
            if self.program.local(target.text, caller, target.at.offset):
                return False
            if target.text in (param.name for param in caller.params):
                return False
            return variable in self.program.visible(target.text, caller)[:1]
        if isinstance(target, Member) and variable.owner is not None:
            owner = self.program.type_of(target.target, caller)
            return owner in self.program.heirs(variable.owner) | {variable.owner}
        return False

    def _constructor_gives(self, variable: Variable) -> list[Origin]:
        """C++ member initializers and enum entries are not followed; data classes are."""
        for item in self.program.classes.get(variable.owner or "", []):
            for position, param in enumerate(item.params):
                if param.name == variable.name and variable.language == "jvm":
                    home = Function(variable.at, "<field>", variable.owner, (), (), "", "jvm")
                    return self._constructed(item.name, position, param, home)
        return []

    def _constructed(
        self, owner: str, position: int, param: Param, function: Function
    ) -> list[Origin]:
        found = []
        for node, caller in self.program.calls_of([owner], self.program.live):
            given = node.argument(position, param.name) if node.target is None else None
            if given is not None:
                found.append(Origin(given, caller))
            elif param.default is not None and node.target is None:
                found.append(Origin(param.default, function))
        if not found and param.default is not None:
            found = [Origin(param.default, function)]
        return found

    def values(self, node: Node, function: Function) -> list[Worth]:
        """All values `node` may have."""
        raise NotImplementedError

    def one(self, node: Node | None, function: Function) -> Worth:
        """The single value of `node`; `Unknown` where it depends on who calls."""
        if node is None:
            return Unknown("it is not given", function.at)
        found = self.values(node, function)
        known: dict[tuple[type, object], Known] = {}
        for item in found:
            if isinstance(item, Unknown):
                return item
            known.setdefault((type(item.value), item.value), item)
        if not known:
            return Unknown(f"{text_of(node)} is made at run time", node.at)
        if len(known) > 1:
            listed = " or ".join(f"{item.value!r} ({item.at.where})" for item in known.values())
            return Unknown(f"it is {listed}, by what happens at run time", node.at)
        return next(iter(known.values()))

    def number(self, node: Node | None, function: Function) -> int | float | None:
        found = self.one(node, function)
        value = found.value if isinstance(found, Known) else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def flag(self, node: Node | None, function: Function) -> bool | None:
        """What a condition is under the pins."""
        found = self.one(node, function)
        if isinstance(found, Known) and isinstance(found.value, bool):
            return found.value
        return None

    def runs(self, node: Node, function: Function) -> bool:
        """Whether no condition around `node` is known to keep it from running."""
        below = node
        for outer in self.program.ancestors(node, function):
            if isinstance(outer, If) and below is not outer.condition:
                taken = any(below is part or below in walk(part) for part in outer.then)
                if self.flag(outer.condition, function) is (not taken):
                    return False
            below = outer
        return True

    def _through(self, origins: list[Origin]) -> list[Worth]:
        found: list[Worth] = []
        for origin in origins:
            for item in self.values(origin.node, origin.function):
                if origin.site is not None:
                    if isinstance(item, Unknown) and item.why == ITSELF:
                        continue  # a function that hands its own argument on to itself
                    target = self._callee(origin)
                    if target is not None:
                        item = replace(item, sites=((target, origin.site), *item.sites))
                found.append(item)
        known = [item for item in found if not (isinstance(item, Known) and item.value is None)]
        return known or found

    def _callee(self, origin: Origin) -> Function | None:
        if origin.site is None:
            return None
        targets = self.program.targets(origin.site.call, origin.site.caller)
        for target in targets:
            if origin.site.skipped and target in self.program.natives:
                return self.program.natives[target]
            if not origin.site.skipped:
                return target
        return None

    def instances(
        self, node: Node, function: Function, depth: int = 0
    ) -> list[tuple[Call, Function]]:
        """The constructor calls `node` may come from."""
        if depth > 8:
            return []
        if isinstance(node, Call) and node.target is None and node.name in self.program.classes:
            return [(node, function)]
        if isinstance(node, Name):
            return [
                item
                for origin in self.origins(node, function)
                for item in self.instances(origin.node, origin.function, depth + 1)
            ]
        if isinstance(node, Call) and node.name in ("apply", "also", "copy") and node.target:
            return self.instances(node.target, function, depth + 1)
        if isinstance(node, Element):
            return self._entries(node.collection)
        if isinstance(node, Member):
            entries = [v for v in self.program.variables.get(node.name, []) if v.fixed]
            owner = text_of(node.target).rsplit(".", 1)[-1]
            return [item for v in entries if v.owner == owner for item in _entry(v)]
        if isinstance(node, Choice):
            return [
                item
                for part in (node.yes, node.no)
                for item in self.instances(part, function, depth + 1)
            ]
        return []

    def _entries(self, collection: Node) -> list[tuple[Call, Function]]:
        """The entries of an enum: `Element.entries`, `Element.values()`."""
        if not isinstance(collection, Member | Call) or collection.name not in (
            "entries",
            "values",
        ):
            return []
        owner = text_of(collection.target).rsplit(".", 1)[-1]
        variables = [
            v for known in self.program.variables.values() for v in known if v.owner == owner
        ]
        ordered = sorted(variables, key=lambda variable: variable.at)
        return [item for variable in ordered for item in _entry(variable)]


def _entry(variable: Variable) -> list[tuple[Call, Function]]:
    """An enum entry's constructor call."""
    made = variable.value
    if not isinstance(made, Call) or made.name != variable.owner:
        return []
    home = Function(variable.at, "<field>", variable.owner, (), (), "", variable.language)
    return [(made, home)]
