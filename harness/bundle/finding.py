"""One thing out of line in one GGUF, before it is known whose file it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.stage import Stage


@dataclass(frozen=True)
class Finding:
    """As `harness.records.inquiry.FileFault`, without the file."""

    kind: Literal["tensor", "key", "token", "hash"]
    name: str
    stage: Stage
    layer: str | None
    detail: str
    remark: bool = False
