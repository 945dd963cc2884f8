"""`driftloop run` down to the phone, on both ABIs, and what can be done after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devices.virtual import VirtualPhone
from fixtures import photographs, textures
from harness.cli.app import app
from tests.evaluation_work import counted
from tests.integration.cli.conftest import Driftloop

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
    for path in photographs.save(folder):
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
    contract, run = tmp_path / "contract.toml", tmp_path / "run"
    contract.write_text(f'extends = "default"\nname = "{tiling}"\ntiling = "{tiling}"\n')
    done = driftloop(
        "run", bundle, mixed, "--phone", phone.serial, "--contract", contract, "--out", run
    )
    assert "Traceback" not in done.stderr
    hops = {hop["name"]: hop for hop in _json(run / "verdict.json")["hops"]}
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
    verdict = _json(tmp_path / "run" / "verdict.json")
    assert (verdict["verdict"], done.returncode) == ("PASS", 0), verdict["reasons"]
    assert verdict["blames"] == []
    assert [hop["driven_cases"] for hop in verdict["hops"]] == [3] * len(HOPS)


def test_a_second_phone_costs_only_phone_time(
    arm64_phone: VirtualPhone,
    x86_phone: VirtualPhone,
    bundle: Path,
    mixed: Path,
    driftloop: Driftloop,
    tmp_path: Path,
) -> None:
    driftloop("run", bundle, mixed, "--phone", x86_phone.serial, "--out", tmp_path / "first")
    driftloop("run", bundle, mixed, "--phone", arm64_phone.serial, "--out", tmp_path / "second")
    by_arm: dict[str, list[bool]] = {}
    for one in _observations(tmp_path / "second"):
        if one["canary"] is None:
            by_arm.setdefault(one["arm"], []).append(one["conditions"]["cached"])
    assert all(all(by_arm[arm]) for arm in HOST_ARMS)
    assert not any(by_arm["phone:q8_0+app"])
    attested = {one["arm"] for one in _json(tmp_path / "second" / "run.json")["attestations"]}
    assert attested == {*HOST_ARMS, "phone:q8_0+app"}


def test_a_finished_run_can_be_repeated_and_its_reports_rebuilt(
    x86_phone: VirtualPhone, bundle: Path, mixed: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("run", bundle, mixed, "--phone", x86_phone.serial, "--out", run)
    driftloop(*arguments)
    before = (run / "observations.jsonl").read_bytes()
    driftloop(*arguments)
    assert (run / "observations.jsonl").read_bytes() == before

    reports = ("report.html", "report.md", "junit.xml", "sessions.jsonl", "verdict.json")
    verdict = _json(run / "verdict.json")
    for name in reports:
        (run / name).unlink()
    assert driftloop("report", run).returncode == 0
    assert all((run / name).is_file() for name in reports)
    assert _json(run / "verdict.json") == verdict


def test_the_same_folder_is_refused_for_another_question(
    bundle: Path, mixed: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    arguments = ("run", bundle, mixed, "--arms", "desktop:q8_0", "--out", tmp_path / "run")
    driftloop(*arguments)
    done = driftloop(*arguments, "--contract", "as-shipped")
    assert done.returncode == 2
    assert "pixels.channels" in done.stderr


def test_exchanged_red_and_blue_change_answers(
    bundle: Path, mixed: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    for contract in ("default", "as-shipped"):
        driftloop(
            "run", bundle, mixed, "--arms", "desktop:q8_0", "--contract", contract,
            "--out", tmp_path / contract,
        )  # fmt: skip
    done = driftloop("compare", tmp_path / "as-shipped", tmp_path / "default", "--json")
    arm = json.loads(done.stdout)["arms"][0]
    assert arm["shared"] == IMAGES
    assert arm["changed"] > 0


def test_skipped_images_are_counted_in_the_report(
    bundle: Path, mixed: Path, driftloop: Driftloop, tmp_path: Path
) -> None:
    (mixed / "broken.jpg").write_bytes(b"\xff\xd8 no more than this")
    try:
        done = driftloop(
            "run", bundle, mixed, "--arms", "desktop:q8_0", "--skip-bad", "--out", tmp_path / "run"
        )
    finally:
        (mixed / "broken.jpg").unlink()
    assert "Traceback" not in done.stderr
    refused = _json(tmp_path / "run" / "run.json")["refused"]
    assert [Path(one["path"]).name for one in refused] == ["broken.jpg"]
    assert "refused" in (tmp_path / "run" / "report.md").read_text()


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


def _json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def _observations(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "observations.jsonl").read_text().splitlines()]
