"""Two bundles side by side: what was planted in B is named, and nothing else is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from rich.console import Console

from driftloop.harness.bundle.compare import BundleComparison, compare
from driftloop.harness.bundle.tensor_check import mmproj_against_checkpoint
from driftloop.harness.errors import BundleError
from driftloop.reports.bundle_tables import comparison_view

from .bundle_factory import (
    HEADS,
    QUANT,
    TOKENS,
    WIDTH,
    Key,
    Miniature,
    Rows,
    Tensors,
    changed,
    planted,
)

ALL = slice(None)
Compared = Callable[[Miniature, Miniature], BundleComparison]


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    """Both bundles written and compared."""
    return lambda a, b: compare(a.write(tmp_path / "a").path, b.write(tmp_path / "b").path)


def faults(comparison: BundleComparison) -> dict[str, tuple[str, ...]]:
    return {t.name: t.faults for file in comparison.files for t in file.tensors if t.faults}


def differing(comparison: BundleComparison) -> list[tuple[str, object, object]]:
    return [(key.key, key.a, key.b) for file in comparison.files for key in file.keys]


def test_two_builds_of_one_checkpoint_differ_in_nothing_and_the_coarsest_tensor_comes_first(
    compared: Compared,
) -> None:
    types = {"blk.0.ffn_up.weight": "q4_0", "v.blk.0.attn_q.weight": "q8_0"}
    keys: dict[str, Key] = {"general.name": "another name"}
    comparison = compared(Miniature(types=types), Miniature(types=types, keys=keys))
    assert comparison.alike
    assert comparison.same_checkpoint
    assert faults(comparison) == {}
    assert differing(comparison) == []
    worst = comparison.files[0].tensors[0]
    assert worst.name == "blk.0.ffn_up.weight"
    assert worst.a is not None
    assert worst.a.relative_error == pytest.approx(worst.a.expected_error)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("blk.0.ffn_up.weight", "blk.1.ffn_up.weight"),
        ("blk.0.attn_q.weight", "blk.0.attn_k.weight"),
        ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"),
    ],
)
def test_swapped_tensors_are_named_for_each_other(compared: Compared, one: str, other: str) -> None:
    def swap(tensors: Tensors) -> None:
        tensors[one], tensors[other] = tensors[other], tensors[one]

    comparison = compared(Miniature(), Miniature(plant=planted(one, swap)))
    assert faults(comparison) == {
        one: (f"in B: holds the values of {other}",),
        other: (f"in B: holds the values of {one}",),
    }
    assert not comparison.alike
    assert {tensor.name for tensor in comparison.files[0].tensors[:2]} == {one, other}


def as_in_the_checkpoint(rows: Rows) -> None:
    """The converter's reordering undone."""
    rows[:] = rows.reshape(HEADS, -1, 2, WIDTH).swapaxes(1, 2).reshape(rows.shape)


def through_q4_0(rows: Rows) -> None:
    q4_0 = gguf.GGMLQuantizationType.Q4_0
    rows[:] = gguf.quants.dequantize(gguf.quants.quantize(rows, q4_0), q4_0)


def through_two_bits(rows: Rows) -> None:
    """Four levels in each block of sixteen, as q2_k has."""
    blocks = rows.reshape(-1, 16)
    low = blocks.min(axis=1, keepdims=True)
    step = (blocks.max(axis=1, keepdims=True) - low) / 3
    rows[:] = (np.rint((blocks - low) / step) * step + low).reshape(rows.shape)


def exchange(one: int, other: int) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[[one, other]] = rows[[other, one]]

    return change


TWICE = "has lost as much as {} loses: quantized twice"


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("blk.0.attn_v.weight", lambda t: t.fill(0), "all zeros"),
        ("token_embd.weight", lambda t: t[3].fill(0), "all zeros in 1 of 5 rows: 3"),
        ("blk.0.attn_k.weight", as_in_the_checkpoint,
         "rows in the checkpoint's order, not permuted"),
        ("blk.0.ffn_gate.weight", lambda t: t[3:4, 5].fill(np.inf), "values that are not finite"),
        ("blk.0.ffn_gate.weight", lambda t: t[3:4, 5].fill(9), "corrupt in 1 of 64 rows: 3"),
        ("v.blk.0.ffn_up.weight", through_q4_0, TWICE.format("q4_0")),
        ("blk.0.ffn_up.weight", through_two_bits, TWICE.format("q2_k")),
        ("v.blk.0.ffn_up.weight", lambda t: np.random.default_rng(1).shuffle(t.T),
         "equals no tensor of the checkpoint: corrupt, or of another model"),
        ("v.post_ln.weight", lambda t: t.__iadd__(np.float32(0.01)),
         "made from other weights than this checkpoint's"),
        ("v.post_ln.weight", lambda t: t.__imul__(np.float32(1.01)), "scaled by 1.01"),
        ("mm.model.fc.weight", lambda t: t[5].__imul__(np.float32(1.1)),
         "scaled by 1.1 in 1 of 32 rows: 5"),
        ("blk.0.attn_v.weight", exchange(3, 17), "rows 3 and 17 exchanged"),
        ("blk.0.attn_k.weight", lambda t: exchange(4, 9)(t.T), "columns 4 and 9 exchanged"),
        ("blk.0.attn_norm.weight", exchange(2, 30), "values 2 and 30 exchanged"),
        ("blk.0.attn_q.weight", lambda t: t.__setitem__(ALL, t.T.copy()), "transposed"),
        ("mm.model.fc.weight", lambda t: t.__setitem__(ALL, t.T.reshape(t.shape)), "transposed"),
        ("v.position_embd.weight", lambda t: t.__setitem__(ALL, t[::-1].copy()),
         "rows in another order"),
    ],
)  # fmt: skip
def test_what_was_planted_is_named_with_its_likely_cause(
    compared: Compared, name: str, change: Callable[[Rows], object], cause: str
) -> None:
    comparison = compared(Miniature(), Miniature(plant=changed(name, change)))
    assert faults(comparison) == {name: (f"in B: {cause}",)}
    assert not comparison.alike
    assert name in [file.tensors[0].name for file in comparison.files]


