"""What a weight takes in a file, and where another type had to be taken, is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.bundle.gguf_file import GgufFile
from harness.bundle.quant_mix import EffectiveBits, Fallback, effective_bits, fallback_line

from .bundle_factory import QUANT, Miniature


def test_the_bits_of_a_file_count_its_scales_and_its_norms(tmp_path: Path) -> None:
    plain = Miniature().write(tmp_path / "plain")
    bits = plain.manifest.text[QUANT].bits
    assert bits is not None
    assert 16 < bits.per_weight < 16.5
    assert bits.meant == bits.per_weight
    assert bits.matrices == 9
    assert fallback_line("text f16", bits) is None


def test_a_type_without_room_for_its_blocks_costs_what_its_stand_in_costs(tmp_path: Path) -> None:
    """Rows of 32 values; q4_k has blocks of 256."""
    types = {f"blk.{layer}.ffn_up.weight": "q5_0" for layer in range(2)}
    written = Miniature(types=types).write(tmp_path / "mini")
    bits = effective_bits(GgufFile(written.text_model(QUANT)), "q4_k_m")
    fallen = Fallback(meant="q4_k", became="q5_0", width=32, block=256, tensors=2)
    assert fallen in bits.fallbacks
    assert bits.per_weight > bits.meant


@pytest.mark.parametrize(
    ("became", "words"),
    [
        ((150,), "150 of 210 matrices became q5_0,"),
        ((150, 30), "150 of 210 matrices became q5_0 and 30 q8_0,"),
        ((100, 30, 2), "100 of 210 matrices became q5_0, 30 q8_0 and 2 q5_1,"),
    ],
)
def test_fall_backs_are_told_in_one_line(became: tuple[int, ...], words: str) -> None:
    stand_ins = (("q4_k", "q5_0"), ("q6_k", "q8_0"), ("q5_k", "q5_1"))
    fallbacks = tuple(
        Fallback(meant=meant, became=name, width=576, block=256, tensors=count)
        for (meant, name), count in zip(stand_ins, became, strict=False)
    )
    bits = EffectiveBits(per_weight=6.2, meant=4.9, matrices=210, fallbacks=fallbacks)
    assert fallback_line("q4_k_m", bits) == (
        f"q4_k_m: {words} as rows of 576 are no multiple of 256: 6.2 bits a weight instead of 4.9"
    )
