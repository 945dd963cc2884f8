"""`tests/phone`, the suite a user runs unchanged: one test per phone and gate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from devices.virtual import VirtualPhone

SUITE = Path(__file__).parents[2] / "phone"


def test_the_acceptance_suite_judges_an_attached_phone(
    x86_phone: VirtualPhone, bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "pytest", str(SUITE), "-v", "-p", "no:cacheprovider"]
    command += ["--driftloop-bundle", str(bundle), "--driftloop-images", str(pictures)]
    command += ["--driftloop-phone", x86_phone.serial, "--driftloop-out", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{x86_phone.serial}-agreement" in done.stdout
    assert f"{x86_phone.serial}-session_s" in done.stdout
    assert list((tmp_path / "runs").glob("*/report.html"))
