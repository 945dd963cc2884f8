"""Preparing a dataset: the phone's pixels, the same bytes however it was run, bad files by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from driftloop.fixtures import awkward, textures
from driftloop.harness import dataset as data
from driftloop.harness.contract import Pixels
from driftloop.harness.dataset.prepare import prepare
from driftloop.harness.errors import CaseError, DatasetError
from driftloop.harness.preprocess import pixels_sha256, prepare_case
from tests.little_dataset import content
from tests.unit.harness.dataset.conftest import SETTINGS, Make


@pytest.mark.parametrize("pixels", [Pixels(), Pixels(recipe="training-lanczos", channels="bgr")])
def test_every_square_is_what_the_phone_arm_prepares(
    make: Make, photos: Path, pixels: Pixels
) -> None:
    dataset = make(pixels=pixels)
    assert len(dataset.entries) == 20
    for entry in dataset.entries:
        expected = prepare_case(photos / entry.source, pixels)
        assert entry.path.is_absolute()
        assert entry.square().tobytes() == expected.tobytes()
        assert entry.pixels_sha256 == pixels_sha256(expected)
        assert (entry.pixels, entry.recipe) == (pixels, pixels.recipe)


def test_what_is_no_image_is_named_and_left_out(photos: Path, tmp_path: Path) -> None:
    (photos / "IMG_1.HEIC").write_bytes(b"x")
    (said,) = prepare(str(photos), tmp_path / "out", Pixels(), SETTINGS, workers=1).remarks
    assert "left out 1 of its files, which are no images known here: 1 .heic (IMG_1.HEIC)" in said


def test_the_manifest_tells_source_label_and_split(make: Make, photos: Path) -> None:
    make()
    dataset = data.load(photos.parent / "dataset")
    entry = next(entry for entry in dataset.entries if entry.source == "fire/2.png")
    with Image.open(photos / "fire/2.png") as source:
        facts = (source.width, source.height, source.mode)
    assert (entry.source_width, entry.source_height, entry.source_mode) == facts
    assert (entry.label, entry.label_source, entry.label_image_sha256) == ("fire", "folder", None)
    assert dataset.pixels == Pixels()
    for label in textures.ELEMENTS:
        assert sum(entry.label == label for entry in dataset.split("held_out")) == 1
        assert sum(entry.label == label for entry in dataset.split("train")) == 3


def test_neither_workers_nor_repetition_change_a_byte(
    make: Make, photos: Path, tmp_path: Path
) -> None:
    folder = make(workers=3).folder
    first = content(folder)
    assert {"manifest.jsonl", "contact_sheet.png", "settings.json"} <= first.keys()
    make(workers=1)
    assert content(folder) == first
    prepare(str(photos), tmp_path / "other", Pixels(), SETTINGS, workers=2)
    assert content(tmp_path / "other") == first


def test_only_what_changed_or_was_damaged_is_prepared_again(make: Make, photos: Path) -> None:
    before = {entry.source: entry.path.stat().st_mtime_ns for entry in make().entries}
    awkward.picture(300, 200, seed=9).save(photos / "fire/2.png")
    again = make()
    changed = [
        one.source for one in again.entries if one.path.stat().st_mtime_ns != before[one.source]
    ]
    assert changed == ["fire/2.png"]
    assert len(list((again.folder / "images").iterdir())) == 20

    entry = again.entries[0]
    whole = entry.path.read_bytes()
    entry.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="missing or changed"):
        entry.square()
    make()
    assert entry.path.read_bytes() == whole


def test_bad_files_are_refused_by_name_after_all_were_tried(make: Make, photos: Path) -> None:
    (photos / "fire/bad.jpg").write_text("no image")
    (photos / "wood/bad.png").write_bytes(b"")
    with pytest.raises(CaseError, match=r"fire/bad\.jpg: not-an-image.*1 more refused; --skip-bad"):
        make()
    stamps = [path.stat().st_mtime_ns for path in (photos.parent / "dataset/images").iterdir()]
    assert len(stamps) == 20
    outcome = prepare(
        str(photos), photos.parent / "dataset", Pixels(), SETTINGS, workers=1, skip_bad=True
    )
    assert [refused.kind for refused in outcome.refused] == ["not-an-image", "empty"]
    kept = [one.path.stat().st_mtime_ns for one in outcome.dataset.entries]
    assert sorted(kept) == sorted(stamps)


def test_the_same_pixels_share_a_label_and_two_labels_leave_the_earlier_manifest(
    make: Make, photos: Path
) -> None:
    shutil.copy(photos / "fire/2.png", photos / "copy.png")
    dataset = make()
    entries = {entry.source: entry for entry in dataset.entries}
    copy, original = entries["copy.png"], entries["fire/2.png"]
    assert (copy.label, copy.split, copy.image) == ("fire", original.split, original.image)

    before = (dataset.folder / "manifest.jsonl").read_bytes()
    shutil.copy(photos / "fire/2.png", photos / "wood/copy.png")
    with pytest.raises(DatasetError, match=r"fire/2\.png is 'fire', wood/copy\.png is 'wood'"):
        make()
    assert (dataset.folder / "manifest.jsonl").read_bytes() == before


def test_labels_and_images_may_come_from_a_manifest(photos: Path, tmp_path: Path) -> None:
    table = photos / "labels.csv"
    table.write_text("image,label\nfire/2.png,metal\nwood/3.png,\n")
    found = prepare(str(table), tmp_path / "two", Pixels(), SETTINGS, workers=1).dataset.entries
    assert [(one.label, one.label_source) for one in found] == [("metal", "manifest"), (None, None)]


def test_a_dataset_among_its_own_sources_is_refused(photos: Path) -> None:
    prepare(str(photos), photos / "inside", Pixels(), SETTINGS, workers=1)
    with pytest.raises(DatasetError, match="among its own sources"):
        prepare(str(photos), photos / "inside", Pixels(), SETTINGS, workers=1)


def test_awkward_files_of_every_kind_are_prepared_or_refused(tmp_path: Path) -> None:
    (tmp_path / "awkward").mkdir()
    catalogue = awkward.write(tmp_path / "awkward")
    outcome = prepare(
        str(tmp_path / "awkward"), tmp_path / "out", Pixels(), SETTINGS, workers=1, skip_bad=True
    )
    bad = {entry.path.name for entry in catalogue if entry.outcome != awkward.HANDLED}
    images = {Path(entry.source).name for entry in outcome.dataset.entries}
    assert not images & bad
    assert len(images) > 15
    assert len(outcome.refused) > 15


def test_the_contact_sheet_has_a_row_for_every_label(make: Make, photos: Path) -> None:
    shutil.rmtree(photos / "metal")
    Image.open(photos / "fire/7.png").rotate(90).save(photos / "turned.png")
    with Image.open(make().folder / "contact_sheet.png") as sheet:
        assert sheet.height == 4 + 5 * 100
