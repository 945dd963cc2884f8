"""Building the runner with a header of one's own before it."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from driftloop.devices.errors import BadRequest, ToolchainMissing
from driftloop.devices.runner import variants
from driftloop.devices.runner.build import runner_binary
from driftloop.devices.runner.variants import X86_64_V3
from tests.runner_work import TinyRunner

# changes one number; the comment makes it one that no build has seen yet
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


def test_a_prelude_makes_another_program_and_leaves_llama_cpp_as_it_is(
    tiny: TinyRunner, tmp_path: Path
) -> None:
    prelude = tmp_path / "doubled.h"
    prelude.write_text(_PRELUDE.format(uuid.uuid4()))
    plain = tiny.work()
    variant = variants.choose(tiny.phone.identity())
    steps: list[str] = []
    program = runner_binary(variant, prelude=prelude, progress=lambda *step: steps.append(step[2]))
    try:
        assert program != plain.runner
        assert not [step for step in steps if step.startswith("Building") and "llama.cpp/" in step]
        (own,) = tiny.answer(plain)
        (other,) = tiny.answer(replace(plain, runner=program))
    finally:
        shutil.rmtree(program.parent)
    assert other.evidence.pixels == own.evidence.pixels
    assert other.evidence.embed != own.evidence.embed
    assert runner_binary(variant) == plain.runner


def test_a_prelude_that_is_missing_or_does_not_compile_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.h"
    with pytest.raises(BadRequest, match="prelude"):
        runner_binary(X86_64_V3, prelude=broken)
    broken.write_text(f"#error {uuid.uuid4()}\n")
    with pytest.raises(ToolchainMissing, match=r"building .* failed .* see .*\.log"):
        runner_binary(X86_64_V3, prelude=broken)
