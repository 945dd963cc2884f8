"""Whether a run folder's run is the one that is asked for, so that it can go on; pure."""

from __future__ import annotations

from harness.contract import Contract, differing
from harness.records.record import CaseRecord, RunRecord


def differences(earlier: RunRecord, wanted: RunRecord) -> list[str]:
    """What makes them two runs, in words; empty where `wanted` may go on with `earlier`."""
    found = []
    for name, there, asked in (
        ("contract", earlier.contract, wanted.contract),
        ("training contract", earlier.training, wanted.training),
    ):
        # Without the arm `torch:training` there is no training contract, and the arms differ.
        if there and asked and (fields := _changed_fields(there, asked)):
            found.append(f"{name} differs in {', '.join(fields)}")
    if earlier.bundle.sha256 != wanted.bundle.sha256:
        found.append(f"bundle is {earlier.bundle.path} ({earlier.bundle.sha256[:12]})")
    if _places(earlier) != _places(wanted):
        found.append(f"cases differ ({len(earlier.cases)} there, {len(wanted.cases)} asked for)")
    if earlier.arms != wanted.arms:
        found.append(f"arms are {','.join(earlier.arms)}")
    if earlier.seed != wanted.seed:
        found.append(f"seed is {earlier.seed}")
    if earlier.phone_side != wanted.phone_side:
        found.append("phones were given another contract, bundle or runner")
    if (earlier.app and earlier.app.sha256) != (wanted.app and wanted.app.sha256):
        found.append("the app's lines are others")
    if earlier.sampling != wanted.sampling:
        found.append(f"--fixed is {earlier.sampling.fixed}")
    return found


def _changed_fields(there: Contract, asked: Contract) -> list[str]:
    earlier, wanted = (one.model_dump(mode="json", exclude={"name"}) for one in (there, asked))
    return [name for name, _, _ in differing(earlier, wanted)]


def _places(record: RunRecord) -> list[CaseRecord]:
    # Not by path: a folder of images may have moved.
    return [case.model_copy(update={"path": ""}) for case in record.cases]
