"""Tables of images as spreadsheets, other systems and people write them."""

# ruff: noqa: E501  (the tables are read one case a line)

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.harness.cases import load_cases
from driftloop.harness.errors import CaseError

LABELS = ("water", "fire")
BOTH = [("a.png", "fire"), ("sub/b.png", "water")]
TABLE = "image,label\na.png,fire\nsub/b.png,water\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png", "wind,sea.png"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


TAKEN: dict[str, tuple[str, bytes]] = {
    "commas": ("t.csv", TABLE.encode()),
    "semicolons": ("t.csv", TABLE.replace(",", ";").encode()),
    "tabs": ("t.csv", TABLE.replace(",", "\t").encode()),
    "tabs by their name": ("t.tsv", TABLE.replace(",", "\t").encode()),
    "UTF-16, little end first": ("t.csv", b"\xff\xfe" + TABLE.encode("utf-16-le")),
    "UTF-16, big end first": ("t.csv", b"\xfe\xff" + TABLE.encode("utf-16-be")),
    "UTF-16 with tabs, as Excel saves text": ("t.csv", b"\xff\xfe" + TABLE.replace(",", "\t").encode("utf-16-le")),
    "a byte-order mark": ("t.csv", TABLE.encode("utf-8-sig")),
    "line ends of Windows": ("t.csv", TABLE.replace("\n", "\r\n").encode()),
    "line ends of old Macs": ("t.csv", TABLE.replace("\n", "\r").encode()),
    "a header in capitals": ("t.csv", TABLE.replace("image,label", "Image,LABEL").encode()),
    "a header with blanks": ("t.csv", TABLE.replace("image,label", " Image , Label ").encode()),
    "blanks after the commas": ("t.csv", TABLE.replace(",", ", ").encode()),
    "empty columns at the end": ("t.csv", TABLE.replace("\n", ",,\n").encode()),
    "backslashes": ("t.csv", TABLE.replace("/", "\\").encode()),
    "backslashes in JSON": ("t.jsonl", rb'{"image": "a.png", "label": "fire"}' + b"\n" + rb'{"image": "sub\\b.png", "label": "water"}'),
    "U+2028 inside a caption": ("t.jsonl", '{"image": "a.png", "label": "fire", "caption": "one\u2028two\u0085three"}\n{"image": "sub/b.png", "label": "water"}\n'.encode()),
    "empty lines": ("t.jsonl", b'\n{"image": "a.png", "label": "fire"}\n\n{"path": "sub/b.png", "label": "water"}\n\n'),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_a_table_is_read_however_it_was_saved(name: str, folder: Path) -> None:
    file, content = TAKEN[name]
    (folder / file).write_bytes(content)
    found = load_cases(str(folder / file), LABELS)
    assert [(case.id, case.label) for case in found.cases] == BOTH


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "no column for images": ("t.csv", b"file;label\na.png;fire\n", "t.csv: missing-column: it has file, label; name one column `image`"),
    "a column twice": ("t.csv", b"image,Image\na.png,a.png\n", "t.csv: manifest: line 1: the column 'image' stands twice"),
    "more cells than columns": ("t.csv", b"image,label\nwind,sea.png,fire\n", "t.csv:2: manifest: more cells than the header has columns"),
    "a label in capitals": ("t.csv", b"image,label\na.png,Fire\n", "t.csv:2: unknown-label: 'Fire' is no label; use one of water, fire"),
    "a file under two labels": ("t.csv", b"image,label\na.png,fire\na.png,\na.png,water\n", "t.csv:4: two-labels: a.png is 'water' here and 'fire' further up; correct one of them"),
    "a file under two labels, by two names": ("t.jsonl", b'{"image": "a.png", "label": "fire"}\n{"path": "sub/../a.png", "label": "water"}\n', "t.jsonl:2: two-labels: "),
    "a file that is not there": ("t.csv", b"image\nsub\\c.png\n", "t.csv:2: missing: no such file"),
    "no image in a line": ("t.csv", b"image,label\n,fire\n", "t.csv:2: missing-column: it names no image"),
    "half of UTF-16": ("t.csv", b"\xff\xfei", "t.csv: unreadable: not UTF-8 text"),
    "Latin-1": ("t.csv", "image,label\nfähre.png,fire\n".encode("latin-1"), "t.csv: unreadable: not UTF-8 text"),
    "a quote that does not end": ("t.csv", b'image,label\n"a.png,fire\n', "t.csv: manifest: line 1: unexpected end of data"),
    "a list as a line": ("t.jsonl", b"[1]\n", "t.jsonl:1: manifest: not an object"),
    "an image that is a number": ("t.jsonl", b'{"image": 3}\n', "t.jsonl:1: missing-column"),
    "nothing": ("t.csv", b"", "t.csv: missing-column: it has none"),
    "a header alone": ("t.tsv", b"image\tlabel\n", "t.tsv: no-images"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_meant_is_refused_by_its_line(name: str, folder: Path) -> None:
    file, content, said = REFUSED[name]
    (folder / file).write_bytes(content)
    with pytest.raises(CaseError) as refused:
        load_cases(str(folder / file), LABELS)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_columns_that_are_not_read_are_named(folder: Path) -> None:
    (folder / "t.csv").write_text("image,lable,note\na.png,fire,dark\n")
    found = load_cases(str(folder / "t.csv"), LABELS)
    said = "t.csv: its columns 'lable', 'note' are not read; image and label are"
    assert found.remarks == (f"{folder}/{said}",)


def test_what_a_folder_holds_beside_its_images_is_counted_and_named(folder: Path) -> None:
    for name in (
        "IMG_1.HEIC",
        "IMG_2.heic",
        "shot.avif",
        "raw.dng",
        "IMG_0003",
        "x.txt",
        ".hidden",
    ):
        (folder / name).write_bytes(b"x")
    found = load_cases(str(folder), LABELS)
    assert len(found.cases) == 3
    (said,) = found.remarks
    assert said == (
        f"{folder}: left out 6 of its files, which are no images known here: 2 .heic (IMG_1.HEIC), "
        "1 without a suffix (IMG_0003), 1 .dng (raw.dng), 1 .avif (shot.avif) and 1 more kinds; "
        "convert those that are photographs to JPEG"
    )


def test_a_folder_of_nothing_but_other_files_says_which(folder: Path) -> None:
    (folder / "none").mkdir()
    (folder / "none" / "a.heic").write_bytes(b"x")
    with pytest.raises(CaseError, match=r"no-images: no image in it; .*1 \.heic \(a\.heic\)"):
        load_cases(str(folder / "none"), LABELS)


@pytest.mark.parametrize("name", ["Fire", "FIRE", " fire ", "fire"])
def test_a_folder_gives_its_label_in_whatever_letters(name: str, folder: Path) -> None:
    (folder / name).mkdir()
    (folder / name / "c.png").write_bytes(b"x")
    labels = {case.id: case.label for case in load_cases(str(folder), LABELS).cases}
    assert labels[f"{name}/c.png"] == "fire"
