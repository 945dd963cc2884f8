"""The layers of a checkpoint under `harness.arms.layers`' names, kept by forward hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from harness.arms.layers import last_token_alone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.arms.base import Tensor

Output = torch.Tensor | tuple[torch.Tensor, ...]
Hook = Callable[[torch.nn.Module, object, Output], None]


@dataclass
class Kept:
    """What the modules of one tower gave, in the order of computation."""

    _parts: dict[str, list[torch.Tensor]] = field(default_factory=lambda: defaultdict(list))

    def keep(self, layer: str, output: torch.Tensor) -> None:
        """Of `output`, (..., rows, width), every row."""
        self._parts[layer].append(output.detach().reshape(-1, output.shape[-1]).clone())

    def tensors(self) -> dict[str, Tensor]:
        """By layer, call after call along the first axis: (rows, width)."""
        return {layer: torch.cat(parts).numpy() for layer, parts in self._parts.items()}


@contextmanager
def vision_layers(model: PreTrainedModel) -> Iterator[Kept]:
    """What the vision tower's modules give in this block."""
    tower = model.model.vision_model
    modules = {"vision patches": tower.embeddings}
    for index, layer in enumerate(tower.encoder.layers):
        modules[f"vision layer {index} attention"] = layer.self_attn
        modules[f"vision layer {index} ffn"] = layer.mlp
    modules["vision norm"] = tower.post_layernorm
    with _kept(modules, set()) as kept:
        yield kept


@contextmanager
def text_layers(model: PreTrainedModel) -> Iterator[Kept]:
    """What the text model's modules give in this block."""
    tower = model.model.text_model
    modules = {}
    for index, layer in enumerate(tower.layers):
        modules[f"text layer {index} attention"] = layer.self_attn
        modules[f"text layer {index} ffn"] = layer.mlp
    modules["text norm"] = tower.norm
    cut = {name for name in modules if last_token_alone(name, len(tower.layers))}
    with _kept(modules, cut) as kept:
        yield kept


@contextmanager
def _kept(modules: dict[str, torch.nn.Module], last_row: set[str]) -> Iterator[Kept]:
    """`last_row`: the layers of which the last row alone is kept."""
    kept = Kept()

    def hook(layer: str) -> Hook:
        def keep(_module: torch.nn.Module, _inputs: object, output: Output) -> None:
            # Attention gives its weights as well.
            values = output[0] if isinstance(output, tuple) else output
            kept.keep(layer, values[..., -1:, :] if layer in last_row else values)

        return keep

    with ExitStack() as stack:
        for layer, module in modules.items():
            stack.callback(module.register_forward_hook(hook(layer)).remove)
        yield kept
