"""The phone arm on a virtual phone: what it tells, driving, and the early end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from driftloop.devices.errors import BadRequest, RunnerFailed
from driftloop.devices.phone import Phone
from driftloop.devices.runner.client import discard
from driftloop.harness import contract as contracts
from driftloop.harness.arms.base import Prepared, Side
from driftloop.harness.arms.desktop import DesktopArm
from driftloop.harness.arms.phone import PhoneArm
from driftloop.harness.arms.trajectory import write
from driftloop.harness.bundle import Bundle
from driftloop.harness.ladder import ArmSpec
from driftloop.harness.progress import Unseen

CONTRACT = contracts.load("default")
SPEC = ArmSpec("phone", "q8_0", app_runtime=True)
RUN_ID = "phone-arm"


@pytest.fixture
def arm(tiny_bundle: Bundle, phone: Phone) -> Iterator[PhoneArm]:
    discard(phone, RUN_ID)
    yield made(tiny_bundle, phone)
    discard(phone, RUN_ID)


@pytest.fixture
def desktop(tiny_bundle: Bundle) -> Iterator[DesktopArm]:
    arm = DesktopArm(tiny_bundle, "q8_0", CONTRACT.runtime, CONTRACT, "desktop:q8_0+app")
    yield arm
    arm.close()


def made(bundle: Bundle, phone: Phone, runner: Path | None = None) -> PhoneArm:
    return PhoneArm(SPEC, Side(CONTRACT, bundle), phone, RUN_ID, Unseen(), runner=runner)


def test_every_observation_carries_evidence_and_says_what_it_is_for(
    arm: PhoneArm, pictures: list[Prepared]
) -> None:
    images = [*pictures[:3], replace(pictures[0], session=1, position=0, canary="again")]
    seen = list(arm.observe(images))
    assert [one.canary for one in seen] == [None, None, None, "again"]
    for one in seen:
        assert one.evidence.pixels is not None
        assert one.evidence.embed is not None
        assert one.evidence.prefill is not None
        assert one.evidence.pixels.shape == (1, 3, 128, 128)
    assert seen[3].evidence == seen[0].evidence
    settings = arm.attest().settings
    assert settings is not None
    assert settings.cache_type_k == CONTRACT.runtime.cache_type_k
    assert settings.decoding == CONTRACT.decoding


def test_a_recording_has_the_desktops_tensors_by_the_same_names(
    arm: PhoneArm, desktop: DesktopArm, pictures: list[Prepared]
) -> None:
    above, below = list(desktop.record(pictures[:2])), list(arm.record(pictures[:2]))
    assert [one.observation.case_id for one in below] == [one.case_id for one in pictures[:2]]
    for reference, candidate in zip(above, below, strict=True):
        assert list(candidate.tensors) == list(reference.tensors)
        for name, tensor in candidate.tensors.items():
            assert tensor.shape == reference.tensors[name].shape
        # the same build of the same model: all that differs is the compiler
        ours, theirs = candidate.tensors["embed"], reference.tensors["embed"]
        assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)


def test_a_phone_and_a_desktop_drive_each_other_alike(
    arm: PhoneArm, desktop: DesktopArm, pictures: list[Prepared], tmp_path: Path
) -> None:
    picture = pictures[0]
    (above,), (below,) = desktop.record([picture]), arm.record([picture])
    (down,) = arm.drive([(picture, write(above, tmp_path / "above"))])
    (up,) = desktop.drive([(picture, write(below, tmp_path / "below"))])
    (own,) = arm.drive([(picture, write(below, tmp_path / "below"))])
    assert down.case_id == picture.case_id
    assert down.text == above.observation.text
    assert [one.name for one in down.driven] == [one.name for one in up.driven] == [*below.tensors]
    assert [one.error for one in own.driven] == [0.0] * len(own.driven)
    for one, other in zip(down.driven, up.driven, strict=True):
        assert one.error < 0.05, one.name
        # what the one is off by, the other is as well
        assert one.error == pytest.approx(other.error, rel=0.1, abs=1e-6), one.name
        assert one.gain == pytest.approx(-other.gain, rel=0.1, abs=3 * one.error**2 + 1e-6)


def test_a_stopped_arm_still_observes_its_canaries(arm: PhoneArm, pictures: list[Prepared]) -> None:
    sessions = 150
    cases = [replace(one, session=place) for place in range(sessions) for one in pictures[:3]]
    canaries = [replace(one, session=sessions, canary="black") for one in pictures[:3]]
    seen = []
    for observation in arm.observe([*cases, *canaries]):
        seen.append(observation)
        if len(seen) == 3:
            arm.stop()
    assert len(seen) < len(cases)
    assert sum(one.canary == "black" for one in seen) == 3
    assert len({one.slot for one in seen}) == len(seen)


def test_a_runner_of_the_users_own_takes_the_place_of_the_built_one(
    tiny_bundle: Bundle, phone: Phone, pictures: list[Prepared], tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match="no runner"):
        list(made(tiny_bundle, phone, runner=tmp_path / "none").observe(pictures[:1]))
    script = tmp_path / "runner"
    script.write_text('#!/bin/sh\necho "{\\"record\\":\\"finished\\",\\"images\\":0}" >$2\n')
    discard(phone, RUN_ID)
    with pytest.raises(RunnerFailed, match="images left out"):
        list(made(tiny_bundle, phone, runner=script).observe(pictures[:1]))
    discard(phone, RUN_ID)
