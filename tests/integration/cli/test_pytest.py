"""`pytest` against phones that are there, and against those that are not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from xml.etree import ElementTree

import adbutils
import pytest

from driftloop.devices import virtual
from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures import textures
from tests.integration.cli.conftest import Done, observations
from tests.integration.devices.conftest import NeverAccepts, SaysNothing, listening

ROOT = Path(__file__).parents[3]
SUITE = ROOT / "tests" / "phone" / "test_release.py"
GUIDE = ROOT / "docs" / "extending.md"
ABSENT = "R5CT00NOBODY"
IMAGES = 6
"""Too few to decide anything."""


def session(cwd: Path, *arguments: object) -> Done:
    """pytest, run to its end in a project of a user's."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)]
    path = os.environ["PATH"].split(os.pathsep)
    changes = {
        "CI": "true",  # lines of the summary are not cut
        "PATH": os.pathsep.join(one for one in path if not Path(one, "adb").exists()),
        "PYTHONPATH": os.pathsep.join(map(str, (cwd / "packages", ROOT))),
    }
    return subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False, cwd=cwd,
        env=os.environ | changes,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, bundle: Path) -> tuple[object, ...]:
    """The acceptance suite in a project of a user's, and the arguments that it needs."""
    shutil.copy(SUITE, tmp_path)
    textures.save(tmp_path / "images", IMAGES, seed=77)
    return (
        "--driftloop-bundle", bundle, "--driftloop-images", "images/labels.csv",
        "--driftloop-out", "runs",
    )  # fmt: skip


def names(report: Path) -> dict[str, dict[str, str]]:
    """Every test of an XML report with its properties."""
    return {
        f"{case.get('classname')}::{case.get('name')}": {
            str(one.get("name")): str(one.get("value")) for one in case.iter("property")
        }
        for case in ElementTree.parse(report).iter("testcase")  # noqa: S314 (pytest's own)
    }


def test_phones_run_side_by_side_each_once_and_one_that_is_not_there_fails_alone(
    x86_phone: VirtualPhone, tmp_path: Path, project: tuple[object, ...]
) -> None:
    """Two workers for two phones; then one of the phones without any worker."""
    example = re.search(r"```python\n(# test_elements\.py\n.*?)```", GUIDE.read_text("utf-8"), re.S)
    assert example is not None
    own = example[1].replace("a.jpg", f"texture-77-{IMAGES - 1:03}.png")
    own = own.replace('"fire"', 'evaluation.label(image, arm="torch")')
    (tmp_path / "test_elements.py").write_text(own)
    with virtual.started("x86_64") as second:
        there = (x86_phone, second)
        asked = [f"--driftloop-phone={serial}" for serial in (*(p.serial for p in there), ABSENT)]
        relaxed = "--driftloop-allow-inconclusive"
        many = session(tmp_path, *project, *asked, relaxed, "-n", 2, "--junitxml=many.xml")
        assert many.returncode == pytest.ExitCode.TESTS_FAILED, many.stdout
        assert " failed" not in many.stdout
        errors = [line for line in many.stdout.splitlines() if line.startswith("ERROR ")]
        assert len(errors) == 3, many.stdout  # of each test function, with that phone
        assert all(f"{ABSENT}: no phone of this serial is attached" in line for line in errors)
        for phone in there:
            assert f"{phone.name}: INCONCLUSIVE. There is not enough evidence" in many.stdout
        assert f"{ABSENT}: no verdict: {ABSENT}: no phone of this serial" in many.stdout

        folders = sorted((tmp_path / "runs").iterdir())
        assert len(folders) == len(there)
        seen = [(folder, one) for folder in folders for one in observations(folder)]
        slots = [
            (folder, one["arm"], one["phone"], one["session"], one["position"])
            for folder, one in seen
        ]
        assert len(slots) == len({*slots})
        computed = Counter(
            (one["arm"], one["pixels_sha256"])
            for _, one in seen
            if one["phone"] is None and one["canary"] is None and not one["conditions"]["cached"]
        )
        assert {*computed.values()} <= {1}

        one = session(tmp_path, *project, asked[0], "--junitxml=one.xml")
        assert one.returncode == pytest.ExitCode.TESTS_FAILED, one.stdout
        assert f"{x86_phone.name}: checking the bundle: 1 of 1" in one.stdout
        assert f"[{x86_phone.name}-verdict] - Failed: inconclusive: There is not" in one.stdout
    many_names, one_names = names(tmp_path / "many.xml"), names(tmp_path / "one.xml")
    assert one_names.keys() == {name for name in many_names if x86_phone.name in name}
    for properties in one_names.values():
        assert properties["driftloop_serial"] == x86_phone.serial
        assert properties["driftloop_android"]
        assert float(properties["driftloop_platform_label_logprob"]) >= 0
        assert Path(properties["driftloop_report"]).name == "report.html"


@contextmanager
def _nobody(cwd: Path) -> Iterator[dict[str, str]]:
    yield {"all": "no phone is attached; connect one with USB debugging on"}


@contextmanager
def _three_of_no_use(cwd: Path) -> Iterator[dict[str, str]]:
    with listening(NeverAccepts) as unauthorized, listening(SaysNothing) as offline:
        yield {
            ABSENT: "no phone of this serial is attached (attached: ",
            unauthorized: "accept",
            offline: "offline",
        }


@contextmanager
def _no_adb(cwd: Path) -> Iterator[dict[str, str]]:
    """adbutils as it is where its wheel brings no adb."""
    installed = Path(adbutils.__file__).parent
    shutil.copytree(
        installed, cwd / "packages" / "adbutils", ignore=lambda _, names: {"adb"} & {*names}
    )
    yield {"all": "there is no adb on this host; install Android's platform-tools"}


@pytest.mark.usefixtures("own_adb_server")
@pytest.mark.parametrize("lab", [_nobody, _three_of_no_use, _no_adb])
def test_a_lab_without_a_usable_phone_is_one_error_a_phone_that_says_what_to_do(
    lab: Callable[[Path], AbstractContextManager[dict[str, str]]],
    tmp_path: Path,
    project: tuple[object, ...],
) -> None:
    with lab(tmp_path) as phones:
        asked = [f"--driftloop-phone={phone}" for phone in phones]
        for workers in ((), ("-n", 1)):
            done = session(tmp_path, *project, *asked, *workers)
            assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
            lines = [line for line in done.stdout.splitlines() if line.startswith("ERROR ")]
            for line, (phone, said) in zip(sorted(lines), sorted(phones.items()), strict=True):
                assert f"[{phone}-verdict] - Failed: " in line
                assert said in line
            assert "Traceback" not in done.stdout + done.stderr
