"""Who declares what, who calls whom, and what of it can run at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from harness.audit.app_source.language.tree import (
    Assign,
    Call,
    Cast,
    Function,
    Lambda,
    Literal,
    Member,
    Name,
    Node,
    Param,
    Unary,
)
from harness.audit.app_source.program.kinds import DOUBLES, FLOATS, WHOLE, Kinds, number_kind
from harness.audit.app_source.sources import Sources

VISION_CALLS = frozenset(
    {
        "mtmd_tokenize",
        "mtmd_helper_eval_chunks",
        "mtmd_helper_eval_chunk_single",
        "mtmd_encode_chunk",
        "mtmd_bitmap_init",
        "mtmd_helper_bitmap_init_from_buf",
        "mtmd_helper_bitmap_init_from_file",
        "mtmd_init_from_file",
        "llava_image_embed_make_with_bytes",
        "llava_eval_image_embed",
        "AndroidBitmap_lockPixels",
    }
)
"""What the image's way into the model ends in."""


class Site(NamedTuple):
    """A call of a function."""

    caller: Function
    call: Call
    skipped: int
    """Parameters before the first argument: 2 at a JNI function (env and this)."""


class Program(Kinds):
    """All files together."""

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources)
        self.building: dict[Function, dict[str, list[tuple[Node, Node]]]] = {}
        """What `values.py` remembers of the texts each function builds."""
        self._linking: set[Call] = set()
        self._known_targets: dict[Call, tuple[Function, ...]] = {}
        self.calls: dict[str, list[tuple[Call, Function]]] = defaultdict(list)
        for function in self.functions:
            for node in self.nodes(function):
                if isinstance(node, Call):
                    self.calls[node.name].append((node, function))
        self.edges = {f: list(self._edges(f)) for f in self.functions if f.body is not None}
        self.reaching = self._reaching()
        self.live = self._live()
        self.sites: dict[Function, list[Site]] = defaultdict(list)
        self.assignments: dict[str, list[tuple[Assign, Function]]] = defaultdict(list)
        for caller in self.functions:
            if caller in self.live:
                self._index(caller)

    # bodies

    def targets(self, call: Call, caller: Function) -> tuple[Function, ...]:
        """The functions a call may run, by name, number of arguments and its receiver's type."""
        if call in self._linking:
            return ()
        if call not in self._known_targets:
            self._linking.add(call)
            try:
                self._known_targets[call] = self._linked_to(call, caller)
            finally:
                self._linking.discard(call)
        return self._known_targets[call]

    def _linked_to(self, call: Call, caller: Function) -> tuple[Function, ...]:
        found = [f for f in self.named.get(call.name, []) if f.language == caller.language]
        found = [f for f in found if _accepts(f, call)] or (
            found if caller.language == "native" else []
        )
        if isinstance(call.target, Name) and call.target.text == "super":
            return ()
        found = self._fitting(found, call, caller) or found
        with_body = [
            f for f in found if f.body is not None or "external" in f.marks or f.language == "jvm"
        ]
        found = with_body or found
        if call.target is None or (isinstance(call.target, Name) and call.target.text == "this"):
            own = [f for f in found if f.owner is not None and f.owner in self.family(caller.owner)]
            free = [f for f in found if f.owner is None]
            same = [f for f in free if f.at.file == caller.at.file]
            return tuple(own or same or free or (found if call.target is None else []))
        owner = self.type_of(call.target, caller)
        if owner:
            kin = self.family(owner) | self.heirs(owner)
            typed = [f for f in found if f.owner in kin]
            typed += [
                g for f in typed if f.body is None for g in self._overriding(f) if g not in typed
            ]
            if typed:
                return tuple(f for f in typed if f.body is not None or f in self.natives) or tuple(
                    typed
                )
            if owner in self.classes or owner in WHOLE | FLOATS | DOUBLES | {"String", "string"}:
                return tuple(f for f in found if f.owner is None and caller.language == "jvm")
        distinct = {f.owner for f in found}
        return tuple(found) if len(distinct) == 1 and len(call.name) > 3 else ()

    def _overriding(self, function: Function) -> list[Function]:
        """The functions that stand for an abstract one; they inherit its defaults."""
        heirs = self.heirs(function.owner or "")
        return [
            f
            for f in self.named.get(function.name, [])
            if f.owner in heirs and len(f.params) == len(function.params)
        ]

    def _fitting(self, found: list[Function], call: Call, caller: Function) -> list[Function]:
        """Of several overloads, those whose parameters may have the arguments' types."""
        if len(found) < 2 or caller.language == "native":
            return found
        kinds = [self.type_of(arg.value, caller) for arg in call.args]
        return [
            function
            for function in found
            if all(
                not kind
                or kind == number_kind(param.type)
                or not _telling(param.type)
                or kind in self.heirs(param.type)
                for kind, param in zip(kinds, function.params, strict=False)
            )
        ]

    def _edges(self, function: Function) -> Iterator[Function]:
        for node in self.nodes(function):
            if isinstance(node, Call):
                yield from self.targets(node, function)
            elif (
                isinstance(node, Name) and node.text in self.named and self._refers(node, function)
            ):
                yield from (f for f in self.named[node.text] if f.language == function.language)
            elif isinstance(node, Member) and node.name in self.named:
                getters = [f for f in self.named[node.name] if "getter" in f.marks]
                yield from getters

    def _refers(self, name: Name, function: Function) -> bool:
        if self.local(name.text, function, name.at.offset) or name.text in (
            p.name for p in function.params
        ):
            return False
        return self.bound_by(name, function) is None

    def called(self, function: Function) -> Iterator[Function]:
        """What `function` calls, through JNI."""
        for target in self.edges.get(function, []):
            yield target
            if target in self.natives:
                yield self.natives[target]
        if function in self.natives:
            yield self.natives[function]

    def closure(self, start: Iterable[Function]) -> set[Function]:
        """`start` and everything it leads to."""
        seen: set[Function] = set()
        ahead = list(start)
        while ahead:
            function = ahead.pop()
            if function not in seen:
                seen.add(function)
                ahead += self.called(function)
        return seen

    def calls_of(
        self, names: Iterable[str], among: Iterable[Function]
    ) -> list[tuple[Call, Function]]:
        """The calls of functions by those names that can run, in source order."""
        within = frozenset(among)
        found = [item for name in names for item in self.calls.get(name, []) if item[1] in within]
        return sorted(found, key=lambda item: item[0].at)

    def _reaching(self) -> frozenset[Function]:
        """The functions that lead to the image's way into the model."""
        return self.leading_to({f for _, f in self.calls_of(VISION_CALLS, list(self.edges))})

    def leading_to(self, ends: set[Function]) -> frozenset[Function]:
        """`ends` and the functions that lead to one of them."""
        callers: dict[Function, set[Function]] = defaultdict(set)
        for function in [*self.edges, *self.natives]:
            for target in self.called(function):
                callers[target].add(function)
        seen: set[Function] = set()
        ahead = list(ends)
        while ahead:
            function = ahead.pop()
            if function not in seen:
                seen.add(function)
                ahead += callers[function]
        return frozenset(seen)

    def _live(self) -> frozenset[Function]:
        """What can run: from what the system calls, or where that leads to no image or to no
        model, from what nothing here calls and leads to one."""
        system = [f for f in self.functions if self._entered(f)]
        live = self.closure(system)
        loaders = {f for _, f in self.calls_of(_LOADING, list(self.edges))}
        runs_images = self._runs_images(live)
        if runs_images and not loaders.isdisjoint(live):
            return frozenset(live)
        called = {t for f in self.edges for t in self.called(f) if t is not f}
        # A native function is called as the method that declares it is, and no other way.
        marks = {native: declared.marks for declared, native in self.natives.items()}
        if not runs_images:
            leading = self.reaching or self.edges
            uncalled = [f for f in leading if f not in called and f.body is not None]
            hidden = {"private", "@Deprecated", "@Suppress"}
            public = [f for f in uncalled if not hidden & marks.get(f, f.marks)]
            live |= self.closure(public or uncalled)
        others = [f for f in self.functions if f not in called and f.body is not None]
        loading = self.leading_to(loaders)
        live |= self.closure(
            f for f in others if f in loading and "private" not in marks.get(f, f.marks)
        )
        return frozenset(live)

    def _entered(self, function: Function) -> bool:
        """Whether the system calls it: overrides, composables, initializers, `main`, JNI's own."""
        if function.body is None:
            return False
        if function.language == "native":
            exported = function.name.startswith("Java_") and not self.natives
            return exported or function.name in ("JNI_OnLoad", "main")
        if "initializer" in function.marks or function.name == "main":
            return True
        if "override" in function.marks:
            supers = {s for item in self.classes.get(function.owner or "", []) for s in item.supers}
            return bool(supers - set(self.classes)) or function.owner is None
        return bool({"@Composable", "@JavascriptInterface", "@ReactMethod"} & function.marks)

    def _runs_images(self, live: set[Function]) -> bool:
        return bool(self.calls_of(VISION_CALLS - {"mtmd_init_from_file"}, live))

    def _index(self, caller: Function) -> None:
        for node in self.nodes(caller):
            if isinstance(node, Call):
                for target in self.targets(node, caller):
                    self.sites[target].append(Site(caller, node, 0))
                    if target in self.natives:
                        self.sites[self.natives[target]].append(Site(caller, node, 2))
            elif isinstance(node, Assign):
                self.assignments[_assigned(node.target)].append((node, caller))
            elif isinstance(node, Unary) and node.op in ("++", "--"):
                step = Assign(node.at, node.value, "+=", Literal(node.at, 1, "int"))
                self.assignments[_assigned(node.value)].append((step, caller))


