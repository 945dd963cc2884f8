"""What every arm is: a name, an attestation, and a generator of observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from driftloop.devices.runner.protocol import Attestation
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract, Runtime
from driftloop.harness.errors import ArmUnavailable
from driftloop.harness.ladder import ArmSpec, Who
from driftloop.harness.records.observation import Canary, Observation, Place

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from driftloop.harness.arms.trajectory import Trajectory

    Tensor = NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """One image ready for every arm below the contract: its place in the run and its pixels."""

    case_id: str
    session: int
    position: int
    pixels_path: Path
    """A PNG holding exactly what the model sees."""
    pixels_sha256: str
    """SHA-256 over the RGB bytes, row by row."""
    canary: Canary | None = None
    """What this image watches for; None for a case of the run."""


@dataclass(frozen=True)
class Side:
    """One role's contract and bundle, and every image in its place."""

    contract: Contract
    bundle: Bundle
    images: dict[Place, Prepared] = field(default_factory=dict, repr=False)
    """The canaries' too; empty until they are prepared."""


class StageFailed(Exception):
    """One image cannot be answered; `kind` is a `RunnerFault`'s."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        super().__init__(detail)


@dataclass(frozen=True)
class Look:
    """One image looked at closely: the observation, and every tensor on the way to it."""

    observation: Observation
    tensors: dict[str, Tensor] = field(repr=False)
    """In the order of computation: `pixels`, the vision layers, `embed`, the text layers,
    `prefill`; layers as `harness.arms.layers` names them."""


@dataclass(frozen=True)
class Twins:
    """One image answered, and again with a negligible change: how far rounding alone carries on
    this model. Of a twin only the first token is generated."""

    own: Observation
    embed: Observation
    """With slightly moved image embeddings."""
    pixels: Observation | None
    """With slightly moved pixel values in the vision graph; None where not asked for."""


class Arm(Protocol):
    """One way to run a case.

    A fault inside one image is stored in its observation; an exception means that the arm as a
    whole cannot go on.
    """

    name: str
    phone: str | None

    def attest(self) -> Attestation:
        """Who answers: build, machine and settings. May load the model."""

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Yields one observation per image, in order."""

    def record(self, images: Sequence[Prepared]) -> Iterator[Look]:
        """Runs `images` in deep mode, in a process or model of their own."""

    def drive(self, images: Sequence[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """Runs each image along a reference's trajectory: every layer gets the reference's input,
        and `Observation.driven` says how far its output is from the reference's."""


class TwinArm(Arm, Protocol):
    """An arm that can measure how far its own rounding carries."""

    def twin(self, images: Sequence[Prepared], seed: int, vision: int) -> Iterator[Twins]:
        """Answers each image and its twins, moved by noise drawn from `seed`. The first `vision`
        images also get a twin with moved pixel values, which runs the vision tower again."""


def observed(
    who: Who, contract: Contract, image: Prepared, answer: Mapping[str, Any]
) -> Observation:
    """An arm's `answer` (fields of `Observation`) with its place, arm and contract. The contract
    reads the label unless the answer has one or an error."""
    arm, phone = who
    label = None if answer.get("error") else contract.answer.read(answer["text"])
    return Observation(
        **{"label": label, **answer},
        contract_sha256=contract.sha256,
        arm=arm,
        phone=phone,
        case_id=image.case_id,
        session=image.session,
        position=image.position,
        canary=image.canary,
    )


def host_arm(spec: ArmSpec, side: Side) -> Arm:
    """The `torch` or `desktop` arm of that side; its model is loaded when first needed.

    Raises:
        ArmUnavailable: its package is not installed.
    """
    with extra_named(spec):
        if spec.quant is None:
            from driftloop.harness.arms.torch import TorchArm

            return TorchArm(side.bundle.checkpoint, side.contract, name=spec.name)
        from driftloop.harness.arms.desktop import DesktopArm

        return DesktopArm(
            side.bundle, spec.quant, runtime(spec, side.contract), side.contract, spec.name
        )


@contextmanager
def extra_named(spec: ArmSpec) -> Iterator[None]:
    """Turns a missing package into ArmUnavailable, which names the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ArmUnavailable(
            f"arm {spec.name} needs the package {error.name}: "
            f"pip install 'driftloop[{'torch' if spec.quant is None else 'desktop'}]'"
        ) from error


def runtime(spec: ArmSpec, contract: Contract) -> Runtime:
    """The app's runtime for `+app`, else the one that quantizes nothing but the weights."""
    return contract.runtime if spec.app_runtime else contract.runtime.reference()
