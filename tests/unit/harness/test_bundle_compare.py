"""Two bundles side by side: what was planted in B is named, and nothing else is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from rich.console import Console

from harness.bundle.compare import BundleComparison, compare
from harness.bundle.tensor_check import mmproj_against_checkpoint
from harness.errors import BundleError
from reports.terminal.bundle_changes import comparison_view

from .bundle_factory import HEADS, QUANT, TOKENS, WIDTH, Miniature, Tensors

ALL = slice(None)
Compared = Callable[[Miniature, Miniature], BundleComparison]


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    """Both bundles written and compared."""

    def both(a: Miniature, b: Miniature) -> BundleComparison:
        return compare(a.write(tmp_path / "a").path, b.write(tmp_path / "b").path)

    return both


def faults(comparison: BundleComparison) -> dict[str, tuple[str, ...]]:
    return {t.name: t.faults for file in comparison.files for t in file.tensors if t.faults}


def keys(comparison: BundleComparison) -> list[tuple[str, object, object]]:
    return [(key.key, key.a, key.b) for file in comparison.files for key in file.keys]


def zeroed(tensors: Tensors) -> None:
    if "blk.0.attn_v.weight" in tensors:
        tensors["blk.0.attn_v.weight"][:] = 0


def swapped(one: str, other: str) -> Callable[[Tensors], None]:
    def plant(tensors: Tensors) -> None:
        if one in tensors:
            tensors[one], tensors[other] = tensors[other], tensors[one]

    return plant


def changed(name: str, change: Callable[[np.ndarray], object]) -> Callable[[Tensors], None]:
    def plant(tensors: Tensors) -> None:
        if name in tensors:
            change(tensors[name])

    return plant


def as_in_the_checkpoint(rows: np.ndarray) -> None:
    """The converter's reordering undone."""
    rows[:] = rows.reshape(HEADS, -1, 2, WIDTH).swapaxes(1, 2).reshape(rows.shape)


def through_q4_0(rows: np.ndarray) -> None:
    q4_0 = gguf.GGMLQuantizationType.Q4_0
    rows[:] = gguf.quants.dequantize(gguf.quants.quantize(rows, q4_0), q4_0)


def exchange(rows: np.ndarray, one: int, other: int) -> None:
    rows[[one, other]] = rows[[other, one]]


def row_scaled(rows: np.ndarray, index: int) -> None:
    rows[index] *= np.float32(1.1)


def reread_as_columns(rows: np.ndarray) -> None:
    rows[:] = rows.T.reshape(rows.shape)


def through_two_bits(rows: np.ndarray) -> None:
    """Four levels in each block of sixteen, as q2_k has."""
    blocks = rows.reshape(-1, 16)
    low = blocks.min(axis=1, keepdims=True)
    step = (blocks.max(axis=1, keepdims=True) - low) / 3
    rows[:] = (np.rint((blocks - low) / step) * step + low).reshape(rows.shape)


def test_two_builds_of_one_checkpoint_differ_in_nothing(compared: Compared) -> None:
    comparison = compared(Miniature(), Miniature(keys={"general.name": "another name"}))
    assert comparison.alike
    assert comparison.same_checkpoint
    assert faults(comparison) == {}
    assert keys(comparison) == []