_LOADING = ("llama_init_from_model", "llama_new_context_with_model", "mtmd_init_from_file")


def params_with_defaults(program: Program, function: Function) -> tuple[Param, ...]:
    """A function's parameters, with the defaults that only its declaration says: in a header, or
    in the interface."""
    defaults: dict[int, Node] = {}
    for other in program.named.get(function.name, []):
        declared = other.body is None and other.owner in program.family(function.owner) | {None}
        if declared and len(other.params) == len(function.params):
            defaults |= {i: p.default for i, p in enumerate(other.params) if p.default is not None}
    return tuple(
        param._replace(default=param.default or defaults.get(position))
        for position, param in enumerate(function.params)
    )


def _telling(kind: str) -> bool:
    """Whether a type's name says what can be given: no type parameter and no function."""
    return (
        len(kind) > 1
        and kind[0].isupper()
        and "(" not in kind
        and kind not in ("Any", "Object", "Number")
    )


def _assigned(node: Node) -> str:
    match node:
        case Name(text=name) | Member(name=name):
            return name
        case Unary(op="*", value=value):
            return _assigned(value)
        case Cast(value=value):
            return _assigned(value)
    return ""


def _accepts(function: Function, call: Call) -> bool:
    needed = sum(param.default is None for param in function.params)
    count = len(call.args)
    if function.language == "native":
        return count <= len(function.params)
    lambdas = sum(isinstance(arg.value, Lambda) for arg in call.args)
    return needed - lambdas <= count <= len(function.params) or function.name == "<init>"
