"""`--deep`: every tensor of every case, whose size is said before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures import textures
from driftloop.harness.arms.trajectory import Trajectory
from driftloop.harness.bundle import Bundle
from driftloop.harness.errors import RunFolderError
from driftloop.harness.progress import Unseen
from driftloop.harness.records.journal import RunFolder
from driftloop.harness.running import forecast, whole_tensors
from driftloop.harness.running.request import RunRequest
from driftloop.harness.running.run import evaluate

IMAGES = 3
TORCH, PHONE = "torch", "phone:q8_0+app"


@pytest.fixture
def asked(tiny_bundle: Bundle, x86_phone: VirtualPhone, tmp_path: Path) -> RunRequest:
    textures.save(tmp_path / "images", IMAGES, seed=47)
    return RunRequest(
        tiny_bundle.path, str(tmp_path / "images"), tmp_path / "run",
        phones=(x86_phone.serial,), arms=(TORCH, PHONE), drive=0, deep=True,
    )  # fmt: skip


def test_every_case_of_every_arm_is_kept_and_takes_the_room_that_was_said(
    asked: RunRequest,
) -> None:
    evaluate(asked, Unseen())
    seen = [one for one in RunFolder(asked.out).read() if one.canary is None]
    assert len(seen) == 2 * IMAGES
    for one in seen:
        kept = Trajectory(whole_tensors.path_of(asked.out, one.slot), "")
        assert kept.prompt_ids == tuple(one.prompt_ids)
        assert {"pixels", "vision layer 0 ffn", "prefill"} <= kept.tensors().keys()

    outlook = RunFolder(asked.out).record().outlook
    assert outlook is not None
    taken = sum(path.stat().st_size for path in asked.out.rglob("*") if path.is_file())
    assert 0.8 * outlook.host.needed_bytes < taken <= outlook.host.needed_bytes


def test_a_disk_without_that_room_is_refused_before_any_arm_starts(
    asked: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = forecast.shutil.disk_usage(asked.bundle)._replace(free=1 << 20)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda _path: free)
    with pytest.raises(RunFolderError, match="4 MiB may be needed, 1 MiB are free"):
        evaluate(asked, Unseen())
    assert not list(RunFolder(asked.out).read())
