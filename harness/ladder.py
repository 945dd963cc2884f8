"""The ladder: arm names, and the hops between neighbours with the one thing each changes.

torch:training           the checkpoint under the training side's contract
torch                    the checkpoint under the contract
desktop:QUANT[+app]      llama.cpp here, f16 KV cache; with `+app` the app's runtime
phone:QUANT[+app]        the runner on every phone of the run
app                      the app itself, by the lines it wrote
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from driftloop.harness.errors import BadInput

Kind = Literal["torch", "desktop", "phone", "app"]
Change = Literal["contract", "conversion", "quantization", "runtime", "platform", "app"]
CHANGES: tuple[Change, ...] = get_args(Change)

Role = Literal["training", "app", "phone"]
"""Whose contract, pixels and bundle an arm gets: the training side's, the run's, or those given to
phones (the run's, where phones were given none)."""

Who = tuple[str, str | None]
"""(arm, phone); the phone is None on this host."""

TRAINING = "torch:training"
APP = "app"

_NAME = re.compile(r"(?P<kind>desktop|phone):(?P<quant>[a-z0-9_]+)(?P<app>\+app)?")
FLOAT_TYPES = frozenset({"f32", "f16", "bf16"})
"""Types of weights and of KV caches that are not quantized."""


@dataclass(frozen=True)
class ArmSpec:
    """One arm as its name says it.

    `quant` is None for torch, which runs the checkpoint in f32, and for the app.
    """

    kind: Kind
    quant: str | None
    app_runtime: bool
    training: bool = False
    """Under the training side's contract, with its pixels, instead of the run's."""

    @property
    def name(self) -> str:
        """The arm as users write it."""
        if self.training:
            return TRAINING
        if self.quant is None:
            return self.kind
        return f"{self.kind}:{self.quant}{'+app' if self.app_runtime else ''}"

    @property
    def on_host(self) -> bool:
        """True where the arm needs no phone of the run; the app has answered already."""
        return self.kind != "phone"

    @property
    def role(self) -> Role:
        """What the arm runs under."""
        if self.training:
            return "training"
        return "app" if self.on_host else "phone"


@dataclass(frozen=True)
class Hop:
    """Two neighbouring arms. `changes` holds one thing, or all of them where they are several."""

    changes: tuple[Change, ...]
    reference: str
    reference_phone: str | None
    candidate: str
    phone: str | None

    @property
    def name(self) -> str:
        """The one thing that changed, or `several (...)` naming all."""
        return self.changes[0] if len(self.changes) == 1 else f"several ({', '.join(self.changes)})"

    @property
    def ends(self) -> tuple[Who, Who]:
        """The reference and the candidate."""
        return (self.reference, self.reference_phone), (self.candidate, self.phone)


def parse(name: str) -> ArmSpec:
    """The arm of that name.

    Raises:
        BadInput: no such arm; says how arms are written.
    """
    if name == APP:
        return ArmSpec("app", None, app_runtime=True)
    if name in ("torch", TRAINING):
        return ArmSpec("torch", None, app_runtime=False, training=name == TRAINING)
    match = _NAME.fullmatch(name)
    if match is None:
        raise BadInput(
            f"arm {name!r}: not known; write torch, {TRAINING}, desktop:QUANT, "
            "desktop:QUANT+app, phone:QUANT, phone:QUANT+app or app, for example desktop:q8_0+app"
        )
    kind: Kind = "desktop" if match["kind"] == "desktop" else "phone"
    return ArmSpec(kind, match["quant"], app_runtime=match["app"] is not None)


def parse_ladder(names: Iterable[str], quants: Iterable[str] | None = None) -> tuple[ArmSpec, ...]:
    """The arms of those names, in their order; with `quants`, only types the bundle holds.

    Raises:
        BadInput: an unknown arm, one named twice, none at all, or a quant the bundle lacks.
    """
    known = None if quants is None else sorted(quants)
    specs: list[ArmSpec] = []
    for name in names:
        spec = parse(name.strip())
        if spec in specs:
            raise BadInput(f"arm {spec.name!r} is named twice; name each arm once")
        if known is not None and spec.quant is not None and spec.quant not in known:
            raise BadInput(f"arm {spec.name!r}: the bundle holds only {', '.join(known)}")
        specs.append(spec)
    if not specs:
        raise BadInput("no arms named; leave --arms out for the whole ladder")
    if any(spec.kind == "app" for spec in specs[:-1]):
        raise BadInput(f"arm {APP!r} is the ladder's last: name it after all others")
    return tuple(specs)


def default_ladder(
    quant: str = "q8_0",
    phones: Sequence[str] = (),
    *,
    training: bool = False,
    app: bool = False,
) -> tuple[ArmSpec, ...]:
    """The ladder from the checkpoint down to the phone; without phones, down to `desktop+app`.

    `training`: with the training side's rung on top; `app`: with the app's at the bottom.
    """
    names = [TRAINING] if training else []
    names += ["torch", "desktop:f16", f"desktop:{quant}", f"desktop:{quant}+app"]
    if phones:
        names.append(f"phone:{quant}+app")
    if app:
        names.append(APP)
    return parse_ladder(dict.fromkeys(names))


def hops(specs: Sequence[ArmSpec], phones: Sequence[str]) -> list[Hop]:
    """The hops of a ladder, in its order, each phone's own after those on the host.

    An arm on the host is compared with the one above it. An arm on a phone is compared with the
    last host arm of the same settings; without one, with the last host arm; without any, with
    the arm above it on the same phone. The app is compared with the arm above it: on a phone,
    where the run has only one.
    """
    host = [spec for spec in specs if spec.on_host and spec.kind != "app"]
    mobile = [spec for spec in specs if not spec.on_host]
    found = [_hop(above, None, below, None) for above, below in pairwise(host)]
    for serial in phones:
        if host:
            found += [_hop(_host_reference(host, arm), None, arm, serial) for arm in mobile]
        else:
            found += [_hop(above, serial, below, serial) for above, below in pairwise(mobile)]
    if specs[-1].kind == "app" and len(specs) > 1:
        if mobile and (len(phones) == 1 or not host):
            found.append(_hop(mobile[-1], phones[0], specs[-1], None))
        elif host:
            found.append(_hop(host[-1], None, specs[-1], None))
    return found


def _host_reference(host: Sequence[ArmSpec], spec: ArmSpec) -> ArmSpec:
    same = [arm for arm in host if (arm.quant, arm.app_runtime) == (spec.quant, spec.app_runtime)]
    return (same or host)[-1]


def _hop(above: ArmSpec, above_phone: str | None, below: ArmSpec, phone: str | None) -> Hop:
    return Hop(_changes(above, below), above.name, above_phone, below.name, phone)


def _changes(above: ArmSpec, below: ArmSpec) -> tuple[Change, ...]:
    if below.kind == "app":
        return ("app",)
    kinds = {above.kind, below.kind}
    converted = "torch" in kinds and len(kinds) == 2
    if converted:
        weights = above.quant or below.quant
        requantized = weights not in FLOAT_TYPES
    else:
        requantized = above.quant != below.quant
    changed: dict[Change, bool] = {
        "contract": above.training != below.training,
        "conversion": converted,
        "quantization": requantized,
        "runtime": above.app_runtime != below.app_runtime,
        "platform": (above.kind == "phone") != (below.kind == "phone"),
    }
    return tuple(change for change in CHANGES if changed.get(change))


def located(name: str, phone: str | None) -> str:
    """An arm or a hop with its phone, `platform on SERIAL`; alone on this host."""
    return name if phone is None else f"{name} on {phone}"
