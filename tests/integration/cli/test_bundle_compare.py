"""`driftloop bundle compare`: two real bundles, one of them damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import gguf
import pytest

from tests.integration.cli.conftest import Driftloop


@pytest.fixture
def damaged(bundle: Path, tmp_path: Path) -> Path:
    """Two neighbours exchanged, one tensor zeroed and another rotary base: no hash is right."""
    copy = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    reader = gguf.GGUFReader(copy / "text-q8_0.gguf", "r+")
    data = {tensor.name: tensor.data for tensor in reader.tensors}
    first, second = data["blk.0.ffn_up.weight"], data["blk.1.ffn_up.weight"]
    first[:], second[:] = second.copy(), first.copy()
    data["blk.1.attn_q.weight"][:] = 0
    reader.fields["llama.rope.freq_base"].parts[-1][0] = 10_000
    reader.data.flush()
    return copy


def test_a_bundle_beside_itself_has_nothing_to_report(bundle: Path, driftloop: Driftloop) -> None:
    done = driftloop("bundle", "compare", bundle, bundle)
    assert done.returncode == 0, done.stderr
    assert "out of line" in done.stdout.splitlines()[-1]
    assert "what is wrong" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[2:])) <= 80


def test_damage_is_named_where_it_lies_and_nothing_else_is(
    bundle: Path, damaged: Path, driftloop: Driftloop
) -> None:
    done = driftloop("bundle", "compare", bundle, damaged, "--json")
    assert done.returncode == 1, done.stderr
    found = {
        (file["half"], file["quant"], tensor["name"]): tensor["faults"]
        for file in json.loads(done.stdout)["files"]
        for tensor in file["tensors"]
        if tensor["faults"]
    }
    assert found == {
        ("text", "q8_0", "blk.0.ffn_up.weight"): ["in B: holds the values of blk.1.ffn_up.weight"],
        ("text", "q8_0", "blk.1.ffn_up.weight"): ["in B: holds the values of blk.0.ffn_up.weight"],
        ("text", "q8_0", "blk.1.attn_q.weight"): ["in B: all zeros"],
    }
    table = driftloop("bundle", "compare", bundle, damaged, "--quant", "q8_0").stdout
    assert "llama.rope.freq_base  100000.0  10000.0" in table
    assert table.splitlines()[-1] == "tensors out of line: 3; keys that differ: 1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "no such folder"), (("--quant", "q5_0"), "no q5_0, it holds")],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    bundle: Path, driftloop: Driftloop, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    other = bundle if arguments else tmp_path / "none"
    done = driftloop("bundle", "compare", bundle, other, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
