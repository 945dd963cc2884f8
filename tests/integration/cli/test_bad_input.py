"""Each bad input gives one clear line on stderr, the right exit code, and no traceback."""

# ruff: noqa: E501  (the tables are read one case a line)

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from driftloop.devices import adb, virtual
from driftloop.devices.deploy import REMOTE_BLOBS
from driftloop.devices.phone import Phone
from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures.drifts.release import contract
from tests.integration.cli.conftest import Driftloop, one_line

USAGE, INFRA = 2, 4
LOG = Path(__file__).parents[2] / "unit/harness/listen/logs/llama.cpp-af6528e6d.log"


def _text(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


def _picture(folder: Path) -> Path:
    path = folder / "picture.png"
    Image.new("RGB", (300, 200), "red").save(path)
    return path


def _copied(bundle: Path, folder: Path, edit: Callable[[Path], object]) -> Path:
    copy = Path(shutil.copytree(bundle, folder / "bundle"))
    edit(copy)
    return copy


def _without(bundle: Path, folder: Path, name: str) -> Path:
    return _copied(bundle, folder, lambda copy: (copy / name).rename(folder / "gone"))


def _truncate(bundle: Path) -> None:
    path = bundle / "text-q8_0.gguf"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _turn_a_bit(bundle: Path) -> None:
    path = bundle / "text-q8_0.gguf"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def _exchange(bundle: Path) -> None:
    shutil.copyfile(bundle / "text-q8_0.gguf", bundle / "mmproj-q8_0.gguf")


def _empty_manifest(bundle: Path) -> None:
    _text(bundle, "manifest.json", json.dumps({"schema_version": 1}))


Case = Callable[[Path, Path], list[object]]
"""Takes the bundle and a folder of its own."""
RUNS: dict[str, tuple[str, Case]] = {
    "no bundle": ("no such folder", lambda b, t: [t / "none", _picture(t)]),
    "bundle is a file": ("no such folder", lambda b, t: [_picture(t), _picture(t)]),
    "bundle without manifest": ("manifest.json", lambda b, t: [t, _picture(t)]),
    "manifest of other fields": ("manifest.json", lambda b, t: [_copied(b, t, _empty_manifest), _picture(t)]),
    "GGUF truncated": ("text-q8_0.gguf", lambda b, t: [_copied(b, t, _truncate), _picture(t)]),
    "text model in the place of mmproj": ("mmproj-q8_0.gguf", lambda b, t: [_copied(b, t, _exchange), _picture(t)]),
    "mmproj missing": ("mmproj-q8_0.gguf", lambda b, t: [_without(b, t, "mmproj-q8_0.gguf"), _picture(t)]),
    "checkpoint missing from the bundle": ("checkpoint", lambda b, t: [_without(b, t, "checkpoint"), _picture(t)]),
    "quant the bundle lacks": ("q5_0", lambda b, t: [b, _picture(t), "--quant", "q5_0"]),
    "no images": ("missing", lambda b, t: [b, t / "none"]),
    "empty folder": ("no-images", lambda b, t: [b, t]),
    "text called .jpg": ("photo.jpg", lambda b, t: [b, _text(t, "photo.jpg", "no picture")]),
    "empty file": ("photo.png", lambda b, t: [b, _text(t, "photo.png", "")]),
    "manifest without an image column": ("missing-column", lambda b, t: [b, _text(t, "m.csv", "a,b\n1,2\n")]),
    "manifest with an unknown label": ("unknown-label", lambda b, t: [b, _text(_picture(t).parent, "m.csv", "image,label\npicture.png,air\n")]),
    "unknown contract": ("as-shipped, as-trained, default", lambda b, t: [b, _picture(t), "--contract", "none"]),
    "contract is no TOML": ("cannot be read", lambda b, t: [b, _picture(t), "--contract", _text(t, "c.toml", "= 1")]),
    "contract with a wrong field": ("pixels.size", lambda b, t: [b, _picture(t), "--contract", contract({"pixels": {"size": -1}}, t / "c.toml")]),
    "answer too long for the context": ("32 prompt tokens and 1000 for the answer do not fit a context of 1024", lambda b, t: [b, _picture(t), "--contract", contract({"limits": {"max_tokens": 1000}}, t / "c.toml")]),
    "gates file is missing": ("none.toml", lambda b, t: [b, _picture(t), "--gates", t / "none.toml"]),
    "gates with an unknown key": ("agrement", lambda b, t: [b, _picture(t), "--gates", _text(t, "g.toml", "[agrement]\nconfidence = 1\n")]),
    "unknown arm": ("laptop", lambda b, t: [b, _picture(t), "--arms", "torch,laptop"]),
    "phone arm without a phone": ("--phone", lambda b, t: [b, _picture(t), "--arms", "phone:q8_0+app"]),
    "unknown option": ("--fone", lambda b, t: [b, _picture(t), "--fone", "x"]),
}  # fmt: skip
OTHERS: dict[str, tuple[str, Case]] = {
    "GGUF with a bit turned": ("text-q8_0.gguf", lambda b, t: ["bundle", "check", _copied(b, t, _turn_a_bit)]),
    "checkpoint missing": ("none", lambda b, t: ["bundle", "build", "--checkpoint", t / "none", "--out", t / "out"]),
    "checkpoint of nothing": ("config.json", lambda b, t: ["bundle", "build", "--checkpoint", t, "--out", t / "out"]),
    "checkpoint of another architecture": ("LlamaForCausalLM", lambda b, t: ["bundle", "build", "--checkpoint", _text(t, "config.json", '{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}').parent, "--out", t / "out"]),
    "unknown quant type": ("q9_9", lambda b, t: ["bundle", "build", "--checkpoint", b / "checkpoint", "--out", t / "out", "--quant", "q9_9"]),
    "unknown ABI": ("mips", lambda b, t: ["phone", "start", "--abi", "mips"]),
    "word that is no element": ("'air'", lambda b, t: ["fortune", "fire", "air", "wood"]),
    "two words for a fortune": ("not 2", lambda b, t: ["fortune", "fire", "wood"]),
    "report of no run": ("run.json", lambda b, t: ["report", t]),
}  # fmt: skip
OF_ONE_LINE: dict[str, tuple[str, Case]] = {
    "selftest of no row": ("nonsense", lambda b, t: ["selftest", "--only", "nonsense"]),
    "comparison with no bundle": ("no such folder", lambda b, t: ["bundle", "compare", b, t / "none"]),
    "comparison of a type that no bundle has": ("no q5_0, it holds", lambda b, t: ["bundle", "compare", b, b, "--quant", "q5_0"]),
    "tokens of no image": ("none", lambda b, t: ["tokens", b, "--image", t / "none"]),
    "tokens under no contract": ("none", lambda b, t: ["tokens", b, "--contract", t / "none"]),
    "no log": ("name one log", lambda b, t: ["listen"]),
    "log that is missing": ("cannot be read", lambda b, t: ["listen", "--log", "none.log"]),
    "log of something else": ("holds no line in which llama.cpp loads a model", lambda b, t: ["listen", "--log", __file__]),
    "package of a saved log": ("go with --phone", lambda b, t: ["listen", "--log", LOG, "--package", "com.example.app"]),
    "audit of nothing": ("nothing to audit", lambda b, t: ["audit"]),
    "audit of sources alone": ("nothing to audit", lambda b, t: ["audit", "--sources", "."]),
    "audit of no dataset": ("no such dataset", lambda b, t: ["audit", "--dataset", "nowhere"]),
    "audit of no configuration": ("cannot be read", lambda b, t: ["audit", "--train-config", "nowhere.yaml"]),
    "audit of no checkpoint": ("no such folder", lambda b, t: ["audit", "--checkpoint", "./nowhere"]),
    "audit of no bundle": ("no such folder", lambda b, t: ["audit", "--bundle", "nowhere"]),
    "audit of a collator alone": ("give --checkpoint or --bundle", lambda b, t: ["audit", "--collator", "json:loads"]),
    "audit of no app": ("nowhere", lambda b, t: ["audit", "--app-source", "nowhere"]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*RUNS, *OTHERS, *OF_ONE_LINE])
def test_bad_input_is_refused_in_one_line(
    name: str, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    fragment, arguments = (RUNS | OTHERS | OF_ONE_LINE)[name]
    command = ["run"] if name in RUNS else []
    done = driftloop.ok(*command, *arguments(bundle, tmp_path), cwd=tmp_path, status=USAGE)
    assert fragment in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 500
    if name in OF_ONE_LINE:
        one_line(done, fragment)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("deploy", "--quant", "q2_k"), "no q2_k, it holds f16, q8_0, q4_0"),
        (("deploy", "--phone", "XYZ123"), "XYZ123: no phone of this serial"),
        (("run", "--phone", "XYZ123"), "XYZ123"),
    ],
)
def test_a_phone_or_files_that_are_not_there_are_refused_and_nothing_is_sent(
    arguments: tuple[str, ...],
    fragment: str,
    phone: Phone,
    bundle: Path,
    tmp_path: Path,
    driftloop: Driftloop,
) -> None:
    phone.shell(f"rm -rf {REMOTE_BLOBS}")
    name, *options = arguments
    images = [_picture(tmp_path)] if name == "run" else []
    serial = ["--phone", phone.serial] if "--phone" not in options else []
    done = driftloop.ok(name, bundle, *images, *serial, *options, cwd=tmp_path, status=USAGE)
    assert fragment in done.stderr.splitlines()[-1]
    assert not phone.exists(REMOTE_BLOBS)


