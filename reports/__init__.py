"""Turns a run folder into what people and CI servers read; needs the folder and nothing else."""

from reports.documents import build

__all__ = ["build"]