@pytest.mark.parametrize("type_name", ["bf16", "q8_0", "q5_1", "q4_0"])
def test_each_type_may_cost_what_it_costs(compared: Compared, type_name: str) -> None:
    types = {"blk.0.ffn_up.weight": type_name, "v.blk.0.attn_q.weight": type_name}
    comparison = compared(Miniature(types=types), Miniature(types=types))
    assert comparison.alike
    worst = comparison.files[0].tensors[0]
    assert worst.name == "blk.0.ffn_up.weight"
    assert worst.a is not None
    assert worst.a.relative_error == pytest.approx(worst.a.expected_error)


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (zeroed, {"blk.0.attn_v.weight": "all zeros"}),
        (
            swapped("blk.0.ffn_up.weight", "blk.1.ffn_up.weight"),
            {
                "blk.0.ffn_up.weight": "holds the values of blk.1.ffn_up.weight",
                "blk.1.ffn_up.weight": "holds the values of blk.0.ffn_up.weight",
            },
        ),
        (
            swapped("blk.0.attn_q.weight", "blk.0.attn_k.weight"),
            {
                "blk.0.attn_q.weight": "holds the values of blk.0.attn_k.weight",
                "blk.0.attn_k.weight": "holds the values of blk.0.attn_q.weight",
            },
        ),
        (
            swapped("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"),
            {
                "blk.0.attn_norm.weight": "holds the values of blk.0.ffn_norm.weight",
                "blk.0.ffn_norm.weight": "holds the values of blk.0.attn_norm.weight",
            },
        ),
        (
            changed("blk.0.attn_k.weight", as_in_the_checkpoint),
            {"blk.0.attn_k.weight": "rows in the checkpoint's order, not permuted"},
        ),
        (
            changed("blk.0.ffn_gate.weight", lambda rows: rows.__setitem__((3, 5), np.inf)),
            {"blk.0.ffn_gate.weight": "values that are not finite"},
        ),
        (
            changed("blk.0.ffn_gate.weight", lambda rows: rows.__setitem__((3, 5), 9.0)),
            {"blk.0.ffn_gate.weight": "corrupt in 1 of 64 rows: 3"},
        ),
        (
            changed("v.blk.0.ffn_up.weight", through_q4_0),
            {"v.blk.0.ffn_up.weight": "has lost as much as q4_0 loses: quantized twice"},
        ),
        (
            changed("v.blk.0.ffn_up.weight", lambda rows: np.random.default_rng(1).shuffle(rows.T)),
            {
                "v.blk.0.ffn_up.weight": "equals no tensor of the checkpoint: "
                "corrupt, or of another model"
            },
        ),
        (
            changed("v.post_ln.weight", lambda row: row.__iadd__(np.float32(0.01))),
            {"v.post_ln.weight": "made from other weights than this checkpoint's"},
        ),
        (
            changed("v.post_ln.weight", lambda row: row.__imul__(np.float32(1.01))),
            {"v.post_ln.weight": "scaled by 1.01"},
        ),
        (
            changed("mm.model.fc.weight", lambda rows: row_scaled(rows, 5)),
            {"mm.model.fc.weight": "scaled by 1.1 in 1 of 32 rows: 5"},
        ),
        (
            changed("blk.0.attn_v.weight", lambda rows: exchange(rows, 3, 17)),
            {"blk.0.attn_v.weight": "rows 3 and 17 exchanged"},
        ),
        (
            changed("blk.0.attn_k.weight", lambda rows: exchange(rows.T, 4, 9)),
            {"blk.0.attn_k.weight": "columns 4 and 9 exchanged"},
        ),
        (
            changed("blk.0.attn_norm.weight", lambda row: exchange(row, 2, 30)),
            {"blk.0.attn_norm.weight": "values 2 and 30 exchanged"},
        ),
        (
            changed("blk.0.attn_q.weight", lambda rows: rows.__setitem__(ALL, rows.T.copy())),
            {"blk.0.attn_q.weight": "transposed"},
        ),
        (
            changed("mm.model.fc.weight", reread_as_columns),
            {"mm.model.fc.weight": "transposed"},
        ),
        (
            changed(
                "v.position_embd.weight", lambda rows: rows.__setitem__(ALL, rows[::-1].copy())
            ),
            {"v.position_embd.weight": "rows in another order"},
        ),
        (
            changed("blk.0.ffn_up.weight", through_two_bits),
            {"blk.0.ffn_up.weight": "has lost as much as q2_k loses: quantized twice"},
        ),
        (
            changed("token_embd.weight", lambda rows: rows.__setitem__(3, 0)),
            {"token_embd.weight": "all zeros in 1 of 5 rows: 3"},
        ),
    ],
)
def test_what_was_planted_is_named_with_its_likely_cause(
    compared: Compared, plant: Callable[[Tensors], None], named: dict[str, str]
) -> None:
    comparison = compared(Miniature(), Miniature(plant=plant))
    assert faults(comparison) == {name: (f"in B: {cause}",) for name, cause in named.items()}
    assert not comparison.alike
    first = [tensor.name for file in comparison.files for tensor in file.tensors[: len(named)]]
    assert set(named) <= set(first)


