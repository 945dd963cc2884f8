"""The private APT configuration: the machine's mirror, none of the machine's hooks or folders."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from devices.errors import ToolchainMissing
from devices.virtual import apt

needs_apt = pytest.mark.skipif(apt.unavailable() is not None, reason=str(apt.unavailable()))


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Every setting that APT itself sees under the private configuration."""
    config = apt.configure(tmp_path, "trixie")
    dump = subprocess.run(
        ["apt-config", "-c", str(config), "dump"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    return dump.stdout


@needs_apt
def test_the_machines_hooks_do_not_run(settings: str) -> None:
    hooks = [line for line in settings.splitlines() if re.match(r"APT::Update::\w+-Invoke", line)]
    assert [line for line in hooks if not line.endswith(' "";')] == []


@needs_apt
def test_lists_cache_and_status_are_private(settings: str, tmp_path: Path) -> None:
    for name in ("Dir::State::lists", "Dir::State::status", "Dir::Cache", "Dir::Etc::sourcelist"):
        (line,) = [line for line in settings.splitlines() if line.startswith(f"{name} ")]
        assert str(tmp_path) in line


@needs_apt
def test_the_one_source_is_signed_by_the_installed_keyring(settings: str, tmp_path: Path) -> None:
    source = (tmp_path / "debian.sources").read_text()
    assert source.count("URIs:") == 1
    assert "Suites: trixie\n" in source
    assert "Signed-By: /usr/share/keyrings/" in source


def test_without_apt_the_reason_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("apt-get") is None
    reason = apt.unavailable()
    assert reason is not None
    assert "apt-get" in reason
    assert "\n" not in reason
    with pytest.raises(ToolchainMissing, match="apt-get"):
        apt.fetch("trixie", ["adbd"], tmp_path / "debs")


@needs_apt
def test_the_mirror_is_found_on_a_machine_that_never_fetched_its_package_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::State::lists "{tmp_path / "lists"}";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    assert apt.unavailable() is None
