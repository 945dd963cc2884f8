"""The runner's fingerprints against those that the host makes of the same tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

from driftloop.devices import adb
from driftloop.devices.runner.client import run
from driftloop.devices.runner.protocol import Attestation, Evidence, RunSettings
from driftloop.devices.runner.work import WorkImage
from driftloop.devices.virtual import VirtualPhone
from driftloop.harness.arms.fingerprint import fingerprint
from driftloop.harness.preprocess import pixels_sha256
from tests.runner_work import TinyRunner


@pytest.mark.parametrize("tiling", ["single", "split"])
def test_a_fingerprint_is_that_of_the_tensor(
    virtual_phone: VirtualPhone, tiny: TinyRunner, tiling: str
) -> None:
    tiny = replace(tiny, phone=adb.find(virtual_phone.serial))
    for result, tensors in tiny.deep(2, tiling=tiling):
        for stage in ("pixels", "embed", "prefill"):
            seen, wanted = getattr(result.evidence, stage), fingerprint(tensors[stage])
            assert (seen.shape, seen.crc32, seen.finite) == (wanted.shape, wanted.crc32, True)
            assert (seen.minimum, seen.maximum) == (wanted.minimum, wanted.maximum)
            assert [seen.mean, seen.rms] == pytest.approx([wanted.mean, wanted.rms], rel=1e-6)
            assert seen.projection == pytest.approx(wanted.projection, rel=1e-6, abs=1e-4)


def test_the_pixels_are_those_that_the_vision_graph_gets(tiny: TinyRunner, tmp_path: Path) -> None:
    # mean and standard deviation are 0.5: black becomes -1
    black = Image.new("RGB", (256, 256))
    path = tmp_path / "black.png"
    black.save(path)
    image = WorkImage("black", 0, 0, path, pixels_sha256(black))
    (result,) = tiny.answer(tiny.work([image]))
    expected = numpy.full((1, 3, 128, 128), -1.0, dtype=numpy.float32)
    assert result.evidence.pixels == fingerprint(expected)


def test_evidence_and_deep_mode_change_no_answer_and_evidence_can_be_left_out(
    tiny: TinyRunner,
) -> None:
    todo = tiny.work(3)
    plain = tiny.answer(todo)
    silent = tiny.answer(replace(todo, evidence=False))
    deep = [result for result, _ in tiny.deep(3)]
    for one, without, looked in zip(plain, silent, deep, strict=True):
        assert without.evidence == Evidence()
        assert one.evidence == looked.evidence != Evidence()
        assert one.tokens == without.tokens == looked.tokens
        assert one.label_logprobs == without.label_logprobs
        assert looked.tokens[0].id == looked.tokens[0].top[0].id


@pytest.mark.parametrize("app", [True, False])
def test_the_settings_in_force_are_read_from_what_llama_cpp_runs(
    tiny: TinyRunner, app: bool
) -> None:
    cache = "q4_0" if app else "f16"
    runtime = {
        "batch": 256,
        "context": 1024,
        "cache_type_k": cache,
        "cache_type_v": cache,
        "flash_attention": app,
    }
    todo = tiny.work(**runtime)
    attestation = next(run(tiny.phone, todo))
    assert isinstance(attestation, Attestation)
    assert attestation.settings == RunSettings.model_validate(
        {**runtime, "micro_batch": 256, "max_tokens": 32, "decoding": todo.settings.decoding}
    )
