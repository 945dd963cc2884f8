"""Phones: ADB, health, leases, the on-phone runner, the virtual phone. No evaluation here."""
