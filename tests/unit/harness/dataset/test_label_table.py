"""Labels from a table: all of them, or none and one line that says which is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from driftloop.harness import dataset as data
from driftloop.harness.dataset.label_table import import_labels
from driftloop.harness.errors import DatasetError
from tests.unit.harness.dataset.conftest import Make

HASH = "ab" * 32


def _table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_images_are_named_by_source_square_or_file_name(
    unlabelled: data.Dataset, tmp_path: Path
) -> None:
    one, two, three = unlabelled.entries[:3]
    rows = [
        {"image": one.source, "label": "fire"},
        {"image": str(two.path), "label": " water ", "label_image_sha256": HASH},
        {"image": Path(three.source).name, "label": "wood"},
    ]
    table = _table(tmp_path, "\n".join(map(json.dumps, rows)) + "\n", "labels.jsonl")
    import_labels(unlabelled.folder, table)
    labelled = {entry.source: entry for entry in data.load(unlabelled.folder).labelled}
    assert {name: entry.label for name, entry in labelled.items()} == {
        one.source: "fire",
        two.source: "water",
        three.source: "wood",
    }
    assert {entry.label_source for entry in labelled.values()} == {"import"}
    assert labelled[one.source].label_image_sha256 is None
    assert labelled[two.source].label_image_sha256 == HASH


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.tsv", "image\tlabel\n{}\tfire\n"),
        ("labels.csv", "Image; Label\n{}; fire\n"),
        ("labels.csv", "image\tlabel\r\n{}\tfire\r\n"),
    ],
)
def test_a_table_may_be_as_a_spreadsheet_saves_it(
    name: str, text: str, unlabelled: data.Dataset, tmp_path: Path
) -> None:
    source = unlabelled.entries[0].source
    table = _table(tmp_path, text.format(source.replace("/", "\\")), name)
    (labelled,) = import_labels(unlabelled.folder, table).labelled
    assert (labelled.source, labelled.label) == (source, "fire")


def test_imported_labels_move_the_split_and_outlive_another_preparation(
    unlabelled: data.Dataset, tmp_path: Path, make: Make
) -> None:
    rows = [f"{entry.source},fire" for entry in unlabelled.entries[:8]]
    dataset = import_labels(unlabelled.folder, _table(tmp_path, "\n".join(["image,label", *rows])))
    assert [entry.label for entry in dataset.split("held_out")].count("fire") == 2
    assert [entry.label for entry in make().labelled] == ["fire"] * 8


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("path,tag\n{one},fire\n", "no column image and label; it has path, tag"),
        ("image,label\n{one},fire\n{two},air\n", "labels.csv:3: 'air' is no label"),
        ("image,label\n{one},fire\n{two},\n", "'' is no label"),
        ("image,label\n{one},fire\nnone.png,fire\n", "no image 'none.png'"),
        ("image,label\n{one},fire\n{one},wood\n", "the same pixels have two labels"),
        ("image,label\n", "holds no label"),
        ('image,label\n"{one},fire\n', "unexpected end of data"),
        ("image,label,label_image_sha256\n{one},fire,xyz\n", "no SHA-256"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_imported(
    text: str, fragment: str, unlabelled: data.Dataset, tmp_path: Path
) -> None:
    one, two = (entry.source for entry in unlabelled.entries[:2])
    before = (unlabelled.folder / "manifest.jsonl").read_bytes()
    with pytest.raises(DatasetError) as refusal:
        import_labels(unlabelled.folder, _table(tmp_path, text.format(one=one, two=two)))
    assert fragment in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert (unlabelled.folder / "manifest.jsonl").read_bytes() == before
    assert not (unlabelled.folder / "labels.jsonl").exists()


@pytest.mark.parametrize("name", ["none.csv", "labels.txt", "."])
def test_a_table_that_cannot_be_read_is_refused(
    name: str, unlabelled: data.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError):
        import_labels(unlabelled.folder, tmp_path / name)


def test_a_file_name_that_several_sources_have_is_refused(
    make: Make, photos: Path, tmp_path: Path
) -> None:
    (photos / "fire/deep").mkdir()
    (photos / "fire/2.png").rename(photos / "fire/deep/7.png")
    with pytest.raises(DatasetError, match=r"may be fire/7\.png or fire/deep/7\.png"):
        import_labels(make().folder, _table(tmp_path, "image,label\n7.png,fire\n"))


def test_a_label_that_contradicts_the_folder_of_the_same_pixels_is_refused(
    make: Make, photos: Path, tmp_path: Path
) -> None:
    shutil.copy(photos / "fire/2.png", photos / "copy.png")
    folder = make().folder
    with pytest.raises(DatasetError, match=r"fire/2\.png is 'fire', the table says 'wood'"):
        import_labels(folder, _table(tmp_path, "image,label\ncopy.png,wood\n"))
    both = _table(tmp_path, "image,label\ncopy.png,wood\nfire/2.png,wood\n")
    labels = {entry.source: entry.label for entry in import_labels(folder, both).entries}
    assert (labels["copy.png"], labels["fire/2.png"]) == ("wood", "wood")
