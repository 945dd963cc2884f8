"""Training images and texts as they lie on disk, in the forms teams keep them."""

from harness.audit.dataset.reader import findings, is_prepared

__all__ = ["findings", "is_prepared"]
