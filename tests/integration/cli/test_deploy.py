"""`driftloop deploy`: what `run` does first, on its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from driftloop.devices.deploy import REMOTE_BLOBS
from driftloop.devices.phone import REMOTE_ROOT, Phone
from driftloop.harness import bundle as bundles
from tests.integration.cli.conftest import Driftloop


@pytest.fixture(autouse=True)
def _empty(phone: Phone) -> None:
    phone.shell(f"rm -rf {REMOTE_BLOBS}")


def deployed(driftloop: Driftloop, *arguments: object) -> dict[str, Any]:
    """What was done to the one phone."""
    (document,) = driftloop.json(*arguments)
    return dict(document)


def test_a_bundle_and_its_runner_arrive_once(
    phone: Phone, bundle: Path, driftloop: Driftloop
) -> None:
    arguments = ("deploy", bundle, "--phone", phone.serial)
    first = deployed(driftloop, *arguments)
    assert first["serial"] == phone.serial
    names = [file["name"] for file in first["files"]]
    assert names == ["driftloop-runner", "text-q8_0.gguf", "mmproj-q8_0.gguf"]
    assert all(file["sent"] for file in first["files"])
    for file in first["files"]:
        assert phone.shell(f"sha256sum {file['remote']}").stdout.split()[0] == file["sha256"]
    assert phone.shell(f"{first['files'][0]['remote']} </dev/null", check=False).status != 126

    again = driftloop(*arguments)
    assert "nothing sent, everything was already there" in again.stdout
    assert max(map(len, again.stdout.splitlines()[:4])) <= 80
    assert "pushing" not in again.stderr
    assert deployed(driftloop, *arguments)["sent_bytes"] == 0


def test_pruning_leaves_what_this_bundle_needs(
    phone: Phone, bundle: Path, driftloop: Driftloop
) -> None:
    arguments = ("deploy", bundle, "--phone", phone.serial)
    driftloop(*arguments, "--quant", "q4_0")
    report = deployed(driftloop, *arguments, "--prune")
    loaded = bundles.load(bundle)
    replaced = (loaded.text_model("q4_0"), loaded.mmproj("q4_0"))
    assert report["freed_bytes"] == sum(path.stat().st_size for path in replaced)
    assert [file["sent"] for file in report["files"]] == [False, True, True]
    there = phone.shell(f"ls {REMOTE_BLOBS}").stdout.split()
    assert sorted(there) == sorted(file["sha256"] for file in report["files"])


def test_a_run_after_a_deploy_pushes_pictures_alone(
    phone: Phone, bundle: Path, pictures: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    driftloop("deploy", bundle, "--phone", phone.serial)
    before = phone.shell(f"ls -i {REMOTE_BLOBS}").stdout.splitlines()
    picture = shutil.copy(next(pictures.parent.glob("*.png")), tmp_path)
    driftloop(
        "run", bundle, picture, "--phone", phone.serial, "--arms", "phone:q8_0+app",
        "--out", tmp_path / "run",
    )  # fmt: skip
    after = phone.shell(f"ls -i {REMOTE_BLOBS}").stdout.splitlines()
    assert set(before) < set(after)
    assert len(after) == 6, "runner, two models; the picture, its mirror image, black"
    phone.shell(f"rm -rf {REMOTE_ROOT}/runs")