def test_a_tensor_of_another_type_or_that_only_one_has_is_named(compared: Compared) -> None:
    b = Miniature(
        types={"blk.0.ffn_down.weight": "q4_0"},
        plant=lambda tensors: tensors.pop("v.blk.0.attn_q.bias", None),
    )
    assert faults(compared(Miniature(), b)) == {
        "blk.0.ffn_down.weight": ("stored as f16 in A, as q4_0 in B",),
        "v.blk.0.attn_q.bias": ("only in A",),
    }


@pytest.mark.parametrize(
    ("key", "a", "b"),
    [
        ("llama.attention.layer_norm_rms_epsilon", 1e-5, 1e-6),
        ("llama.rope.freq_base", 1e5, 1e4),
        ("clip.vision.attention.layer_norm_epsilon", 1e-6, 1e-5),
        ("tokenizer.ggml.pre", "smollm", "default"),
        ("clip.vision.image_mean", [0.5, 0.5, 0.5], [0.0, 0.5, 0.5]),
    ],
)
def test_a_key_that_inference_reads_is_shown_with_both_values(
    compared: Compared, key: str, a: Key, b: Key
) -> None:
    comparison = compared(Miniature(keys={key: a}), Miniature(keys={key: b}))
    ((name, *values),) = differing(comparison)
    assert (name, values) == (
        key,
        [a, b] if isinstance(a, str) else [pytest.approx(a), pytest.approx(b)],
    )
    assert not comparison.alike


def test_a_missing_key_is_shown_as_none_and_a_long_one_from_where_it_differs(
    compared: Compared,
) -> None:
    template = "{% for message in messages %}" * 10
    more = tuple(f"token-{index}" for index in range(40))
    pattern = "clip.vision.n_wa_pattern"
    comparison = compared(
        Miniature(tokens=TOKENS + more, keys={"tokenizer.chat_template": template, pattern: 2.0}),
        Miniature(
            tokens=(*TOKENS, *more[:20], "another", *more[21:]),
            keys={"tokenizer.chat_template": template[:100] + template[101:]},
        ),
    )
    shown = {key: (a, b) for key, a, b in differing(comparison)}
    assert shown["tokenizer.ggml.tokens"] == (
        "45 entries, number 25: 'token-20'",
        "45 entries, number 25: 'another'",
    )
    assert str(shown["tokenizer.chat_template"][1]).startswith("289 characters, from 100: ")
    assert shown[pattern] == (2.0, None)


def test_square_brackets_of_a_template_are_shown_as_they_are(compared: Compared) -> None:
    template = "tokenizer.chat_template"
    comparison = compared(Miniature(keys={template: "[INST]"}), Miniature(keys={template: "[/X]"}))
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(comparison_view(comparison, rows=1))
    assert "tokenizer.chat_template  [INST]  [/X]" in console.export_text()


def test_other_weights_are_a_remark_and_no_fault(compared: Compared) -> None:
    comparison = compared(Miniature(), Miniature(text_seed=8))
    assert faults(comparison) == {}
    differences = {t.name: t.difference for t in comparison.files[0].tensors}
    assert differences["blk.0.ffn_up.weight"] == pytest.approx(1.41, abs=0.05)
    assert all(tensor.difference == 0 for tensor in comparison.files[1].tensors)


def test_damage_that_no_hash_knows_of_is_compared_all_the_same(tmp_path: Path) -> None:
    a, b = (Miniature().write(tmp_path / name) for name in "ab")
    path = b.text_model(QUANT)
    path.write_bytes(path.read_bytes()[:-64] + bytes(64))
    (name,) = faults(compare(a.path, b.path))
    assert name == "blk.1.ffn_up.weight"


def test_a_type_that_only_one_bundle_holds_is_refused(tmp_path: Path) -> None:
    a = Miniature().write(tmp_path / "a")
    with pytest.raises(BundleError, match="no q8_0, it holds f16"):
        compare(a.path, a.path, ["q8_0"])


@pytest.mark.parametrize("type_name", ["f16", "q8_0"])
def test_a_stock_mmproj_beside_trained_attention_is_named_tensor_by_tensor(
    tmp_path: Path, type_name: str
) -> None:
    """Low-rank training moves weights by less than q8_0 rounds them."""
    trained = "v.blk.0.attn_q.weight"
    random = np.random.default_rng(6)
    delta = random.standard_normal((WIDTH, 2)) @ random.standard_normal((2, WIDTH))
    delta = (delta * 0.004 / np.sqrt(np.mean(delta**2))).astype(np.float32)
    types = dict.fromkeys(("mm.model.fc.weight", trained, "v.blk.0.ffn_up.weight"), type_name)
    untrain = changed(trained, lambda rows: rows.__isub__(delta))
    own = Miniature(types=types).write(tmp_path / "own")
    stock = Miniature(types=types, plant=untrain).write(tmp_path / "stock")
    other = Miniature(vision_seed=5).write(tmp_path / "other")
    assert mmproj_against_checkpoint(own.mmproj(QUANT), own.checkpoint) == []
    (found,) = mmproj_against_checkpoint(stock.mmproj(QUANT), own.checkpoint)
    assert found.name == trained
    assert found.fault == "made from other weights than this checkpoint's"
    assert len(mmproj_against_checkpoint(other.mmproj(QUANT), own.checkpoint)) == 11
