"""Building the runner with a header of one's own before it."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devices.errors import BadRequest, ToolchainMissing
from devices.phone import Phone
from devices.runner import variants
from devices.runner.build import runner_binary
from devices.runner.client import run
from devices.runner.variants import X86_64_V3
from devices.runner.work import WorkImage
from harness.bundle import Bundle
from tests.runner_work import image_results, work

_PRELUDE = """
// {}
#include "mtmd.h"
inline float * doubled(mtmd_context * context) {{
    float * embeddings = mtmd_get_output_embd(context);
    embeddings[0] *= 2;
    return embeddings;
}}
#define mtmd_get_output_embd doubled
"""


@pytest.fixture
def prelude(tmp_path: Path) -> Path:
    """A header that changes one number, and that no build has seen yet."""
    header = tmp_path / "doubled.h"
    header.write_text(_PRELUDE.format(uuid.uuid4()))
    return header


@pytest.fixture
def changed(device: Phone, prelude: Path) -> Iterator[tuple[Path, list[str]]]:
    """(the program built with the prelude, the steps that this took)."""
    variant = variants.choose(device.identity())
    runner_binary(variant)
    steps: list[str] = []
    program = runner_binary(variant, prelude=prelude, progress=lambda *step: steps.append(step[2]))
    yield program, steps
    shutil.rmtree(program.parent)


def test_a_prelude_makes_another_program_and_leaves_llama_cpp_as_it_is(
    device: Phone,
    tiny: Bundle,
    pictures: list[WorkImage],
    changed: tuple[Path, list[str]],
) -> None:
    program, steps = changed
    plain = work(tiny, device, pictures[:1])
    assert program != plain.runner
    assert not [step for step in steps if step.startswith("Building") and "llama.cpp/" in step]
    (own,) = image_results(run(device, plain))
    (other,) = image_results(run(device, replace(plain, runner=program)))
    assert other.evidence.pixels == own.evidence.pixels
    assert other.evidence.embed != own.evidence.embed
    assert runner_binary(variants.choose(device.identity())) == plain.runner


def test_a_prelude_that_does_not_compile_is_said_so(tmp_path: Path) -> None:
    broken = tmp_path / "broken.h"
    broken.write_text(f"#error {uuid.uuid4()}\n")
    with pytest.raises(ToolchainMissing, match="the build failed"):
        runner_binary(X86_64_V3, prelude=broken)


def test_a_prelude_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="prelude"):
        runner_binary(X86_64_V3, prelude=tmp_path / "none.h")
