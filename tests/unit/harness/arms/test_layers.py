"""The names of llama.cpp's nodes."""

from __future__ import annotations

import pytest

from driftloop.harness.arms.layers import last_token_alone, of_text_node, of_vision_node


@pytest.mark.parametrize(
    ("node", "vision", "text"),
    [
        ("pos_embed", "vision patches", None),
        ("norm_b", "vision norm", None),
        ("result_norm", None, "text norm"),
        ("attn_out-3", "vision layer 3 attention", "text layer 3 attention"),
        ("attn_out-0", "vision layer 0 attention", "text layer 0 attention"),
        ("ffn_out-11", "vision layer 11 ffn", "text layer 11 ffn"),
        *((other, None, None) for other in ("attn_out", "attn_out-1 (view)", "kq-1", "")),
        ("ffn_out_scaled-1", None, None),
    ],
)
def test_a_node_is_named_after_its_layer(node: str, vision: str | None, text: str | None) -> None:
    assert (of_vision_node(node), of_text_node(node)) == (vision, text)


def test_only_the_last_layer_and_the_norm_have_the_last_token_alone() -> None:
    names = ["text layer 1 ffn", "text layer 11 attention", "text layer 11 ffn", "text norm"]
    assert [last_token_alone(name, 12) for name in names] == [False, True, True, True]
