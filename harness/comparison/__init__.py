"""Observations -> hops -> drifts with blame; pure, no I/O."""
