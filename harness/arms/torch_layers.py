"""The layers of a checkpoint under `harness.arms.layers`' names, shown by forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from harness.arms.layers import last_token_alone
from harness.arms.passage import Passage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Output = torch.Tensor | tuple[torch.Tensor, ...]
Hook = Callable[[torch.nn.Module, object, Output], Output | None]


@contextmanager
def shown_vision_layers(model: PreTrainedModel, passage: Passage) -> Iterator[None]:
    """What the vision tower's modules give in this block goes by way of `passage`."""
    tower = model.model.vision_model
    modules = {"vision patches": tower.embeddings}
    for index, layer in enumerate(tower.encoder.layers):
        modules[f"vision layer {index} attention"] = layer.self_attn
        modules[f"vision layer {index} ffn"] = layer.mlp
    modules["vision norm"] = tower.post_layernorm
    with _shown(modules, set(), passage):
        yield


@contextmanager
def shown_text_layers(model: PreTrainedModel, passage: Passage) -> Iterator[None]:
    """What the text model's modules give in this block goes by way of `passage`."""
    tower = model.model.text_model
    modules = {}
    for index, layer in enumerate(tower.layers):
        modules[f"text layer {index} attention"] = layer.self_attn
        modules[f"text layer {index} ffn"] = layer.mlp
    modules["text norm"] = tower.norm
    alone = {name for name in modules if last_token_alone(name, len(tower.layers))}
    with _shown(modules, alone, passage):
        yield


@contextmanager
def _shown(
    modules: dict[str, torch.nn.Module], last_alone: set[str], passage: Passage
) -> Iterator[None]:
    """`last_alone`: the layers of which the last row alone is shown."""

    def hook(layer: str) -> Hook:
        def show(_module: torch.nn.Module, _inputs: object, output: Output) -> Output | None:
            # Attention gives its weights as well.
            values, others = (output[0], output[1:]) if isinstance(output, tuple) else (output, ())
            shown = values[..., -1:, :] if layer in last_alone else values
            instead = passage.layer(layer, shown.reshape(-1, shown.shape[-1]).numpy())
            if instead is None:
                return None
            values = values.clone()
            shown = values[..., -1:, :] if layer in last_alone else values
            shown.copy_(torch.tensor(instead).reshape(shown.shape))
            return (values, *others) if isinstance(output, tuple) else values

        return show

    with ExitStack() as stack:
        for layer, module in modules.items():
            stack.callback(module.register_forward_hook(hook(layer)).remove)
        yield
