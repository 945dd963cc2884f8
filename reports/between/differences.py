"""What else differs between two runs, so that no one takes its effect for another's."""

from __future__ import annotations

from harness.records.record import RunRecord


def differences(now: RunRecord, before: RunRecord) -> tuple[str, ...]:
    """One line each, with both values."""
    found = []
    if now.contract_sha256 != before.contract_sha256:
        old, new = (f"{one.contract.name} ({one.contract_sha256[:8]})" for one in (before, now))
        found.append(f"contract: {old} before, {new} now")
    trained = [one.training for one in (before, now)]
    if len({side and side.sha256 for side in trained}) > 1:
        old, new = (side.name if side else "none" for side in trained)
        found.append(f"training contract: {old} before, {new} now")
    if now.bundle.sha256 != before.bundle.sha256:
        old, new = before.bundle.sha256, now.bundle.sha256
        found.append(f"bundle: {old[:12]} before, {new[:12]} now")
    if now.phone_side != before.phone_side:
        found.append("phones were given something else in place of the ladder's own")
    old, new = (_builds(one) for one in (before, now))
    if old != new:
        found.append(f"llama.cpp: {old} before, {new} now")
    found += [
        f"{name}: {before.packages[name]} before, {now.packages[name]} now"
        for name in sorted(now.packages.keys() & before.packages.keys())
        if before.packages[name] != now.packages[name]
    ]
    return tuple(found)


def _builds(record: RunRecord) -> str:
    told = {one.attestation.llama_commit[:9] for one in record.attestations}
    return ", ".join(sorted(told - {""})) or "none"
