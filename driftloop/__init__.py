"""Does the phone still say what the checkpoint says; if not, which step changed it; and is it
still fast enough?

    import driftloop

    request = driftloop.RunRequest(
        bundle=Path("my-bundle"), images="photos/", out=Path("runs/1.4.0"), phones=("all",)
    )
    run = driftloop.evaluate(request)
    print(run.verdict.headline)
    run.to_frame().groupby("arm")["total_ms"].median()

    driftloop.load(Path("runs/1.3.0")).verdict

The command line uses these names too. Each is imported when it is first used, so that
`import driftloop` loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftloop.devices.adb import attached
    from driftloop.devices.errors import DeviceError
    from driftloop.harness.contract import Contract
    from driftloop.harness.errors import DriftloopError
    from driftloop.harness.evaluation import Evaluation, load
    from driftloop.harness.judgement.verdict import Verdict
    from driftloop.harness.records.observation import Observation
    from driftloop.harness.running.request import RunRequest
    from driftloop.harness.running.run import evaluate

__all__ = [
    "Contract",
    "DeviceError",
    "DriftloopError",
    "Evaluation",
    "Observation",
    "RunRequest",
    "Verdict",
    "attached",
    "evaluate",
    "load",
]

_HOMES = {
    "attached": "devices.adb",
    "DeviceError": "devices.errors",
    "Contract": "harness.contract",
    "DriftloopError": "harness.errors",
    "Evaluation": "harness.evaluation",
    "load": "harness.evaluation",
    "Verdict": "harness.judgement.verdict",
    "Observation": "harness.records.observation",
    "RunRequest": "harness.running.request",
    "evaluate": "harness.running.run",
}
"""The module that each name is defined in."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'driftloop' has no attribute {name!r}")
    return getattr(import_module(f"driftloop.{_HOMES[name]}"), name)
