"""What CMake is told by each compiler."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devices.errors import ToolchainMissing
from devices.runner.toolchain import ndk_toolchain, program, zig_toolchain
from devices.runner.variants import ARM64, ARM64_DOTPROD


def test_zig_compiles_for_the_variants_target_and_gives_threads_a_stack(tmp_path: Path) -> None:
    toolchain = zig_toolchain(ARM64_DOTPROD)
    arguments = toolchain.write(tmp_path)
    assert toolchain.cpu_option == "-mcpu=generic+v8_2a+dotprod+fullfp16"
    assert "-DCMAKE_SYSTEM_PROCESSOR=aarch64" in arguments
    assert any("-z,stack-size=8388608" in argument for argument in arguments)
    compiler = tmp_path / "zig-cc"
    assert os.access(compiler, os.X_OK)
    assert "-target aarch64-linux-musl" in compiler.read_text()


def test_an_ndk_is_used_by_its_own_toolchain_file(tmp_path: Path) -> None:
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


def test_a_folder_that_is_no_ndk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainMissing, match="no Android NDK"):
        ndk_toolchain(tmp_path, ARM64)


def test_a_missing_build_tool_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ToolchainMissing, match="pip install"):
        program("no-such-build-tool")
