"""Phones: ADB, health, leases, the on-phone runner, the virtual phone. Knows nothing of evaluation."""
