"""Arms on this host over the tiny bundle, and what is compared of their answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from driftloop.harness import contract as contracts
from driftloop.harness.arms.base import Look, Prepared
from driftloop.harness.arms.desktop import DesktopArm
from driftloop.harness.arms.torch import TorchArm
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract, Runtime, Tiling
from driftloop.harness.records.observation import Observation

CONTRACT = contracts.load("default")
APP = CONTRACT.runtime
REFERENCE = APP.reference()

Arm = TorchArm | DesktopArm
Opened = Callable[[Bundle, Contract], Arm]


def torch(bundle: Bundle, contract: Contract = CONTRACT) -> Arm:
    return TorchArm(bundle.checkpoint, contract)


def desktop(quant: str = "f16", runtime: Runtime = REFERENCE) -> Opened:
    def opened(bundle: Bundle, contract: Contract = CONTRACT) -> Arm:
        return DesktopArm(bundle, quant, runtime, contract, f"desktop:{quant}")

    return opened


ARMS: dict[str, Opened] = {"torch": torch, "desktop": desktop()}
"""One of each kind."""


def under(tiling: Tiling) -> Contract:
    return CONTRACT.model_copy(update={"tiling": tiling})


def limited(max_tokens: int, contract: Contract = CONTRACT) -> Contract:
    limits = contract.limits.model_copy(update={"max_tokens": max_tokens})
    return contract.model_copy(update={"limits": limits})


def observed(
    opened: Opened, bundle: Bundle, pictures: Sequence[Prepared], contract: Contract = CONTRACT
) -> list[Observation]:
    with closing(opened(bundle, contract)) as arm:
        return list(arm.observe(pictures))


def looked(
    opened: Opened, bundle: Bundle, pictures: Sequence[Prepared], contract: Contract = CONTRACT
) -> list[Look]:
    with closing(opened(bundle, contract)) as arm:
        return list(arm.record(pictures))


def ids(observation: Observation) -> list[int]:
    return [token.id for token in observation.tokens or ()]


def answers(observation: Observation) -> dict[str, object]:
    """What an arm computed, without where, when and how fast."""
    fields = {
        "prompt_ids", "grid", "tokens", "label_logprobs", "evidence", "text", "stop_reason", "error"
    }  # fmt: skip
    return observation.model_dump(include=fields)
