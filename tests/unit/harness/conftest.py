"""A processor and an untrained model of the tiny checkpoint's shape."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from driftloop.fixtures import smolvlm, tiny

if TYPE_CHECKING:
    from transformers import Idefics3Processor, PreTrainedModel


@pytest.fixture(scope="session")
def untrained() -> tuple[PreTrainedModel, Idefics3Processor]:
    """Shared: a test that trains works on a copy."""
    return tiny.untrained(tiny.Recipe())


@pytest.fixture(scope="session")
def processor(untrained: tuple[PreTrainedModel, Idefics3Processor]) -> Idefics3Processor:
    return untrained[1]


@pytest.fixture(scope="session")
def saved_checkpoint(
    untrained: tuple[PreTrainedModel, Idefics3Processor], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The untrained model and its processor as a checkpoint's folder. Read only: copy to damage."""
    folder = tmp_path_factory.mktemp("checkpoint")
    smolvlm.save(*untrained, folder)
    return folder
