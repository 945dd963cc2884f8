"""The recipes' own rules: sizes, centring, channel order, refusals, the training recipe, costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from driftloop.fixtures import awkward
from driftloop.harness.contract import Pixels, Recipe
from driftloop.harness.errors import CaseError
from driftloop.harness.preprocess import difference, pixels_sha256, prepare_as
from driftloop.harness.preprocess.sampling import scaled_size

ANDROID = Pixels()
TRAINING = Pixels(recipe="training-lanczos")
RECIPES: tuple[Recipe, ...] = ("android", "android-m146", "training-lanczos")


def _app_flow(image: Image.Image, target: int = 256) -> Image.Image:
    """The training side's recipe as its document prints it."""
    image = image.convert("RGB")
    scale = min(target / image.width, target / image.height)
    new_w, new_h = int(image.width * scale), int(image.height * scale)
    resized = image.resize((new_w, new_h), Image.Resampling.LANCZOS)
    padded = Image.new("RGB", (target, target), (0, 0, 0))
    padded.paste(resized, ((target - new_w) // 2, (target - new_h) // 2))
    return padded


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (255, 254), (3024, 3024), (31, 7)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_training_lanczos_is_the_recipe_of_the_document_whatever_the_centring(
    size: tuple[int, int], mode: str
) -> None:
    image = awkward.picture(*size).convert(mode)
    for pixels in (TRAINING, Pixels(recipe="training-lanczos", centring="integer")):
        assert prepare_as(image, pixels).tobytes() == _app_flow(image).tobytes()


def test_a_square_of_3024_becomes_255_on_android_and_256_in_training() -> None:
    assert scaled_size(3024, 3024, 256) == (255, 255)
    white = Image.new("RGB", (3024, 3024), "white")
    assert prepare_as(white, ANDROID).getbbox() == (1, 1, 256, 256)
    assert prepare_as(white, Pixels(centring="integer")).getbbox() == (0, 0, 255, 255)
    assert prepare_as(white, TRAINING).getbbox() == (0, 0, 256, 256)


def test_a_fifth_of_all_sizes_differ_from_float64_arithmetic() -> None:
    sides = range(1, 5001, 37)
    differing = sum(
        scaled_size(w, h, 256) != (int(w * (s := min(256 / w, 256 / h))), int(h * s))
        for w in sides
        for h in sides
    )
    assert 0.15 < differing / len(sides) ** 2 < 0.25


def test_an_image_of_the_right_size_comes_back_as_it_is() -> None:
    image = awkward.picture(256, 256)
    for recipe in RECIPES[:2]:
        assert prepare_as(image, Pixels(recipe=recipe)).tobytes() == image.tobytes()


def test_alpha_is_composited_on_black_by_android_and_dropped_by_training() -> None:
    image = Image.new("RGBA", (256, 256), (200, 100, 50, 128))
    assert prepare_as(image, ANDROID).getpixel((9, 9)) == (100, 50, 25)
    assert prepare_as(image, TRAINING).getpixel((9, 9)) == (200, 100, 50)


@pytest.mark.parametrize("recipe", RECIPES)
def test_bgr_exchanges_red_and_blue_and_the_hash_is_over_the_rgb_bytes(recipe: Recipe) -> None:
    image = awkward.picture()
    rgb = prepare_as(image, Pixels(recipe=recipe))
    bgr = prepare_as(image, Pixels(recipe=recipe, channels="bgr"))
    assert bgr.split()[::-1] == rgb.split()
    assert bgr.mode == "RGB"
    assert pixels_sha256(rgb) == pixels_sha256(rgb.convert("RGBA")) != pixels_sha256(bgr)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(257, 1), (1, 600), (70_000, 10)])
def test_a_side_that_becomes_zero_is_refused(recipe: Recipe, size: tuple[int, int]) -> None:
    with pytest.raises(CaseError, match="zero-side") as refusal:
        prepare_as(Image.new("RGB", size), Pixels(recipe=recipe))
    assert refusal.value.kind == "zero-side"
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mode", ["I", "F", "HSV", "LAB"])
def test_a_mode_no_file_on_android_has_is_refused(mode: str) -> None:
    with pytest.raises(CaseError, match="mode"):
        prepare_as(Image.new(mode, (300, 300)), ANDROID)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("recipe", "mitchell"), ("centring", "middle"), ("channels", "grb"), ("size", 0)],
)
def test_an_unknown_choice_is_refused_by_its_field(field: str, wrong: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Pixels.model_validate({field: wrong})


@pytest.mark.parametrize(
    ("name", "mean_abs", "max_abs", "psnr_db"),
    [("china.jpg", 6.45, 97, 26.7), ("flower.jpg", 1.44, 61, 37.4)],
)
def test_what_lanczos_costs_on_real_photographs(
    name: str, mean_abs: float, max_abs: int, psnr_db: float
) -> None:
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image(name))
    across, down = scaled_size(image.width, image.height, 256)
    left, top = (256 - across) // 2, (256 - down) // 2
    inside = (left, top, 256 - left, 256 - top)
    android, training = (prepare_as(image, one).crop(inside) for one in (ANDROID, TRAINING))
    cost = difference(training, android)
    assert cost.mean_abs == pytest.approx(mean_abs, abs=0.01)
    assert cost.max_abs == max_abs
    assert cost.psnr_db == pytest.approx(psnr_db, abs=0.06)


def test_a_picture_costs_nothing_against_itself() -> None:
    cost = difference(awkward.picture(), awkward.picture())
    assert (cost.mean_abs, cost.max_abs, cost.psnr_db) == (0.0, 0, math.inf)


def test_the_recipes_paint_white_alike() -> None:
    for size in ((512, 128), (512, 512)):
        white = Image.new("RGB", size, "white")
        assert np.asarray(prepare_as(white, ANDROID)).max() == 255
        assert difference(prepare_as(white, TRAINING), prepare_as(white, ANDROID)).max_abs == 0
