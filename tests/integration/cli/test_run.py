"""`driftloop run` down to the phone, on both ABIs, and what can be done after."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftloop.cli.app import app
from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures import photographs, textures
from driftloop.fixtures.drifts.release import contract
from tests.evaluation_work import counted
from tests.integration.cli.conftest import Driftloop, observations, read_json

IMAGES = 6
DECISIVE = 120
"""Images, of which a release that flips next to none needs 72 to 120."""
HOPS = ("conversion", "quantization", "runtime", "platform")
HOST_ARMS = ("torch", "desktop:f16", "desktop:q8_0", "desktop:q8_0+app")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of textures and of real photographs in awkward sizes and modes."""
    folder = tmp_path_factory.mktemp("mixed")
    textures.save(folder, IMAGES - 3, seed=91)
    kept = ("china-see-through", "flower-cmyk", "newspaper-tall")
    for path in photographs.save(folder, ("see-through", "cmyk", "tall")):
        if path.stem not in kept:
            path.unlink()
    return folder


@pytest.mark.parametrize(("fixture", "tiling"), [("x86_phone", "split"), ("arm64_phone", "single")])
def test_every_arm_sees_the_same_prompt_and_gives_the_same_answer(
    fixture: str,
    tiling: str,
    request: pytest.FixtureRequest,
    bundle: Path,
    mixed: Path,
    driftloop: Driftloop,
    tmp_path: Path,
) -> None:
    phone: VirtualPhone = request.getfixturevalue(fixture)
    run, tiled = tmp_path / "run", contract({"tiling": tiling}, tmp_path / "tiled.toml")
    arguments = ("run", bundle, mixed, "--phone", phone.serial, "--contract", tiled)
    driftloop.ok(*arguments, "--out", run, status=None)
    hops = {hop["name"]: hop for hop in read_json(run / "verdict.json")["hops"]}
    # Under a tiling it was not trained with, the bundle's training side stands above these.
    assert tuple(hops)[-len(HOPS) :] == HOPS
    for hop in (hops[name] for name in HOPS):
        for kind in ("prompt_ids_equal", "image_tokens_equal", "grid_equal", "pixels_equal"):
            assert hop[kind] == {"count": IMAGES, "of": IMAGES}, (hop["name"], kind)
    assert hops["conversion"]["label_logprob_difference"]["maximum"] < 0.01
    assert hops["platform"]["tokens_equal"] == {"count": IMAGES, "of": IMAGES}


def test_a_clean_release_of_the_apps_depth_passes_with_no_blame_and_none_of_its_layers_off(
    virtual_phone: VirtualPhone, deep_bundle: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    textures.save(tmp_path / "images", DECISIVE, seed=17)
    done = driftloop(
        "run", deep_bundle, tmp_path / "images", "--phone", virtual_phone.serial,
        "--out", tmp_path / "run",
    )  # fmt: skip
    verdict = read_json(tmp_path / "run" / "verdict.json")
    assert (verdict["verdict"], done.returncode) == ("PASS", 0), verdict["reasons"]
    assert verdict["blames"] == []
    assert [hop["driven_cases"] for hop in verdict["hops"]] == [3] * len(HOPS)


@pytest.fixture(scope="module")
def finished(
    x86_phone: VirtualPhone,
    bundle: Path,
    mixed: Path,
    driftloop: Driftloop,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[object, ...]:
    """The command of a finished run of every arm; its last argument is the run's folder."""
    run = tmp_path_factory.mktemp("finished") / "run"
    arguments = ("run", bundle, mixed, "--phone", x86_phone.serial, "--out", run)
    driftloop(*arguments)
    return arguments


def test_a_second_phone_costs_only_phone_time(
    finished: tuple[object, ...],
    arm64_phone: VirtualPhone,
    bundle: Path,
    mixed: Path,
    driftloop: Driftloop,
    tmp_path: Path,
) -> None:
    driftloop("run", bundle, mixed, "--phone", arm64_phone.serial, "--out", tmp_path)
    by_arm: dict[str, list[bool]] = {}
    for one in observations(tmp_path):
        if one["canary"] is None:
            by_arm.setdefault(one["arm"], []).append(one["conditions"]["cached"])
    assert all(all(by_arm[arm]) for arm in HOST_ARMS)
    assert not any(by_arm["phone:q8_0+app"])
    attested = {one["arm"] for one in read_json(tmp_path / "run.json")["attestations"]}
    assert attested == {*HOST_ARMS, "phone:q8_0+app"}


def test_a_finished_run_can_be_repeated_and_its_reports_rebuilt(
    finished: tuple[object, ...], driftloop: Driftloop
) -> None:
    run = Path(str(finished[-1]))
    before = (run / "observations.jsonl").read_bytes()
    driftloop(*finished)
    assert (run / "observations.jsonl").read_bytes() == before

    reports = ("report.html", "report.md", "junit.xml", "sessions.jsonl", "verdict.json")
    verdict = read_json(run / "verdict.json")
    for name in reports:
        (run / name).unlink()
    driftloop.ok("report", run)
    assert all((run / name).is_file() for name in reports)
    assert read_json(run / "verdict.json") == verdict


def test_exchanged_red_and_blue_change_answers_and_need_a_folder_of_their_own(
    bundle: Path, mixed: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    usual, shipped = tmp_path / "default", tmp_path / "as-shipped"
    arguments = ("run", bundle, mixed, "--arms", "desktop:q8_0")
    driftloop(*arguments, "--out", usual)
    arguments += ("--contract", "as-shipped")
    assert "pixels.channels" in driftloop.ok(*arguments, "--out", usual, status=2).stderr
    driftloop(*arguments, "--out", shipped)
    arm = driftloop.json("compare", shipped, usual)["arms"][0]
    assert arm["shared"] == IMAGES
    assert arm["changed"] > 0


def test_skipped_images_are_counted_in_the_report(
    bundle: Path, mixed: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    images, run = shutil.copytree(mixed, tmp_path / "images"), tmp_path / "run"
    (images / "broken.jpg").write_bytes(b"\xff\xd8 no more than this")
    arguments = ("run", bundle, images, "--arms", "desktop:q8_0", "--skip-bad", "--out", run)
    driftloop.ok(*arguments, status=None)
    refused = read_json(run / "run.json")["refused"]
    assert [Path(one["path"]).name for one in refused] == ["broken.jpg"]
    assert "refused" in (run / "report.md").read_text()


def test_a_run_that_is_taken_up_again_is_read_compared_and_judged_once(
    bundle: Path, mixed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["run", str(bundle), str(mixed), "--arms", "desktop:f16,desktop:q8_0"]
    command += ["--out", str(run)]
    first = CliRunner().invoke(app, command)
    assert (run / "report.html").is_file(), first.output
    lines = (run / "observations.jsonl").read_text("utf-8").splitlines()
    with counted() as work:
        assert CliRunner().invoke(app, command).exit_code == first.exit_code
    assert work() == (len(lines), 1, 1)
