"""Awkward files are handled or refused by name, one line each, before anything runs."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import pytest

from driftloop.fixtures import awkward
from driftloop.harness.cases import load_cases
from driftloop.harness.contract import Pixels
from driftloop.harness.errors import CaseError
from driftloop.harness.images import open_image
from driftloop.harness.preprocess import prepare_as
from driftloop.harness.running.images import prepare_cases

LABELS = ("water", "land", "fire", "wood", "metal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("awkward")


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> list[awkward.Awkward]:
    return awkward.write(folder)


def _refusal(path: Path, out: Path) -> CaseError | None:
    try:
        found = load_cases(str(path), LABELS)
        prepare_cases(found.cases, Pixels(), out)
    except CaseError as error:
        return error
    return None


def test_every_entry_of_the_catalogue_is_handled_or_refused_in_one_line_that_names_the_file(
    catalogue: list[awkward.Awkward], tmp_path: Path
) -> None:
    refusals = {entry.name: _refusal(entry.path, tmp_path) for entry in catalogue}
    outcomes = {name: error.kind if error else "handled" for name, error in refusals.items()}
    assert outcomes == {entry.name: entry.outcome for entry in catalogue}
    refused = [entry for entry in catalogue if entry.outcome != awkward.HANDLED]
    for entry in refused:
        assert "\n" not in str(refusals[entry.name])
        assert entry.path.name in str(refusals[entry.name])
    assert len(refused) >= 25
    assert len({entry.outcome for entry in refused}) >= 12


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("twelve-bit.jpg", "a 12-bit JPEG, which Android's BitmapFactory does not decode; export"),
        ("lossless.jpg", "a lossless JPEG, which Android's"),
        ("lossless-sixteen-bit.jpg", "a lossless JPEG, which Android's"),
        ("jpeg-ls.jpg", "JPEG-LS, which Android's"),
        ("photo.heic", "a HEIC or AVIF picture, which is not decoded here; convert it to JPEG"),
        ("heic-named.jpg", "a HEIC or AVIF picture"),
        ("raw.dng", "decodes no TIFF here; save it as PNG"),
    ],
)
def test_a_format_that_no_phone_decodes_is_named(
    name: str, said: str, catalogue: list[awkward.Awkward]
) -> None:
    (path,) = (entry.path for entry in catalogue if entry.name == name)
    with pytest.raises(CaseError, match=said):
        open_image(path)


def test_the_catalogue_is_the_same_bytes_every_time(
    catalogue: list[awkward.Awkward], tmp_path: Path
) -> None:
    again = {entry.name: entry.path for entry in awkward.write(tmp_path)}
    for entry in catalogue:
        if entry.path.is_file():
            assert again[entry.name].read_bytes() == entry.path.read_bytes(), entry.name


def test_a_decompression_bomb_takes_no_memory(catalogue: list[awkward.Awkward]) -> None:
    bombs = [entry.path for entry in catalogue if entry.outcome == "too-large"]
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for bomb in bombs:
        with pytest.raises(CaseError, match="too-large"):
            open_image(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 50_000


def test_a_folder_and_a_pipe_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="directory"):
        open_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(CaseError, match="unreadable"):
        open_image(tmp_path / "pipe.jpg")


def test_the_file_keeps_its_own_mode_and_is_completely_decoded(
    catalogue: list[awkward.Awkward],
) -> None:
    paths = {entry.name: entry.path for entry in catalogue}
    assert open_image(paths["cmyk.jpg"]).mode == "CMYK"
    assert open_image(paths["sixteen-bit.png"]).mode == "I;16"
    image = open_image(paths["plain.jpg"])
    assert image.getpixel((0, 0)) is not None


@pytest.mark.filterwarnings("error")
def test_no_damage_escapes_as_anything_but_a_refusal(
    catalogue: list[awkward.Awkward], tmp_path: Path
) -> None:
    sources = [
        entry.path.read_bytes()
        for entry in catalogue
        if entry.path.suffix in {".bmp", ".gif", ".jpg", ".png", ".webp"}
        and entry.path.is_file()
        and entry.path.stat().st_size > 10
        and entry.outcome != "too-large"
    ]
    rng = random.Random(7)
    path = tmp_path / "damaged"
    handled = 0
    refused: list[str] = []
    for _ in range(1500):
        data = bytearray(rng.choice(sources))
        for _ in range(rng.randint(1, 12)):
            data[int(rng.random() ** 2 * len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(1, len(data))] if rng.random() < 0.3 else data)
        try:
            prepare_as(open_image(path, apply_exif=rng.random() < 0.5), Pixels())
            handled += 1
        except CaseError as error:
            refused.append(str(error))
    assert handled > 50
    assert len(refused) > 500
    assert not [line for line in refused if "\n" in line]
