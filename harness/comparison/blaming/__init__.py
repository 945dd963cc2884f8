"""What the differences of a hop come from."""

from harness.comparison.blaming.blamer import blames

__all__ = ["blames"]
