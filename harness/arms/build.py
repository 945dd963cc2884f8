"""From an arm's name to the arm; what an arm needs is imported only when it is built."""

from __future__ import annotations

from harness.arms.base import Arm, Side
from harness.contract import Contract, Runtime
from harness.errors import ArmUnavailable
from harness.ladder import ArmSpec


def host_arm(spec: ArmSpec, side: Side) -> Arm:
    """The `torch` or `desktop` arm of that side; its model is loaded when first needed.

    Raises:
        ArmUnavailable: its package is not installed; names the extra that brings it.
    """
    try:
        if spec.quant is None:
            from harness.arms.torch import TorchArm

            return TorchArm(side.bundle.checkpoint, side.contract, name=spec.name)
        from harness.arms.desktop import DesktopArm

        under = runtime(spec, side.contract)
        return DesktopArm(side.bundle, spec.quant, under, side.contract, spec.name)
    except ModuleNotFoundError as error:
        raise ArmUnavailable(
            f"arm {spec.name} needs the package {error.name}: "
            f"pip install 'driftloop[{'torch' if spec.quant is None else 'desktop'}]'"
        ) from error


def runtime(spec: ArmSpec, contract: Contract) -> Runtime:
    """The app's runtime for `+app`, else the one that quantizes nothing but the weights."""
    return contract.runtime if spec.app_runtime else contract.runtime.reference()
