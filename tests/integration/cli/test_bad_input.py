"""Each bad input gives one clear line on stderr, the right exit code, and no traceback."""

# ruff: noqa: E501  (the table is read one case a line)

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from devices import virtual
from devices.lease import lease
from devices.virtual import VirtualPhone
from tests.integration.cli.conftest import Driftloop

USAGE, INFRA = 2, 4


def _text(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


def _picture(folder: Path) -> Path:
    path = folder / "picture.png"
    Image.new("RGB", (300, 200), "red").save(path)
    return path


def _copied(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "bundle"))


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def _damaged(bundle: Path, folder: Path, name: str) -> Path:
    """A bundle with one bit of one file turned."""
    copy = _copied(bundle, folder)
    with (copy / name).open("r+b") as file:
        file.seek(-9, 2)
        last = file.read(1)
        file.seek(-9, 2)
        file.write(bytes([last[0] ^ 1]))
    return copy


def _truncated(bundle: Path, folder: Path) -> Path:
    copy = _copied(bundle, folder)
    _cut(copy / "text-q8_0.gguf")
    return copy


def _without(bundle: Path, folder: Path, name: str) -> Path:
    copy = _copied(bundle, folder)
    path = copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return copy


def _exchanged(bundle: Path, folder: Path) -> Path:
    copy = _copied(bundle, folder)
    shutil.copyfile(copy / "text-q8_0.gguf", copy / "mmproj-q8_0.gguf")
    return copy


def _no_manifest_fields(bundle: Path, folder: Path) -> Path:
    copy = _copied(bundle, folder)
    _text(copy, "manifest.json", json.dumps({"schema_version": 1}))
    return copy


