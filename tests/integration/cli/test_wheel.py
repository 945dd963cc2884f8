"""driftloop's wheel in a user's project that has modules of its own by the same names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from driftloop.devices.virtual import VirtualPhone

ROOT = Path(__file__).parents[3]
OWN = {
    "devices.py": "NAME = 'the devices of the project'\n",
    "harness/__init__.py": "NAME = 'the harness of the project'\n",
    "reports/__init__.py": "NAME = 'the reports of the project'\n",
}


@dataclass(frozen=True)
class Project:
    """A folder to work in; `site` holds driftloop's wheel, unpacked by pip."""

    path: Path
    site: Path

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the interpreter in the project, where its own modules come first."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(self.site)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The wheel is built from a copy, since setuptools writes into the folder it builds from."""
    folder = tmp_path_factory.mktemp("project")
    source, site, path = folder / "source", folder / "site", folder / "work"
    left_out = shutil.ignore_patterns(".*", "build", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*pip, *built], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    for name, text in OWN.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return Project(path, site)


def test_the_wheel_puts_nothing_beside_the_package_driftloop(project: Project) -> None:
    beside = {path.name for path in project.site.iterdir() if not path.name.endswith(".dist-info")}
    assert beside == {"driftloop", "bin"}


def test_modules_of_the_project_and_of_other_packages_stay_theirs(project: Project) -> None:
    code = (
        "import devices, harness, reports, fixtures, driftloop.cli.app;"
        "print(devices.NAME, harness.NAME, reports.NAME, fixtures.TempDir.__name__,"
        " driftloop.__file__, sep='\\n')"
    )
    done = project.python("-c", code)
    assert done.stdout.splitlines() == [
        "the devices of the project",
        "the harness of the project",
        "the reports of the project",
        "TempDir",  # of PyPI's fixtures, a name that an installed driftloop must not take
        str(project.site / "driftloop" / "__init__.py"),
    ], done.stderr


def test_the_acceptance_suite_of_the_wheel_judges_a_phone(
    project: Project, x86_phone: VirtualPhone, bundle: Path, pictures: Path
) -> None:
    suite = ("-m", "pytest", "--pyargs", "driftloop.acceptance", "-v", "-k", "observations")
    asked = ("--driftloop-bundle", bundle, "--driftloop-images", pictures)
    done = project.python(*suite, *asked, "--driftloop-phone", x86_phone.serial)
    assert done.returncode == 0, done.stdout
    assert f"{x86_phone.name}-observations] PASSED" in done.stdout
