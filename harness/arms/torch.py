"""`torch`: the checkpoint under the contract, f32 on this host, step by step as the runner."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
import transformers

from driftloop.devices.runner.protocol import PROTOCOL_VERSION, Attestation
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.arms import host
from driftloop.harness.arms.base import StageFailed
from driftloop.harness.arms.host_arm import Answer, HostArm, HostModel, since_ms
from driftloop.harness.arms.layers import TEXT_EMBEDDINGS, last_token_alone
from driftloop.harness.arms.passage import Passage
from driftloop.harness.checkpoint import Checkpoint
from driftloop.harness.contract import Contract
from driftloop.harness.training import prompt as prompts
from driftloop.harness.training.finetune import reproducible
from driftloop.harness.training.prompt import OBSERVED_IMAGE_ID
from driftloop.harness.training.tiles import cut

if TYPE_CHECKING:
    from PIL import Image

    from driftloop.harness.arms.base import Tensor

Output = torch.Tensor | tuple[torch.Tensor, ...]
Hook = Callable[[torch.nn.Module, object, Output], Output | None]

_MOST_THREADS: Final = 8
_SEED: Final = 0
"""torch samples nothing; the seed only shields the caller's random state."""


class TorchArm(HostArm["TorchModel"]):
    """The reference above llama.cpp: transformers, f32, greedy."""

    def __init__(
        self,
        checkpoint: Checkpoint | Path | str,
        contract: Contract,
        *,
        name: str = "torch",
        threads: int | None = None,
    ) -> None:
        """`threads`: by default the contract's runtime's, else this host's cores, at most eight.
        Raises CheckpointError where `checkpoint`, a folder or id, holds no SmolVLM checkpoint."""
        super().__init__(name, contract)
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = checkpoints.load(checkpoint)
        self._checkpoint = checkpoint
        chosen = threads or contract.runtime.threads
        self._threads = chosen or min(host.usable_cores(), _MOST_THREADS)

    def under(self, contract: Contract) -> TorchArm:
        """The same model, loaded once for both, under another contract. Raises as `attest`."""
        other = TorchArm(self._checkpoint, contract, name=self.name, threads=self._threads)
        other._loaded = self._model
        return other

    def attest(self) -> Attestation:
        """Versions, machine and settings; one hash stands for the whole checkpoint. Raises
        CheckpointError where the model or its processor cannot be loaded."""
        return Attestation(
            protocol=PROTOCOL_VERSION,
            llama_commit="",
            compiler="",
            target=host.target(),
            variant=f"torch {torch.__version__} f32, transformers {transformers.__version__}",
            cpu_features_found=host.features_found(),
            cpu_features_used=[torch.backends.cpu.get_cpu_capability()],
            backends=["CPU"],
            threads=self._threads,
            vision_threads=self._threads,
            placement=host.placement(),
            text_model_sha256=self._checkpoint.sha256,
            mmproj_sha256=self._checkpoint.sha256,
            load_ms=self._model.load_ms,
            pid=os.getpid(),
        )

    def _load(self, *, deep: bool = False) -> TorchModel:
        return TorchModel(self._checkpoint, self._threads)

    def _deep(self) -> AbstractContextManager[TorchModel]:
        """Its hooks come and go, so one model does for both."""
        return nullcontext(self._model)


