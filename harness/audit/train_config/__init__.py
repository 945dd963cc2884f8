"""A trainer's configuration, its keys found by meaning."""

from harness.audit.train_config.reader import findings, unread

__all__ = ["findings", "unread"]
