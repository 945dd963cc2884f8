"""What is asked of the runner, and which of its answers count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from driftloop.devices.deploy import LocalBlob
from driftloop.devices.errors import BadRequest
from driftloop.devices.hashing import file_sha256
from driftloop.devices.runner.protocol import (
    Decoding,
    ImageResult,
    Request,
    RuntimeSettings,
    Settings,
)
from driftloop.devices.runner.work import Work, WorkImage


def blob(folder: Path, name: str) -> LocalBlob:
    path = folder / name
    path.write_text(name)
    return LocalBlob(path, file_sha256(path))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    settings = Settings(
        prompt="<__media__>\n?",
        marker="<__media__>",
        add_special=True,
        parse_special=True,
        max_tokens=32,
        labels=("fire",),
        runtime=RuntimeSettings(
            context=1024,
            batch=512,
            cache_type_k="q4_0",
            cache_type_v="q4_0",
            flash_attention=True,
            threads=0,
            vision_threads=4,
            backend="cpu",
            tiling="single",
        ),
    )
    text, mmproj = blob(tmp_path, "text"), blob(tmp_path, "mmproj")
    a, b = blob(tmp_path, "a.png").path, blob(tmp_path, "b.png").path
    return Work(
        run_id="run-1",
        runner=blob(tmp_path, "runner").path,
        text_model=text.path,
        text_model_sha256=text.sha256,
        mmproj=mmproj.path,
        mmproj_sha256=mmproj.sha256,
        settings=settings,
        images=(
            WorkImage("a", 0, 0, a, "a" * 64),
            WorkImage("b", 0, 1, b, "b" * 64),
            WorkImage("a", 0, 2, a, "a" * 64),
        ),
    )


def asked(work: Work) -> Request:
    remote = {blob.sha256: f"/blobs/{blob.path.name}" for blob in work.blobs()}
    return work.request(work.images, remote, tensors_folder="/t")


@pytest.mark.parametrize(
    ("case_id", "position", "pixels_sha256", "counts"),
    [
        ("a", 0, "a" * 64, True),
        ("a", 0, None, True),
        ("a", 0, "c" * 64, True),  # other pixels are for the harness to see
        ("a", 2, "a" * 64, False),
        ("b", 0, "a" * 64, False),
    ],
)
def test_an_answer_counts_for_its_slot_and_its_case_whatever_the_pixels(
    work: Work, case_id: str, position: int, pixels_sha256: str | None, counts: bool
) -> None:
    result = ImageResult.model_construct(
        case_id=case_id, session=0, position=position, pixels_sha256=pixels_sha256
    )
    assert work.images[0].is_answered_by(result) is counts


def test_a_case_in_two_slots_is_deployed_once_and_asked_twice(work: Work) -> None:
    blobs = work.blobs()
    assert [blob.path.name for blob in blobs].count("a.png") == 1
    assert [blob.path.name for blob in blobs if blob.executable] == ["runner"]
    request = asked(work)
    assert [image.position for image in request.images] == [0, 1, 2]
    assert request.images[0].pixels_path == request.images[2].pixels_path == "/blobs/a.png"
    assert (request.prompt, request.labels) == ("<__media__>\n?", ("fire",))


def test_the_hash_changes_with_settings_models_and_program_but_not_with_images(work: Work) -> None:
    warm = Decoding(temperature=0.5)
    others = [
        replace(work, mmproj_sha256="0" * 64),
        replace(work, settings=work.settings.model_copy(update={"max_tokens": 8})),
        replace(work, settings=work.settings.model_copy(update={"decoding": warm})),
        replace(work, runner=work.mmproj),
        replace(work, deep=True),
        replace(work, evidence=False),
    ]
    assert replace(work, images=work.images[:1]).sha256 == work.sha256
    assert len({work.sha256, *(other.sha256 for other in others)}) == 1 + len(others)


def test_a_trajectory_goes_to_the_phone_as_a_blob_and_is_part_of_the_hash(
    work: Work, tmp_path: Path
) -> None:
    trajectory = blob(tmp_path, "trajectory")
    first, second = (replace(image, trajectory=trajectory) for image in work.images[:2])
    one = replace(work, images=(first, *work.images[1:]))
    two = replace(work, images=(first, second, work.images[2]))
    assert len({work.sha256, one.sha256, two.sha256}) == 3
    paths = [image.trajectory_path for image in asked(two).images]
    assert paths == ["/blobs/trajectory"] * 2 + [None]


def test_tensors_are_asked_for_in_deep_mode_alone(work: Work) -> None:
    assert asked(work).tensors_folder is None
    assert asked(replace(work, deep=True)).tensors_folder == "/t"


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "a b", "-rf", "x" * 101])
def test_a_run_id_that_cannot_name_a_folder_is_refused(work: Work, run_id: str) -> None:
    with pytest.raises(BadRequest):
        replace(work, run_id=run_id)
