"""Pixels of every case, made once; and the canaries beside them."""

from __future__ import annotations

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
from driftloop.harness.running.images import canaries, prepare, prepare_cases

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
    with pytest.raises(CaseError, match="no-images"):
        prepare_cases(given[:1], Pixels(), tmp_path / "out", skip_bad=True)


def test_placed_images_stand_where_their_sessions_put_them(
    photos: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "cache"))
    side = Side(contracts.load("default"), Miniature().write(tmp_path / "bundle"))
    folder = str(photos[0].path.parent)
    sides = prepare(folder, {"app": side}, 1, None, Unseen().track, skip_bad=False)
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
