"""What is asked of the runner, and which of its answers count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from devices.deploy import LocalBlob
from devices.errors import BadRequest
from devices.hashing import file_sha256
from devices.runner.protocol import Decoding, ImageResult, RuntimeSettings
from devices.runner.work import Settings, Work, WorkImage


@pytest.fixture
def work(tmp_path: Path) -> Work:
    for name in ("runner", "text", "mmproj", "a.png", "b.png"):
        (tmp_path / name).write_text(name)
    runtime = RuntimeSettings(
        context=1024,
        batch=512,
        cache_type_k="q4_0",
        cache_type_v="q4_0",
        flash_attention=True,
        threads=0,
        vision_threads=4,
        backend="cpu",
        tiling="single",
    )
    settings = Settings("<__media__>\n?", "<__media__>", True, True, 32, ("fire",), runtime)
    images = [
        WorkImage("a", 0, 0, tmp_path / "a.png", "a" * 64),
        WorkImage("b", 0, 1, tmp_path / "b.png", "b" * 64),
        WorkImage("a", 0, 2, tmp_path / "a.png", "a" * 64),
    ]
    return Work(
        run_id="run-1",
        runner=tmp_path / "runner",
        text_model=tmp_path / "text",
        text_model_sha256=file_sha256(tmp_path / "text"),
        mmproj=tmp_path / "mmproj",
        mmproj_sha256=file_sha256(tmp_path / "mmproj"),
        settings=settings,
        images=tuple(images),
    )


def result(case_id: str, position: int, pixels_sha256: str | None) -> ImageResult:
    return ImageResult(
        case_id=case_id,
        session=0,
        position=position,
        pixels_sha256=pixels_sha256,
        grid=None,
        image_tokens=None,
        prompt_ids=[],
        tokens=[],
        label_logprobs={},
        text="",
        stop_reason="error",
        timings_ms=None,
        memory_peak_kib=1,
        memory_kib=1,
    )


def test_an_answer_counts_for_its_place_and_its_case_whatever_the_pixels(work: Work) -> None:
    image = work.images[0]
    assert image.is_answered_by(result("a", 0, "a" * 64))
    assert image.is_answered_by(result("a", 0, None))
    assert not image.is_answered_by(result("a", 2, "a" * 64))
    assert not image.is_answered_by(result("b", 0, "a" * 64))
    assert image.is_answered_by(result("a", 0, "c" * 64)), "other pixels are the harness's to see"


def test_a_case_that_stands_in_two_places_is_deployed_once_and_asked_twice(work: Work) -> None:
    blobs = work.blobs()
    assert [blob.path.name for blob in blobs].count("a.png") == 1
    assert [blob.path.name for blob in blobs if blob.executable] == ["runner"]
    remote = {blob.sha256: f"/blobs/{blob.sha256}" for blob in blobs}
    request = work.request(work.images, remote)
    assert [image.position for image in request.images] == [0, 1, 2]
    assert request.images[0].pixels_path == request.images[2].pixels_path


def test_the_hash_changes_with_settings_models_and_program_but_not_with_images(work: Work) -> None:
    assert replace(work, images=work.images[:1]).sha256 == work.sha256
    assert replace(work, mmproj_sha256="0" * 64).sha256 != work.sha256
    assert replace(work, settings=replace(work.settings, max_tokens=8)).sha256 != work.sha256
    assert replace(work, runner=work.mmproj).sha256 != work.sha256
    warm = replace(work.settings, decoding=Decoding(temperature=0.5))
    assert replace(work, settings=warm).sha256 != work.sha256
    assert replace(work, deep=True).sha256 != work.sha256
    assert replace(work, evidence=False).sha256 != work.sha256


def test_a_trajectory_goes_to_the_phone_as_a_blob_and_is_part_of_the_hash(
    work: Work, tmp_path: Path
) -> None:
    path = tmp_path / "trajectory"
    path.write_text("trajectory")
    trajectory = LocalBlob(path, file_sha256(path))
    driven = [replace(image, trajectory=trajectory) for image in work.images[:2]]
    changed = replace(work, images=(*driven, work.images[2]))
    assert changed.sha256 != work.sha256
    assert replace(work, images=(driven[0], *work.images[1:])).sha256 != changed.sha256
    remote = {blob.sha256: f"/blobs/{blob.path.name}" for blob in changed.blobs()}
    asked = changed.request(changed.images, remote)
    assert [image.trajectory_path for image in asked.images] == ["/blobs/trajectory"] * 2 + [None]


def test_tensors_are_asked_for_in_deep_mode_alone(work: Work) -> None:
    remote = {blob.sha256: blob.sha256 for blob in work.blobs()}
    deep = replace(work, deep=True)
    assert work.request(work.images, remote, tensors_folder="/t").tensors_folder is None
    assert deep.request(deep.images, remote, tensors_folder="/t").tensors_folder == "/t"


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "a b", "-rf", "x" * 101])
def test_a_run_id_that_cannot_name_a_folder_is_refused(work: Work, run_id: str) -> None:
    with pytest.raises(BadRequest):
        replace(work, run_id=run_id)
