"""`torch`: the checkpoint under the contract, f32 on this host, step by step as the runner."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import transformers

from devices.runner.protocol import PROTOCOL_VERSION, Attestation
from harness import checkpoint as checkpoints
from harness.arms import host
from harness.arms.answer import TOP_K, Answer, Clock, StageFailed, decoded, since_ms
from harness.arms.base import Prepared
from harness.arms.logits import Step
from harness.checkpoint import Checkpoint
from harness.contract import Contract
from harness.observation import Observation
from harness.preprocess import pixels_sha256
from harness.training import prompt as prompts
from harness.training.finetune import reproducible
from harness.training.prompt import PromptIds
from harness.training.tiles import Tiles, cut

_MOST_THREADS: Final = 8
_SEED: Final = 0
"""Nothing is sampled; the seed only keeps the caller's random state out of it."""


@dataclass(frozen=True)
class _Loaded:
    model: transformers.PreTrainedModel
    processor: transformers.Idefics3Processor
    end_ids: frozenset[int]
    load_ms: float


class TorchArm:
    """The reference above llama.cpp: transformers, f32, greedy. Loaded once, when first needed."""

    def __init__(
        self,
        checkpoint: Checkpoint | Path | str,
        contract: Contract,
        *,
        name: str = "torch",
        threads: int | None = None,
    ) -> None:
        """`threads`: as the contract's runtime, else this host's cores, at most eight.

        Raises:
            CheckpointError: `checkpoint` is a folder or id that holds no SmolVLM checkpoint.
        """
        self.name = name
        self.phone: str | None = None
        self._contract = contract
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = checkpoints.load(checkpoint)
        self._checkpoint = checkpoint
        chosen = threads or contract.runtime.threads
        self._threads = chosen or min(host.usable_cores(), _MOST_THREADS)
        self._loaded: _Loaded | None = None

    def under(self, contract: Contract) -> TorchArm:
        """The same model, loaded once for both, under another contract. Raises as `attest`."""
        other = TorchArm(self._checkpoint, contract, name=self.name, threads=self._threads)
        other._loaded = self._ready()
        return other

    def close(self) -> None:
        """Free the model; a later `attest` or `observe` loads it again."""
        self._loaded = None

    def attest(self) -> Attestation:
        """Versions, machine and settings; one hash stands for the whole checkpoint.

        Raises:
            CheckpointError: the model or its processor cannot be loaded.
        """
        loaded = self._ready()
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
            load_ms=loaded.load_ms,
            pid=os.getpid(),
        )

    def observe(self, images: Iterable[Prepared]) -> Iterator[Observation]:
        """Run `images` in order, each with a KV cache of its own."""
        loaded = self._ready()
        for image in images:
            answer = Answer()
            with answer.attempt(), reproducible(_SEED, self._threads), torch.inference_mode():
                self._answer(loaded, image.pixels_path, answer)
            yield answer.observation(
                image, arm=self.name, contract=self._contract, load_ms=loaded.load_ms
            )

    def _ready(self) -> _Loaded:
        if self._loaded is None:
            begin = time.perf_counter_ns()
            processor = checkpoints.load_processor(self._checkpoint)
            model = checkpoints.load_model(self._checkpoint)
            end_ids = checkpoints.end_of_generation(model, processor.tokenizer)
            self._loaded = _Loaded(model, processor, end_ids, since_ms(begin))
        return self._loaded

    def _answer(self, loaded: _Loaded, pixels_path: Path, answer: Answer) -> None:
        clock = answer.clock
        begin = time.perf_counter_ns()
        image = decoded(pixels_path)
        clock.image_decode = since_ms(begin)
        answer.pixels_sha256 = pixels_sha256(image)
        begin = time.perf_counter_ns()
        tiles = cut(loaded.processor.image_processor, image, self._contract.tiling)
        answer.grid = tiles.grid
        prompt = prompts.encode(
            loaded.processor.tokenizer,
            self._contract.prompt,
            tiles.grid,
            loaded.processor.image_seq_len,
        )
        clock.tokenize = since_ms(begin)
        answer.image_tokens, answer.prompt_ids = prompt.image_tokens, prompt.observed
        _refuse_overlong(loaded, prompt, self._contract.limits.max_tokens)
        embeddings = _encoded(loaded, tiles, clock)
        self._generate(loaded, prompt, embeddings, answer)

    def _generate(
        self, loaded: _Loaded, prompt: PromptIds, embeddings: torch.Tensor, answer: Answer
    ) -> None:
        tokenizer = loaded.processor.tokenizer
        begin = time.perf_counter_ns()
        step, cache = _prefilled(loaded, prompt, embeddings)
        answer.clock.prefill = since_ms(begin)
        answer.label_logprobs = {
            label: step.logprob(tokenizer.encode(label, add_special_tokens=False)[0])
            for label in self._contract.answer.labels
        }
        while True:
            chosen = step.greedy
            answer.tokens.append(step.token(_text(tokenizer, [chosen]), TOP_K))
            if chosen in loaded.end_ids:
                answer.stop_reason = "eog"
                break
            if len(answer.tokens) == self._contract.limits.max_tokens:
                answer.stop_reason = "max_tokens"
                break
            begin = time.perf_counter_ns()
            output = loaded.model(
                input_ids=torch.tensor([[chosen]]), past_key_values=cache, use_cache=True
            )
            answer.clock.decode.append(since_ms(begin))
            step = Step(output.logits[0, -1].numpy())
        said = [token.id for token in answer.tokens]
        answer.text = _text(tokenizer, said[:-1] if answer.stop_reason == "eog" else said)


def _refuse_overlong(loaded: _Loaded, prompt: PromptIds, max_tokens: int) -> None:
    room = loaded.model.config.text_config.max_position_embeddings
    if len(prompt.ids) + max_tokens > room:
        raise StageFailed(
            "context_full",
            f"the prompt has {len(prompt.ids)} tokens, the answer may have {max_tokens}, "
            f"the checkpoint holds {room}",
        )


def _encoded(loaded: _Loaded, tiles: Tiles, clock: Clock) -> torch.Tensor:
    """Image embeddings in the prompt's order, shape (image tokens, width); tile by tile, as
    libmtmd encodes them."""
    parts = []
    for tile in tiles.pixel_values:
        begin = time.perf_counter_ns()
        features = loaded.model.model.get_image_features(tile[None, None], return_dict=True)
        parts.extend(features.pooler_output)
        clock.encode.append(since_ms(begin))
    return torch.cat(parts)


def _prefilled(
    loaded: _Loaded, prompt: PromptIds, embeddings: torch.Tensor
) -> tuple[Step, transformers.DynamicCache]:
    """The first step's logits and the KV cache behind them."""
    ids = torch.tensor([prompt.ids])
    inputs = loaded.model.get_input_embeddings()(ids)
    inputs = inputs.masked_scatter((ids == prompt.image_id)[..., None], embeddings)
    output = loaded.model(inputs_embeds=inputs, use_cache=True, logits_to_keep=1)
    return Step(output.logits[0, -1].numpy()), output.past_key_values


def _text(tokenizer: transformers.PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
