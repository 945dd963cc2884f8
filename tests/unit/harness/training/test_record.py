"""What a trained checkpoint says of its training."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import CheckpointError
from harness.training import record


def test_a_checkpoint_of_another_maker_has_no_record(tmp_path: Path) -> None:
    assert record.load(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 2}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / record.RECORD_NAME).write_text(content)
    with pytest.raises(CheckpointError, match=r"driftloop-training\.json: cannot be read"):
        record.load(tmp_path)
