"""A dump of the app's pixels names the recipe that made it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from driftloop.fixtures import awkward
from driftloop.harness.contract import Pixels
from driftloop.harness.errors import CaseError
from driftloop.harness.preprocess import identify_dump, prepare_as


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An odd remainder, so that the two centrings differ."""
    path = tmp_path / "photo.png"
    awkward.picture(641, 430).save(path)
    return path


@pytest.mark.parametrize(
    ("recipe", "centring", "channels"),
    [
        *itertools.product(("android", "android-m146"), ("float", "integer"), ("rgb", "bgr")),
        ("training-lanczos", "integer", "rgb"),
    ],
)
def test_every_way_to_make_the_pixels_is_recognised(
    recipe: str, centring: str, channels: str, photo: Path, tmp_path: Path
) -> None:
    """From raw RGB bytes, from those of an ARGB bitmap, and from a PNG."""
    pixels = Pixels.model_validate({"recipe": recipe, "centring": centring, "channels": channels})
    made = prepare_as(Image.open(photo), pixels)
    made.save(tmp_path / "dump.png")
    raw = tmp_path / "dump.rgba"
    raw.write_bytes(made.convert("RGBA").tobytes())
    for dump in (made.tobytes(), tmp_path / "dump.png", raw):
        match = identify_dump(dump, photo)
        assert (match.best, match.ties, match.exact) == (pixels, (), True)


def test_an_inexact_dump_gets_the_nearest_recipe_and_its_distance(photo: Path) -> None:
    made = np.asarray(prepare_as(Image.open(photo), Pixels())).copy()
    made[100:110, 100:110] ^= 1
    match = identify_dump(made.tobytes(), photo)
    assert not match.exact
    assert match.best == Pixels()
    assert match.cost.max_abs == 1
    assert "nearest" in str(match)


def test_what_an_image_cannot_tell_apart_is_said(tmp_path: Path) -> None:
    grey = tmp_path / "grey.png"
    awkward.picture(640, 420).convert("L").save(grey)
    match = identify_dump(prepare_as(Image.open(grey), Pixels()).tobytes(), grey)
    assert match.exact
    assert {(way.centring, way.channels) for way in (match.best, *match.ties)} == set(
        itertools.product(("float", "integer"), ("rgb", "bgr"))
    )


def test_a_decoder_that_turns_pictures_is_recognised(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    awkward.picture(641, 433).save(path, exif=exif.tobytes())
    turned = Image.open(path).transpose(Image.Transpose.ROTATE_270)
    match = identify_dump(prepare_as(turned, Pixels()).tobytes(), path)
    assert match.exact
    assert match.best.apply_exif


@pytest.mark.parametrize("dump", [b"", bytes(1000), b"\x89PNG but not really"])
def test_what_is_no_square_of_pixels_is_refused(dump: bytes, photo: Path) -> None:
    with pytest.raises(CaseError) as refusal:
        identify_dump(dump, photo)
    assert refusal.value.kind == "dump"