def test_a_tensor_of_another_type_is_named_though_its_error_is_that_types(
    compared: Compared,
) -> None:
    comparison = compared(Miniature(), Miniature(types={"blk.0.ffn_down.weight": "q4_0"}))
    assert faults(comparison) == {"blk.0.ffn_down.weight": ("stored as f16 in A, as q4_0 in B",)}


def test_a_tensor_that_only_one_has_is_named(compared: Compared) -> None:
    comparison = compared(
        Miniature(), Miniature(plant=lambda tensors: tensors.pop("v.blk.0.attn_q.bias", None))
    )
    assert faults(comparison) == {"v.blk.0.attn_q.bias": ("only in A",)}


@pytest.mark.parametrize(
    ("key", "a", "b"),
    [
        ("llama.attention.layer_norm_rms_epsilon", 1e-5, 1e-6),
        ("llama.rope.freq_base", 1e5, 1e4),
        ("clip.vision.attention.layer_norm_epsilon", 1e-6, 1e-5),
        ("tokenizer.ggml.pre", "smollm", "default"),
    ],
)
def test_a_key_that_inference_can_feel_is_told_with_both_values(
    compared: Compared, key: str, a: float | str, b: float | str
) -> None:
    comparison = compared(Miniature(keys={key: a}), Miniature(keys={key: b}))
    expected = (key, a, b) if isinstance(a, str) else (key, pytest.approx(a), pytest.approx(b))
    assert keys(comparison) == [expected]
    assert not comparison.alike


def test_image_statistics_are_told_whole_and_a_missing_key_as_none(compared: Compared) -> None:
    mean = "clip.vision.image_mean"
    comparison = compared(
        Miniature(keys={"clip.vision.n_wa_pattern": 2.0}), Miniature(keys={mean: [0.0, 0.5, 0.5]})
    )
    assert keys(comparison) == [
        (mean, [0.5, 0.5, 0.5], [0.0, 0.5, 0.5]),
        ("clip.vision.n_wa_pattern", 2.0, None),
    ]


def test_a_long_tokenizer_or_template_is_told_from_where_it_differs(compared: Compared) -> None:
    template = "{% for message in messages %}" * 10
    more = tuple(f"token-{index}" for index in range(40))
    comparison = compared(
        Miniature(tokens=TOKENS + more, keys={"tokenizer.chat_template": template}),
        Miniature(
            tokens=(*TOKENS, *more[:20], "another", *more[21:]),
            keys={"tokenizer.chat_template": template[:100] + template[101:]},
        ),
    )
    told = {key: (a, b) for key, a, b in keys(comparison)}
    assert told["tokenizer.ggml.tokens"] == (
        "45 entries, number 25: 'token-20'",
        "45 entries, number 25: 'another'",
    )
    assert str(told["tokenizer.chat_template"][1]).startswith("289 characters, from 100: ")


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
    a = Miniature().write(tmp_path / "a")
    b = Miniature().write(tmp_path / "b")
    path = b.text_model(QUANT)
    content = bytearray(path.read_bytes())
    content[-64:] = bytes(64)
    path.write_bytes(content)
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
    trained = ("v.blk.0.attn_q.weight",)
    random = np.random.default_rng(6)
    delta = random.standard_normal((WIDTH, 2)) @ random.standard_normal((2, WIDTH))
    delta *= 0.004 / np.sqrt(np.mean(delta**2))
    types = dict.fromkeys(("mm.model.fc.weight", *trained, "v.blk.0.ffn_up.weight"), type_name)

    def untrain(rows: np.ndarray) -> None:
        rows -= delta.astype(np.float32)

    own = Miniature(types=types).write(tmp_path / "own")
    stock = Miniature(types=types, plant=changed(trained[0], untrain)).write(tmp_path / "stock")
    assert mmproj_against_checkpoint(own.mmproj(QUANT), own.checkpoint) == []
    found = mmproj_against_checkpoint(stock.mmproj(QUANT), own.checkpoint)
    assert tuple(tensor.name for tensor in found) == trained
    assert found[0].fault == "made from other weights than this checkpoint's"


def test_a_whole_mmproj_of_another_model_is_named_throughout(tmp_path: Path) -> None:
    own = Miniature().write(tmp_path / "own")
    other = Miniature(vision_seed=5).write(tmp_path / "other")
    found = mmproj_against_checkpoint(other.mmproj(QUANT), own.checkpoint)
    assert len(found) == 11
