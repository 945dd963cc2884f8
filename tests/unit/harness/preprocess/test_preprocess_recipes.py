"""The recipes' own rules: sizes, centring, channel order, refusals, the training recipe, costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from fixtures import awkward
from harness.errors import CaseError, ContractError
from harness.preprocess import pixel_cost, pixels_sha256, prepare
from harness.preprocess.sampling import scaled_size


def _app_flow(image: Image.Image, target: int = 256) -> Image.Image:
    """The training side's recipe as its document prints it."""
    image = image.convert("RGB")
    scale = min(target / image.width, target / image.height)
    new_w, new_h = int(image.width * scale), int(image.height * scale)
    resized = image.resize((new_w, new_h), Image.Resampling.LANCZOS)
    padded = Image.new("RGB", (target, target), (0, 0, 0))
    padded.paste(resized, ((target - new_w) // 2, (target - new_h) // 2))
    return padded


def _picture_box(image: Image.Image) -> tuple[int, int, int, int] | None:
    return image.getbbox()


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (255, 254), (3024, 3024), (31, 7)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
def test_training_lanczos_is_the_recipe_of_the_document(size: tuple[int, int], mode: str) -> None:
    image = awkward.picture(*size).convert(mode)
    assert prepare(image, "training-lanczos").tobytes() == _app_flow(image).tobytes()


def test_training_lanczos_centres_with_integers_whatever_the_contract_says() -> None:
    image = awkward.picture(640, 427)
    both = {prepare(image, "training-lanczos", centring=c).tobytes() for c in ("float", "integer")}
    assert len(both) == 1


def test_a_square_of_3024_becomes_255_on_android_and_256_in_training() -> None:
    assert scaled_size(3024, 3024, 256) == (255, 255)
    white = Image.new("RGB", (3024, 3024), "white")
    assert _picture_box(prepare(white)) == (1, 1, 256, 256)
    assert _picture_box(prepare(white, centring="integer")) == (0, 0, 255, 255)
    assert _picture_box(prepare(white, "training-lanczos")) == (0, 0, 256, 256)


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
    for recipe in ("android", "android-m146"):
        assert prepare(image, recipe).tobytes() == image.tobytes()


def test_alpha_is_composited_on_black_by_android_and_dropped_by_training() -> None:
    image = Image.new("RGBA", (256, 256), (200, 100, 50, 128))
    assert prepare(image).getpixel((9, 9)) == (100, 50, 25)
    assert prepare(image, "training-lanczos").getpixel((9, 9)) == (200, 100, 50)


def test_bgr_exchanges_red_and_blue() -> None:
    image = awkward.picture()
    for recipe in ("android", "android-m146", "training-lanczos"):
        rgb, bgr = (prepare(image, recipe, channels=order) for order in ("rgb", "bgr"))
        assert bgr.split()[::-1] == rgb.split()
        assert bgr.mode == "RGB"


@pytest.mark.parametrize("recipe", ["android", "android-m146", "training-lanczos"])
@pytest.mark.parametrize("size", [(257, 1), (1, 600), (70_000, 10)])
def test_a_side_that_becomes_zero_is_refused(recipe: str, size: tuple[int, int]) -> None:
    with pytest.raises(CaseError, match="zero-side") as refusal:
        prepare(Image.new("RGB", size), recipe)
    assert refusal.value.kind == "zero-side"
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("mode", ["I", "F", "HSV", "LAB"])
def test_a_mode_no_file_on_android_has_is_refused(mode: str) -> None:
    with pytest.raises(CaseError, match="mode"):
        prepare(Image.new(mode, (300, 300)))


@pytest.mark.parametrize(
    "wrong",
    [{"recipe": "mitchell"}, {"centring": "middle"}, {"channels": "grb"}, {"size": 0}],
)
def test_an_unknown_name_says_what_is_known(wrong: dict[str, object]) -> None:
    with pytest.raises(ContractError) as refusal:
        prepare(Image.new("RGB", (300, 300)), **wrong)  # type: ignore[arg-type]
    assert f"pixels.{next(iter(wrong))}" in str(refusal.value)


def test_the_hash_is_over_the_rgb_bytes() -> None:
    image = prepare(awkward.picture())
    assert pixels_sha256(image) == pixels_sha256(image.convert("RGBA"))
    assert pixels_sha256(image) != pixels_sha256(prepare(awkward.picture(), channels="bgr"))


@pytest.mark.parametrize(
    ("name", "mean_abs", "max_abs", "psnr_db"),
    [("china.jpg", 6.45, 97, 26.7), ("flower.jpg", 1.44, 61, 37.4)],
)
def test_what_lanczos_costs_on_real_photographs(
    name: str, mean_abs: float, max_abs: int, psnr_db: float
) -> None:
    from sklearn.datasets import load_sample_image

    cost = pixel_cost(Image.fromarray(load_sample_image(name)))
    assert cost.mean_abs == pytest.approx(mean_abs, abs=0.01)
    assert cost.max_abs == max_abs
    assert cost.psnr_db == pytest.approx(psnr_db, abs=0.06)


def test_a_recipe_costs_nothing_against_itself() -> None:
    cost = pixel_cost(awkward.picture(), "android")
    assert (cost.mean_abs, cost.max_abs, cost.psnr_db) == (0.0, 0, math.inf)


def test_the_cost_leaves_the_padding_out() -> None:
    wide, square = (Image.new("RGB", size, "white") for size in ((512, 128), (512, 512)))
    for image in (wide, square):
        assert np.asarray(prepare(image)).max() == 255
        assert pixel_cost(image, "training-lanczos").max_abs == 0
    noisy = Image.effect_noise((512, 128), 90).convert("RGB")
    full = prepare(noisy, "training-lanczos"), prepare(noisy)
    over_all = np.abs(np.asarray(full[0], int) - np.asarray(full[1], int)).mean()
    assert pixel_cost(noisy).mean_abs == pytest.approx(4 * over_all)
