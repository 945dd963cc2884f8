"""From an arm's name to the arm; what an arm needs is imported only when it is built."""

from __future__ import annotations

from devices.phone import Phone
from harness.arms.base import Arm
from harness.bundle import Bundle
from harness.contract import Contract, Runtime
from harness.errors import ArmUnavailable
from harness.ladder import ArmSpec
from harness.planning import Progress


def host_arm(spec: ArmSpec, bundle: Bundle, contract: Contract) -> Arm:
    """The `torch` or `desktop` arm under `contract`; its model is loaded when first needed.

    Raises:
        ArmUnavailable: its package is not installed; names the extra that brings it.
    """
    try:
        if spec.quant is None:
            from harness.arms.torch import TorchArm

            return TorchArm(bundle.checkpoint, contract, name=spec.name)
        from harness.arms.desktop import DesktopArm

        return DesktopArm(bundle, spec.quant, runtime(spec, contract), contract, spec.name)
    except ModuleNotFoundError as error:
        raise ArmUnavailable(
            f"arm {spec.name} needs the package {error.name}: "
            f"pip install 'driftloop[{'torch' if spec.quant is None else 'desktop'}]'"
        ) from error


def phone_arm(
    spec: ArmSpec,
    bundle: Bundle,
    contract: Contract,
    phone: Phone,
    run_id: str,
    progress: Progress,
) -> Arm:
    """The `phone` arm on one phone; its runner is built here if it is not in the cache."""
    from harness.arms.phone import PhoneArm

    return PhoneArm(spec, bundle, contract, runtime(spec, contract), phone, run_id, progress)


def runtime(spec: ArmSpec, contract: Contract) -> Runtime:
    """The app's runtime for `+app`, else the one that quantizes nothing but the weights."""
    return contract.runtime if spec.app_runtime else contract.runtime.reference()