Case = Callable[[Path, Path], list[object]]
ARGUMENTS: dict[str, tuple[int, str, Case]] = {
    "no bundle": (USAGE, "no such folder", lambda b, t: ["run", t / "none", _picture(t)]),
    "bundle is a file": (USAGE, "no such folder", lambda b, t: ["run", _picture(t), _picture(t)]),
    "bundle without manifest": (USAGE, "manifest.json", lambda b, t: ["run", t, _picture(t)]),
    "manifest of other fields": (USAGE, "manifest.json", lambda b, t: ["run", _no_manifest_fields(b, t), _picture(t)]),
    "GGUF truncated": (USAGE, "text-q8_0.gguf", lambda b, t: ["run", _truncated(b, t), _picture(t)]),
    "GGUF with a bit turned": (USAGE, "text-q8_0.gguf", lambda b, t: ["bundle", "check", _damaged(b, t, "text-q8_0.gguf")]),
    "text model in the place of mmproj": (USAGE, "mmproj-q8_0.gguf", lambda b, t: ["run", _exchanged(b, t), _picture(t)]),
    "mmproj missing": (USAGE, "mmproj-q8_0.gguf", lambda b, t: ["run", _without(b, t, "mmproj-q8_0.gguf"), _picture(t)]),
    "checkpoint missing from the bundle": (USAGE, "checkpoint", lambda b, t: ["run", _without(b, t, "checkpoint"), _picture(t)]),
    "checkpoint missing": (USAGE, "none", lambda b, t: ["bundle", "build", "--checkpoint", t / "none", "--out", t / "out"]),
    "checkpoint of nothing": (USAGE, "config.json", lambda b, t: ["bundle", "build", "--checkpoint", t, "--out", t / "out"]),
    "checkpoint of another architecture": (USAGE, "LlamaForCausalLM", lambda b, t: ["bundle", "build", "--checkpoint", _text(t, "config.json", '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}').parent, "--out", t / "out"]),
    "unknown quant type": (USAGE, "q9_9", lambda b, t: ["bundle", "build", "--checkpoint", b / "checkpoint", "--out", t / "out", "--quant", "q9_9"]),
    "quant the bundle lacks": (USAGE, "q5_0", lambda b, t: ["run", b, _picture(t), "--quant", "q5_0"]),
    "no images": (USAGE, "missing", lambda b, t: ["run", b, t / "none"]),
    "empty folder": (USAGE, "no-images", lambda b, t: ["run", b, t]),
    "text called .jpg": (USAGE, "photo.jpg", lambda b, t: ["run", b, _text(t, "photo.jpg", "no picture")]),
    "empty file": (USAGE, "photo.png", lambda b, t: ["run", b, _text(t, "photo.png", "")]),
    "manifest without an image column": (USAGE, "missing-column", lambda b, t: ["run", b, _text(t, "m.csv", "a,b\n1,2\n")]),
    "manifest with an unknown label": (USAGE, "unknown-label", lambda b, t: ["run", b, _text(_picture(t).parent, "m.csv", "image,label\npicture.png,air\n")]),
    "unknown contract": (USAGE, "as-shipped, as-trained, default", lambda b, t: ["run", b, _picture(t), "--contract", "none"]),
    "contract is no TOML": (USAGE, "cannot be read", lambda b, t: ["run", b, _picture(t), "--contract", _text(t, "c.toml", "= 1")]),
    "contract with a wrong field": (USAGE, "pixels.size", lambda b, t: ["run", b, _picture(t), "--contract", _text(t, "c.toml", 'extends = "default"\n[pixels]\nsize = -1\n')]),
    "answer too long for the context": (USAGE, "32 prompt tokens and 1000 for the answer do not fit a context of 1024", lambda b, t: ["run", b, _picture(t), "--contract", _text(t, "c.toml", 'extends = "default"\n[limits]\nmax_tokens = 1000\n')]),
    "gates file is missing": (USAGE, "none.toml", lambda b, t: ["run", b, _picture(t), "--gates", t / "none.toml"]),
    "gates with an unknown key": (USAGE, "agrement", lambda b, t: ["run", b, _picture(t), "--gates", _text(t, "g.toml", "[agrement]\nconfidence = 1\n")]),
    "unknown arm": (USAGE, "laptop", lambda b, t: ["run", b, _picture(t), "--arms", "torch,laptop"]),
    "phone arm without a phone": (USAGE, "--phone", lambda b, t: ["run", b, _picture(t), "--arms", "phone:q8_0+app"]),
    "unknown option": (USAGE, "--fone", lambda b, t: ["run", b, _picture(t), "--fone", "x"]),
    "unknown ABI": (USAGE, "mips", lambda b, t: ["phone", "start", "--abi", "mips"]),
    "word that is no element": (USAGE, "'air'", lambda b, t: ["fortune", "fire", "air", "wood"]),
    "two words for a fortune": (USAGE, "not 2", lambda b, t: ["fortune", "fire", "wood"]),
    "report of no run": (USAGE, "run.json", lambda b, t: ["report", t]),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_input_is_refused_in_one_line(
    name: str, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    status, fragment, arguments = ARGUMENTS[name]
    done = driftloop(*arguments(bundle, tmp_path), cwd=tmp_path)
    _assert_one_line(done.stderr, fragment)
    assert done.returncode == status


def test_no_phone_attached(
    own_adb_server: None, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    done = driftloop("run", bundle, _picture(tmp_path), "--phone", "all", cwd=tmp_path)
    _assert_one_line(done.stderr, "no phone is attached")
    assert done.returncode == INFRA


def test_unknown_serial(
    x86_phone: VirtualPhone, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    done = driftloop("run", bundle, _picture(tmp_path), "--phone", "XYZ123", cwd=tmp_path)
    _assert_one_line(done.stderr, "XYZ123")
    assert done.returncode == USAGE


def test_two_runs_on_one_phone(
    x86_phone: VirtualPhone, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    with lease(x86_phone.serial):
        done = driftloop(
            "run", bundle, _picture(tmp_path), "--phone", x86_phone.serial, cwd=tmp_path
        )
    _assert_one_line(done.stderr, "another run")
    assert done.returncode == INFRA


def test_full_storage_is_infra_and_said_in_the_verdict(
    server: object, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    small = virtual.start("x86_64", storage_mb=4)
    try:
        done = driftloop(
            "run", bundle, _picture(tmp_path), "--phone", small.serial, "--out", tmp_path / "run",
            "--arms", "phone:q8_0+app", "--json",
        )  # fmt: skip
    finally:
        virtual.stop(small.name)
    assert done.returncode == INFRA
    assert "Traceback" not in done.stderr
    assert any("free" in reason for reason in json.loads(done.stdout)["reasons"])


def _assert_one_line(stderr: str, fragment: str) -> None:
    assert "Traceback" not in stderr
    last = [line for line in stderr.splitlines() if line.strip()][-1]
    assert fragment in stderr, stderr
    assert len(last) < 500
