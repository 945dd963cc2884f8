"""The Android recipes against Skia: 0 differing bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from driftloop.fixtures import awkward
from driftloop.harness.contract import Pixels, Recipe
from driftloop.harness.preprocess import prepare_as, prepare_case

from .conftest import Bytes, Decode, SkiaOracle

FUZZED = 600


def _multiplied(rgba: Bytes) -> Bytes:
    colour = (rgba[..., :3].astype(np.uint32) * rgba[..., 3:] + 127) // 255
    return np.concatenate([colour.astype(np.uint8), rgba[..., 3:]], axis=2)


def _noise(rng: np.random.Generator, width: int, height: int, *, opaque: bool) -> Bytes:
    rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    if opaque:
        rgba[..., 3] = 255
    return rgba


def _fits(width: int, height: int) -> bool:
    return max(width, height) < 256 * min(width, height)


def _fuzzed_sizes(rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Even, long, and tiny shapes; the app's own 256 and one off it; both sides of a run of 127."""
    yield from ((256, 256), (255, 256), (257, 257), (256, 200), (1, 1), (1, 255), (255, 1))
    yield from ((127, 127), (128, 128), (510, 511), (512, 512), (699, 3), (3, 699))
    while True:
        long = rng.random() < 0.4
        draw = np.exp(rng.uniform(0, np.log(700), 2)) if long else rng.uniform(1, 700, 2)
        width, height = (int(side) for side in draw)
        if _fits(width, height):
            yield width, height


@pytest.fixture(params=["android", "android-m146"])
def differing(request: pytest.FixtureRequest) -> Callable[[Bytes, bool], int]:
    """How many bytes one recipe makes of a bitmap that Skia does not."""
    recipe: Recipe = request.param
    oracle = request.getfixturevalue("legacy_skia" if recipe == "android" else "pipeline_skia")

    def count(rgba: Bytes, opaque: bool) -> int:
        image = Image.fromarray(rgba)
        given = image.convert("RGB") if opaque else image
        mine = np.asarray(prepare_as(given, Pixels(recipe=recipe)))
        return int((mine != oracle.square(_multiplied(rgba))).sum())

    return count


def test_no_byte_differs_from_skia_over_600_fuzzed_images(
    differing: Callable[[Bytes, bool], int],
) -> None:
    rng = np.random.default_rng(20_251)
    sizes = _fuzzed_sizes(rng)
    for number in range(FUZZED):
        width, height = next(sizes)
        opaque = number % 2 == 0
        rgba = _noise(rng, width, height, opaque=opaque)
        assert differing(rgba, opaque) == 0, f"{width}x{height}, opaque={opaque}"


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (3024, 3024),
        (4000, 3000),
        (3000, 4000),
        (16_383, 90),
        (16_384, 130),
        (20_001, 300),
        (300, 32_767),
        (40_000, 300),
        (200, 33_000),
    ],
)
def test_no_byte_differs_from_skia_on_large_images(
    differing: Callable[[Bytes, bool], int], width: int, height: int
) -> None:
    opaque = width % 2 == 0
    rgba = _noise(np.random.default_rng(width), width, height, opaque=opaque)
    assert differing(rgba, opaque) == 0


@pytest.mark.parametrize("size", [8, 64, 300, 1000])
def test_no_byte_differs_from_skia_for_other_square_sizes(
    size: int, legacy_skia: SkiaOracle
) -> None:
    rgba = _noise(np.random.default_rng(size), 333, 217, opaque=False)
    mine = np.asarray(prepare_as(Image.fromarray(rgba), Pixels(size=size)))
    np.testing.assert_array_equal(mine, legacy_skia.square(_multiplied(rgba), size))


def test_the_two_android_recipes_differ_by_about_a_level_on_a_picture() -> None:
    image = awkward.picture(640, 427)
    one, other = (prepare_as(image, Pixels(recipe=name)) for name in ("android", "android-m146"))
    delta = np.asarray(one, dtype=int) - np.asarray(other)
    assert 0.1 < np.abs(delta).mean() < 1.5


HANDLED_IMAGES = [
    "plain.jpg", "progressive.jpg", "grey.jpg", "cmyk.jpg", "several-pictures.jpg",
    "broken-profile.png", "rgba.png", "grey-alpha.png", "palette.png", "palette-transparent.png",
    "one-bit.png", "two-bit-transparent.png", "sixteen-bit.png", "sixteen-bit-transparent.png",
    "animated.gif", "animated.webp", "animated.png", "alpha.webp", "windows.bmp", "one-pixel.png",
    "one-by-200.png",
]  # fmt: skip


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("awkward")
    return {entry.name: entry.path for entry in awkward.write(folder)}


@pytest.mark.parametrize("name", HANDLED_IMAGES)
def test_a_decoded_file_has_the_bytes_that_skia_decodes_and_draws(
    name: str,
    catalogue: dict[str, Path],
    legacy_skia: SkiaOracle,
    skia_decode: Decode,
) -> None:
    bitmap, space = skia_decode(catalogue[name].read_bytes())
    assert space is None
    mine = np.asarray(prepare_case(catalogue[name], Pixels()))
    np.testing.assert_array_equal(mine, legacy_skia.square(bitmap))


@pytest.mark.parametrize("name", ["adobe-rgb.png", "adobe-rgb-alpha.png", "gamma.png"])
def test_another_colour_space_is_converted_after_scaling_within_a_level_of_skia(
    name: str,
    catalogue: dict[str, Path],
    legacy_skia: SkiaOracle,
    skia_decode: Decode,
) -> None:
    bitmap, space = skia_decode(catalogue[name].read_bytes())
    assert space is not None
    mine = np.asarray(prepare_case(catalogue[name], Pixels()), dtype=int)
    delta = np.abs(mine - legacy_skia.square(bitmap, space=space))
    assert delta.max() <= 1
    assert delta.mean() < 0.1


def test_exif_orientation_is_applied_only_when_asked_for(
    catalogue: dict[str, Path],
    legacy_skia: SkiaOracle,
    skia_decode: Decode,
) -> None:
    path = catalogue["turned-by-exif.jpg"]
    # Skia's image decoder turns the picture, as Android's ImageDecoder does; BitmapFactory not.
    turned, _ = skia_decode(path.read_bytes())
    applied = np.asarray(prepare_case(path, Pixels(apply_exif=True)))
    np.testing.assert_array_equal(applied, legacy_skia.square(turned))
    ignored = np.asarray(prepare_case(path, Pixels()))
    np.testing.assert_array_equal(ignored, legacy_skia.square(np.rot90(turned)))


def test_jpegs_of_every_subsampling_and_odd_size_decode_as_skia_does(
    tmp_path: Path,
    legacy_skia: SkiaOracle,
    skia_decode: Decode,
) -> None:
    for number, (width, height) in enumerate([(333, 217), (641, 427), (17, 33), (1023, 769)]):
        for subsampling in (0, 1, 2):
            buffer = io.BytesIO()
            picture = awkward.picture(width, height, seed=number)
            picture.save(buffer, "JPEG", quality=80 + number, subsampling=subsampling)
            path = tmp_path / "picture.jpg"
            path.write_bytes(buffer.getvalue())
            bitmap, _ = skia_decode(buffer.getvalue())
            mine = np.asarray(prepare_case(path, Pixels()))
            np.testing.assert_array_equal(mine, legacy_skia.square(bitmap))