class TorchModel(HostModel):
    """A checkpoint in f32, its processor, and the KV cache of one image."""

    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        """Raises CheckpointError where a part cannot be loaded."""
        begin = time.perf_counter_ns()
        self._threads = threads
        self._processor = checkpoints.load_processor(checkpoint)
        self._tokenizer = self._processor.tokenizer
        self._model = checkpoints.load_model(checkpoint)
        self._end_ids = checkpoints.end_of_generation(self._model, self._tokenizer)
        self._text_config = self._model.config.text_config
        self.vocabulary = self._text_config.vocab_size
        self.width = self._text_config.hidden_size
        self.load_ms = since_ms(begin)

    def close(self) -> None:
        """Nothing to free but memory, which losing the model does."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        with reproducible(_SEED, self._threads), torch.inference_mode():
            yield

    def tokenize(self, image: Image.Image, contract: Contract) -> tuple[list[int], tuple[int, int]]:
        tiles = cut(self._processor.image_processor, image, contract.tiling)
        self._tiles = tiles.pixel_values
        seq_len = self._processor.image_seq_len
        prompt = prompts.encode(self._tokenizer, contract.prompt, tiles.grid, seq_len)
        return prompt.observed, tiles.grid

    def refuse_overlong(self, ids: Sequence[int], max_tokens: int) -> None:
        room = self._text_config.max_position_embeddings
        if len(ids) + max_tokens > room:
            raise StageFailed(
                "context_full",
                f"the prompt has {len(ids)} tokens, the answer may have {max_tokens}, "
                f"the checkpoint holds {room}",
            )

    def encode(self, answer: Answer) -> Tensor:
        """Tile by tile, as libmtmd does."""
        pixel_values = torch.tensor(answer.saw("pixels", self._tiles.numpy()))
        parts: list[torch.Tensor] = []
        with _shown(_vision_layers(self._model), frozenset(), answer.passage):
            for tile in pixel_values:
                begin = time.perf_counter_ns()
                features = self._model.model.get_image_features(tile[None, None], return_dict=True)
                parts.extend(features.pooler_output)
                answer.clock.encode.append(since_ms(begin))
        return answer.saw("embed", torch.cat(parts).numpy())

    def prefill(self, ids: Sequence[int], embeddings: Tensor, passage: Passage) -> Tensor:
        observed = torch.tensor([ids])
        is_image = observed == OBSERVED_IMAGE_ID
        filled = observed.masked_fill(is_image, self._model.config.image_token_id)
        inputs = self._model.get_input_embeddings()(filled)
        instead = passage.layer(TEXT_EMBEDDINGS, inputs[~is_image].numpy())
        if instead is not None:
            inputs[~is_image] = torch.tensor(instead)
        inputs = inputs.masked_scatter(is_image[..., None], torch.tensor(embeddings))
        layers = _text_layers(self._model)
        count = self._text_config.num_hidden_layers
        alone = frozenset(name for name in layers if last_token_alone(name, count))
        with _shown(layers, alone, passage):
            output = self._model(inputs_embeds=inputs, use_cache=True, logits_to_keep=1)
        self._cache = output.past_key_values
        return _last_logits(output)

    def decode(self, token: int) -> Tensor:
        ids = torch.tensor([[token]])
        return _last_logits(self._model(input_ids=ids, past_key_values=self._cache, use_cache=True))

    def token_ids(self, text: str, *, parse_special: bool = False) -> list[int]:
        """Special tokens are always recognized."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def text(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def is_end(self, token: int) -> bool:
        return token in self._end_ids


def _last_logits(output: transformers.utils.ModelOutput) -> Tensor:
    logits: Tensor = output.logits[0, -1].numpy()
    return logits


def _vision_layers(model: transformers.PreTrainedModel) -> dict[str, torch.nn.Module]:
    """By the names of `harness.arms.layers`."""
    tower = model.model.vision_model
    modules = {"vision patches": tower.embeddings}
    for index, layer in enumerate(tower.encoder.layers):
        modules[f"vision layer {index} attention"] = layer.self_attn
        modules[f"vision layer {index} ffn"] = layer.mlp
    return modules | {"vision norm": tower.post_layernorm}


def _text_layers(model: transformers.PreTrainedModel) -> dict[str, torch.nn.Module]:
    modules = {}
    for index, layer in enumerate(model.model.text_model.layers):
        modules[f"text layer {index} attention"] = layer.self_attn
        modules[f"text layer {index} ffn"] = layer.mlp
    return modules | {"text norm": model.model.text_model.norm}


@contextmanager
def _shown(
    modules: dict[str, torch.nn.Module], last_alone: frozenset[str], passage: Passage
) -> Iterator[None]:
    """The modules' outputs in this block go by way of `passage`, of `last_alone` the last row."""

    def hook(layer: str) -> Hook:
        def show(_module: torch.nn.Module, _inputs: object, output: Output) -> Output | None:
            # Attention also returns its weights.
            values, others = (output[0], output[1:]) if isinstance(output, tuple) else (output, ())
            rows = slice(-1 if layer in last_alone else None, None)
            shown = values[..., rows, :]
            instead = passage.layer(layer, shown.reshape(-1, shown.shape[-1]).numpy())
            if instead is None:
                return None
            values = values.clone()
            values[..., rows, :] = torch.tensor(instead).reshape(shown.shape)
            return (values, *others) if isinstance(output, tuple) else values

        return show

    with ExitStack() as stack:
        for layer, module in modules.items():
            stack.callback(module.register_forward_hook(hook(layer)).remove)
        yield
