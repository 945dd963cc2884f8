"""Pinned files by way of the genuine pip, from a folder in the index's place."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from driftloop.devices.errors import ToolchainMissing
from driftloop.devices.hashing import file_sha256
from driftloop.devices.pypi import fetch

NAME = "driftloop_example"


@pytest.fixture
def wheel_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The hash of a small wheel that is the only file pip can find."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / f"{NAME}-1.0-py3-none-any.whl"
    info = f"{NAME}-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "cache"))
    return file_sha256(wheel)


def test_a_file_is_fetched_once_and_again_when_it_was_damaged(
    wheel_sha256: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = fetch(NAME, "1.0", wheel_sha256, "wheel")
    assert file_sha256(first) == wheel_sha256
    written = first.stat().st_mtime_ns
    assert fetch(NAME, "1.0", wheel_sha256, "wheel").stat().st_mtime_ns == written

    first.write_bytes(b"damaged")
    again = fetch(NAME, "1.0", wheel_sha256, "wheel")
    assert file_sha256(again) == wheel_sha256

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    assert fetch(NAME, "1.0", wheel_sha256, "wheel") == again


def test_a_file_of_another_hash_or_version_is_refused_in_one_line(wheel_sha256: str) -> None:
    for version, sha256 in (("1.0", wheel_sha256[::-1]), ("2.0", wheel_sha256)):
        with pytest.raises(ToolchainMissing, match=f"{NAME}=={version}") as caught:
            fetch(NAME, version, sha256, "wheel")
        assert "\n" not in str(caught.value)
