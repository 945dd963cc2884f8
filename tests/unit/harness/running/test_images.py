"""Pixels of every case, made once; and the canaries beside them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from driftloop.fixtures import awkward
from driftloop.harness import cases
from driftloop.harness import contract as contracts
from driftloop.harness.arms.base import Prepared, Side
from driftloop.harness.cases import Case, load_cases
from driftloop.harness.contract import Pixels
from driftloop.harness.errors import CaseError
from driftloop.harness.preprocess import pixels_sha256, prepare_as
from driftloop.harness.progress import Unseen
from driftloop.harness.running.images import Sides, canaries, prepare, prepare_cases

from ..bundle_factory import Miniature

LABELS = ("water", "land", "fire", "wood", "metal")


@pytest.fixture
def photos(tmp_path: Path) -> list[Case]:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(4):
        awkward.picture(300 + seed, 200, seed=seed).save(folder / f"{seed}.png")
    return list(load_cases(str(folder), LABELS).cases)


def _bad(folder: Path, name: str) -> Case:
    path = folder / name
    path.write_bytes(b"no image")
    return Case(name, path, None)


def test_every_png_holds_exactly_what_the_model_sees_and_is_made_once(
    photos: list[Case], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    out, pixels = tmp_path / "out", Pixels(channels="bgr")
    ready = prepare_cases(photos, pixels, out, lambda *advanced: seen.append(advanced))
    for prepared in ready.cases:
        expected = prepare_as(Image.open(prepared.case.path), pixels)
        written = Image.open(prepared.pixels_path)
        assert (written.mode, written.size) == ("RGB", (256, 256))
        assert written.tobytes() == expected.tobytes()
        assert prepared.pixels_sha256 == pixels_sha256(expected)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare_cases(photos, pixels, out) == ready
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == stamps


def test_other_pixels_or_another_content_are_prepared_anew(
    photos: list[Case], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one = prepare_cases(photos[:1], Pixels(), out).cases[0]
    other = prepare_cases(photos[:1], Pixels(recipe="android-m146"), out).cases[0]
    awkward.picture(300, 200, seed=9).save(photos[0].path)
    changed = prepare_cases(photos[:1], Pixels(), out).cases[0]
    assert len({one.pixels_path, other.pixels_path, changed.pixels_path}) == 3
    assert len({one.pixels_sha256, other.pixels_sha256, changed.pixels_sha256}) == 3


def test_a_damaged_png_from_before_is_made_again(photos: list[Case], tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = prepare_cases(photos[:1], Pixels(), out).cases[0]
    whole = before.pixels_path.read_bytes()
    before.pixels_path.write_bytes(whole[: len(whole) // 2])
    assert prepare_cases(photos[:1], Pixels(), out).cases[0] == before
    assert before.pixels_path.read_bytes() == whole


def test_a_bad_image_is_refused_after_all_were_tried(photos: list[Case], tmp_path: Path) -> None:
    given = [_bad(tmp_path, "x.jpg"), *photos, _bad(tmp_path, "y.jpg")]
    with pytest.raises(CaseError, match="1 more refused; --skip-bad") as refusal:
        prepare_cases(given, Pixels(), tmp_path / "out")
    assert refusal.value.path.endswith("x.jpg")
    assert refusal.value.kind == "not-an-image"


def test_skip_bad_goes_on_and_says_what_was_left_out(photos: list[Case], tmp_path: Path) -> None:
    given = [_bad(tmp_path, "x.jpg"), *photos]
    ready = prepare_cases(given, Pixels(), tmp_path / "out", skip_bad=True)
    assert [prepared.case for prepared in ready.cases] == photos
    assert [bad.kind for bad in ready.refused] == ["not-an-image"]


Prepare = Callable[..., Sides]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """What a run takes of a folder or table of images."""
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "cache"))
    contract = contracts.load("default")
    bundle = Miniature().write(tmp_path / "bundle")

    def prepare_(images: Path, most: int | None = None, **over: object) -> Sides:
        pixels = contract.pixels.model_copy(update=over)
        side = Side(contract.model_copy(update={"pixels": pixels}), bundle)
        return prepare(str(images), {"app": side}, 1, most, Unseen().track, skip_bad=False)

    return prepare_


def taken(sides: Sides) -> list[Case]:
    return [case for session in sides.sessions for case in session.cases]


def test_the_same_pixels_ninety_times_are_one_image(
    photos: list[Case], tmp_path: Path, prepared: Prepare
) -> None:
    table = tmp_path / "photos" / "same.csv"
    table.write_text("image,label\n" + "0.png,water\n" * 90)
    sides = prepared(table)
    assert [(case.id, case.label) for case in taken(sides)] == [("0.png", "water")]
    assert sides.remarks == (
        "89 images are copies of others, pixel for pixel, and counted once (0.png#2 is 0.png)",
    )


def test_a_copy_in_another_file_counts_once_and_another_is_drawn_for_it(
    photos: list[Case], tmp_path: Path, prepared: Prepare
) -> None:
    folder = tmp_path / "photos"
    for number in range(20):
        shutil.copyfile(photos[0].path, folder / f"copy{number}.png")
    Image.open(photos[0].path).save(folder / "again.png", compress_level=0)
    sides = prepared(folder, most=4)
    assert len(taken(sides)) == 4
    assert "counted once" in sides.remarks[-1]


def test_the_same_pixels_under_two_labels_are_refused_by_both_names(
    photos: list[Case], tmp_path: Path, prepared: Prepare
) -> None:
    table = tmp_path / "photos" / "two.csv"
    shutil.copyfile(photos[0].path, tmp_path / "photos" / "copy.png")
    table.write_text("image,label\n0.png,water\n1.png,fire\ncopy.png,fire\n")
    with pytest.raises(CaseError) as refused:
        prepared(table)
    assert refused.value.kind == "two-labels"
    assert "0.png: two-labels: it is labelled 'water', and the same pixels (" in str(refused.value)
    assert "copy.png) 'fire'; correct one of them" in str(refused.value)
    table.write_text("image,label\n0.png,\n0.png,fire\n")
    assert [case.label for case in taken(prepared(table))] == ["fire"]


def test_an_orientation_that_the_app_ignores_is_counted(tmp_path: Path, prepared: Prepare) -> None:
    folder = tmp_path / "turned"
    folder.mkdir()
    for number in range(3):
        exif = awkward.turned() if number else Image.Exif()
        awkward.picture(300, 200, seed=number).save(folder / f"{number}.jpg", exif=exif)
    (said,) = prepared(folder).remarks
    assert said.startswith("2 of 3 images carry an EXIF orientation, which the app ignores")
    assert prepared(folder, apply_exif=True).remarks == ()


def test_placed_images_stand_where_their_sessions_put_them(
    photos: list[Case], prepared: Prepare
) -> None:
    sides = prepared(photos[0].path.parent)
    slots = [slot for session in sides.sessions for slot in session.slots]
    assert [(slot.session, slot.position) for slot in slots] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert [slot.case for slot in slots] == sessions_of(photos)
    for slot in slots:
        image = sides.of("phone").images[slot.session, slot.position]
        expected = prepare_as(Image.open(slot.case.path), Pixels())
        assert image.pixels_sha256 == pixels_sha256(expected)
        assert (image.case_id, image.canary) == (slot.case.id, None)


def sessions_of(photos: list[Case]) -> list[Case]:
    return [case for session in cases.sessions(photos, 3, seed=1) for case in session.cases]


SIZE = 16


@pytest.fixture
def first(tmp_path: Path) -> list[Prepared]:
    """Session 0: three images, no two alike and none symmetric."""
    images = []
    for position, name in enumerate(("a", "b", "c")):
        image = Image.linear_gradient("L").resize((SIZE, SIZE)).rotate(90 * (position + 1))
        rgb = Image.merge("RGB", (image, image, Image.new("L", image.size, 40 * position)))
        path = tmp_path / f"{name}.png"
        rgb.save(path)
        images.append(Prepared(name, 0, position, path, pixels_sha256(rgb)))
    return images


def test_two_sessions_follow_the_last_one_the_second_the_first_from_its_end(
    first: list[Prepared], tmp_path: Path
) -> None:
    made = canaries(first, 7, SIZE, tmp_path)
    assert [(one.canary, one.session, one.position) for one in made] == [
        ("black", 7, 0),
        ("mirror", 7, 1),
        ("twice", 7, 2),
        ("twice", 7, 3),
        ("reversed", 8, 0),
        ("reversed", 8, 1),
        ("again", 8, 2),
    ]
    assert [one.case_id for one in made[4:]] == ["c", "b", "a"]
    assert [one.pixels_sha256 for one in made[4:]] == [one.pixels_sha256 for one in reversed(first)]


def test_black_is_black_and_the_mirror_mirrors_the_first_image(
    first: list[Prepared], tmp_path: Path
) -> None:
    black, mirror, *_ = canaries(first, 1, SIZE, tmp_path)
    with Image.open(black.pixels_path) as image:
        assert image.size == (SIZE, SIZE)
        assert image.getextrema() == ((0, 0),) * 3
    with Image.open(mirror.pixels_path) as image, Image.open(first[0].pixels_path) as one:
        assert ImageOps.mirror(image).tobytes() == one.tobytes()
        assert mirror.pixels_sha256 == pixels_sha256(image)


def test_a_session_of_one_image_still_has_it_again(first: list[Prepared], tmp_path: Path) -> None:
    assert [one.canary for one in canaries(first[:1], 1, SIZE, tmp_path)][-1] == "again"
