"""The runner's fingerprints against those that the host makes of the same tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

from devices import adb
from devices.phone import Phone
from devices.runner.client import run
from devices.runner.protocol import Attestation, Evidence, Fingerprint, RunSettings
from devices.runner.whole_tensors import look
from devices.runner.work import WorkImage
from devices.virtual import VirtualPhone
from harness.arms.fingerprint import fingerprint
from harness.bundle import Bundle
from harness.preprocess import pixels_sha256
from tests.runner_work import image_results, work

_STAGES: tuple[tuple[str, Callable[[Evidence], Fingerprint | None]], ...] = (
    ("pixels", lambda evidence: evidence.pixels),
    ("embed", lambda evidence: evidence.embed),
    ("prefill", lambda evidence: evidence.prefill),
)


@pytest.mark.parametrize("tiling", ["single", "split"])
def test_a_fingerprint_is_that_of_the_tensor(
    virtual_phone: VirtualPhone, tiny: Bundle, pictures: list[WorkImage], tiling: str
) -> None:
    phone = adb.find(virtual_phone.serial)
    for result, tensors in look(phone, work(tiny, phone, pictures[:2], tiling=tiling)):
        for stage, told_of in _STAGES:
            told, wanted = told_of(result.evidence), fingerprint(tensors[stage])
            assert told is not None
            assert (told.shape, told.crc32, told.finite) == (wanted.shape, wanted.crc32, True)
            assert (told.minimum, told.maximum) == (wanted.minimum, wanted.maximum)
            assert [told.mean, told.rms] == pytest.approx([wanted.mean, wanted.rms], rel=1e-6)
            assert told.projection == pytest.approx(wanted.projection, rel=1e-6, abs=1e-4)


def test_the_pixels_are_those_that_the_vision_graph_gets(
    device: Phone, tiny: Bundle, tmp_path: Path
) -> None:
    # mean and standard deviation are 0.5: black becomes -1
    black = Image.new("RGB", (256, 256))
    path = tmp_path / "black.png"
    black.save(path)
    image = WorkImage("black", 0, 0, path, pixels_sha256(black))
    (result,) = image_results(run(device, work(tiny, device, [image])))
    assert result.evidence.pixels == fingerprint(
        numpy.full((1, 3, 128, 128), -1.0, dtype=numpy.float32)
    )


def test_evidence_changes_no_answer_and_can_be_left_out(
    device: Phone, tiny: Bundle, pictures: list[WorkImage]
) -> None:
    todo = work(tiny, device, pictures[:3])
    told = image_results(run(device, todo))
    silent = image_results(run(device, replace(todo, evidence=False)))
    for one, other in zip(told, silent, strict=True):
        assert other.evidence == Evidence()
        assert one.tokens == other.tokens
        assert one.label_logprobs == other.label_logprobs


@pytest.mark.parametrize("app", [True, False])
def test_the_settings_in_force_are_read_from_what_llama_cpp_runs(
    device: Phone, tiny: Bundle, pictures: list[WorkImage], app: bool
) -> None:
    cache = "q4_0" if app else "f16"
    todo = work(
        tiny,
        device,
        pictures[:1],
        batch=256,
        context=1024,
        cache_type_k=cache,
        cache_type_v=cache,
        flash_attention=app,
    )
    attestation = next(run(device, todo))
    assert isinstance(attestation, Attestation)
    assert attestation.settings == RunSettings(
        context=1024,
        batch=256,
        micro_batch=256,
        cache_type_k=cache,
        cache_type_v=cache,
        flash_attention=app,
        max_tokens=32,
        decoding=todo.settings.decoding,
    )
