"""A trainer's own collator, run on real samples; its batch is read."""

from harness.audit.collator.reader import findings

__all__ = ["findings"]
