"""Building the runner: what CMake is given by each compiler, the cache's key, what is forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from driftloop.devices.errors import ToolchainMissing
from driftloop.devices.paths import cache_dir
from driftloop.devices.runner.build import forget_unused, ndk_toolchain, program, zig_toolchain
from driftloop.devices.runner.variants import ARM64, ARM64_DOTPROD


def _variants(hash_seed: str) -> str:
    script = "from devices.runner import variants; print(repr(variants.ALL))"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)


def test_what_a_build_is_kept_under_is_the_same_in_every_process() -> None:
    assert len({_variants(hash_seed) for hash_seed in "0123"}) == 1


def test_builds_that_nobody_used_for_a_month_are_forgotten_unless_one_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path))
    for name, days in (("recent", 29), ("old", 31), ("build-old", 90), ("busy", 90)):
        program = cache_dir("runner", name) / "driftloop-runner"
        program.touch()
        (tmp_path / "runner" / f"{name}.lock").touch()
        then_s = time.time() - days * 86_400
        os.utime(program.parent, (then_s, then_s))
    with FileLock(tmp_path / "runner" / "busy.lock", is_singleton=False):
        forget_unused()
    left = sorted(path.name for path in (tmp_path / "runner").iterdir() if path.is_dir())
    assert left == ["busy", "recent"]
    assert len(list((tmp_path / "runner").glob("*.lock"))) == 4


def test_zig_compiles_for_the_variants_target_and_gives_threads_a_stack(tmp_path: Path) -> None:
    toolchain = zig_toolchain(ARM64_DOTPROD)
    arguments = toolchain.write(tmp_path)
    assert toolchain.cpu_option == "-mcpu=generic+v8_2a+dotprod+fullfp16"
    assert "-DCMAKE_SYSTEM_PROCESSOR=aarch64" in arguments
    assert any("-z,stack-size=8388608" in argument for argument in arguments)
    for name in ("C_COMPILER", "CXX_COMPILER", "AR", "RANLIB"):
        (tool,) = [one for one in arguments if one.startswith(f"-DCMAKE_{name}=")]
        assert os.access(tool.partition("=")[2], os.X_OK)
    assert "-target aarch64-linux-musl" in (tmp_path / "zig-cc").read_text()


def test_an_ndk_is_used_by_its_own_toolchain_file(tmp_path: Path) -> None:
    with pytest.raises(ToolchainMissing, match="no Android NDK"):
        ndk_toolchain(tmp_path, ARM64)
    own = tmp_path / "build" / "cmake" / "android.toolchain.cmake"
    own.parent.mkdir(parents=True)
    own.touch()
    (tmp_path / "source.properties").write_text("Pkg.Desc = NDK\nPkg.Revision = 27.2.12479018\n")
    toolchain = ndk_toolchain(tmp_path, ARM64)
    arguments = toolchain.write(tmp_path)
    assert f"-DCMAKE_TOOLCHAIN_FILE={own}" in arguments
    assert "-DANDROID_ABI=arm64-v8a" in arguments
    assert "27.2.12479018" in toolchain.identity
    assert toolchain.cpu_option == "-march=armv8-a"


def test_a_missing_build_tool_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolchainMissing, match="pip install"):
        program("no-such-build-tool")