def test_a_cache_that_cannot_be_made_is_named(driftloop: Driftloop, tmp_path: Path) -> None:
    cache = _text(tmp_path, "file", "") / "cache"
    done = driftloop("phone", "list", cache=cache)
    assert done.returncode == USAGE
    one_line(done, f"{cache}/virtual/phones: Not a directory; set DRIFTLOOP_CACHE")


def test_a_terminal_of_ascii_alone_gets_what_it_can_show(
    driftloop: Driftloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "? " in driftloop.ok("doctor", status=None).stdout
    assert driftloop.json("doctor", status=None)


def test_a_phone_without_logcat_says_so(driftloop: Driftloop, x86_phone: VirtualPhone) -> None:
    done = driftloop.ok("listen", "--phone", x86_phone.serial, status=USAGE)
    assert "logcat does not run" in done.stderr


def test_no_phone_attached(
    own_adb_server: None, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    images = _picture(tmp_path)
    done = driftloop.ok("run", bundle, images, "--phone", "all", cwd=tmp_path, status=INFRA)
    assert "no phone is attached" in done.stderr


def test_two_runs_on_one_phone(
    x86_phone: VirtualPhone, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    arguments = ("run", bundle, _picture(tmp_path), "--phone", x86_phone.serial)
    with adb.find(x86_phone.serial).lease():
        done = driftloop.ok(*arguments, cwd=tmp_path, status=INFRA)
    assert "another run" in done.stderr


def test_full_storage_is_infra_and_said_in_the_verdict(
    server: object, bundle: Path, tmp_path: Path, driftloop: Driftloop
) -> None:
    small = virtual.start("x86_64", storage_mb=4)
    arguments = ("run", bundle, _picture(tmp_path), "--phone", small.serial)
    arguments += ("--out", tmp_path / "run", "--arms", "phone:q8_0+app")
    try:
        verdict = driftloop.json(*arguments, status=INFRA)
    finally:
        virtual.stop(small.name)
    assert any("free" in reason for reason in verdict["reasons"])
