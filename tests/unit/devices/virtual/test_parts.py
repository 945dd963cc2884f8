"""Packages from the machine's own mirror, with none of the machine's APT hooks or folders."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from driftloop.devices.errors import ToolchainMissing
from driftloop.devices.virtual.parts import apt_unavailable, configure_apt, fetch_debs

needs_apt = pytest.mark.skipif(apt_unavailable() is not None, reason=str(apt_unavailable()))


@pytest.fixture
def settings(tmp_path: Path) -> str:
    """Every setting that APT itself sees under the private configuration."""
    config = configure_apt(tmp_path, "trixie")
    return subprocess.check_output(["apt-config", "-c", config, "dump"], text=True)  # noqa: S607


@needs_apt
def test_hooks_do_not_run_and_folders_and_the_signed_source_are_private(
    settings: str, tmp_path: Path
) -> None:
    hooks = [line for line in settings.splitlines() if re.match(r"APT::Update::\w+-Invoke", line)]
    assert [line for line in hooks if not line.endswith(' "";')] == []
    for name in ("Dir::State::lists", "Dir::State::status", "Dir::Cache", "Dir::Etc::sourcelist"):
        (line,) = [line for line in settings.splitlines() if line.startswith(f"{name} ")]
        assert str(tmp_path) in line
    source = (tmp_path / "debian.sources").read_text()
    assert source.count("URIs:") == 1
    assert "Suites: trixie\n" in source
    assert "Signed-By: /usr/share/keyrings/" in source


def test_without_apt_the_reason_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("apt-get") is None
    reason = apt_unavailable()
    assert reason is not None
    assert "apt-get" in reason
    assert "\n" not in reason
    with pytest.raises(ToolchainMissing, match="apt-get"):
        fetch_debs("trixie", ["adbd"], tmp_path / "debs")


@needs_apt
def test_the_mirror_is_found_on_a_machine_that_never_fetched_its_package_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::State::lists "{tmp_path / "lists"}";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    assert apt_unavailable() is None
