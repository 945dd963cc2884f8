"""What llama.cpp's nodes are called here."""

from __future__ import annotations

import pytest

from harness.arms import layers


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("pos_embed", "vision patches"),
        ("attn_out-3", "vision layer 3 attention"),
        ("ffn_out-11", "vision layer 11 ffn"),
        ("norm_b", "vision norm"),
    ],
)
def test_nodes_of_the_vision_graph(node: str, layer: str) -> None:
    assert layers.of_vision_node(node) == layer


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("attn_out-0", "text layer 0 attention"),
        ("ffn_out-29", "text layer 29 ffn"),
        ("result_norm", "text norm"),
    ],
)
def test_nodes_of_the_text_graph(node: str, layer: str) -> None:
    assert layers.of_text_node(node) == layer


@pytest.mark.parametrize("node", ["attn_out", "attn_out-1 (view)", "kq-1", "ffn_out_scaled-1", ""])
def test_other_nodes_are_no_layers(node: str) -> None:
    assert layers.of_vision_node(node) is None
    assert layers.of_text_node(node) is None


def test_only_the_last_layer_and_the_norm_tell_the_last_token_alone() -> None:
    names = ["text layer 1 ffn", "text layer 11 attention", "text layer 11 ffn", "text norm"]
    assert [layers.last_token_alone(name, 12) for name in names] == [False, True, True, True]
