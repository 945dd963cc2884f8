"""`torch`: the checkpoint under the contract, f32 on this host, step by step as the runner."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
import transformers

from devices.runner.protocol import PROTOCOL_VERSION, Attestation, Decoding
from harness import checkpoint as checkpoints
from harness.arms import decoding, host, torch_layers
from harness.arms.answer import (
    TOP_K,
    Answer,
    decoded,
    refuse_unfit,
    since_ms,
    step,
)
from harness.arms.base import Look, Prepared, StageFailed
from harness.arms.decoding import Chooser
from harness.arms.driven import Driving
from harness.arms.layers import TEXT_EMBEDDINGS
from harness.arms.logits import Step
from harness.arms.passage import Recording
from harness.checkpoint import Checkpoint
from harness.contract import Contract
from harness.preprocess import pixels_sha256
from harness.records.observation import Observation
from harness.training import prompt as prompts
from harness.training.finetune import reproducible
from harness.training.prompt import OBSERVED_IMAGE_ID
from harness.training.tiles import cut

if TYPE_CHECKING:
    from harness.arms.trajectory import Trajectory

_MOST_THREADS: Final = 8
_SEED: Final = 0
"""torch samples nothing; the seed only keeps the caller's random state out of it."""


@dataclass(frozen=True)
class _Loaded:
    model: transformers.PreTrainedModel
    processor: transformers.Idefics3Processor
    end_ids: frozenset[int]
    load_ms: float

    @property
    def width(self) -> int:
        """Of an embedding."""
        width: int = self.model.config.text_config.hidden_size
        return width

    def ends(self, chosen: Decoding) -> frozenset[int]:
        """Ids that end an answer."""
        ids = decoding.stop_ids(
            chosen, lambda text: self.processor.tokenizer.encode(text, add_special_tokens=False)
        )
        return self.end_ids if ids is None else ids


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
        """Run `images` in order, each with a KV cache of its own.

        Raises:
            CheckpointError: the model or its processor cannot be loaded.
            ContractError: `decoding.stop` names what is no token of the model.
        """
        for image in images:
            yield self._answered(image, Answer())

    def record(self, images: Iterable[Prepared]) -> Iterator[Look]:
        """Run `images` in deep mode, on the same model. Raises as `observe` does."""
        for image in images:
            recording = Recording()
            yield Look(self._answered(image, Answer(recording)), recording.tensors)

    def drive(self, images: Iterable[tuple[Prepared, Trajectory]]) -> Iterator[Observation]:
        """Run each image along a reference's trajectory. Raises as `observe` does."""
        for image, trajectory in images:
            yield self._answered(image, Answer(), trajectory)

    def _ready(self) -> _Loaded:
        if self._loaded is None:
            begin = time.perf_counter_ns()
            processor = checkpoints.load_processor(self._checkpoint)
            model = checkpoints.load_model(self._checkpoint)
            end_ids = checkpoints.end_of_generation(model, processor.tokenizer)
            self._loaded = _Loaded(model, processor, end_ids, since_ms(begin))
        return self._loaded

    def _answered(
        self, image: Prepared, answer: Answer, trajectory: Trajectory | None = None
    ) -> Observation:
        loaded = self._ready()
        ends = loaded.ends(self._contract.decoding)
        with answer.attempt(), reproducible(_SEED, self._threads), torch.inference_mode():
            if trajectory is not None:
                answer.passage = Driving(trajectory)
            ids, embeddings = self._encoded(loaded, image.pixels_path, answer)
            now, cache = _prefilled(loaded, ids, embeddings, answer)
            self._generate(loaded, now, cache, ends, answer)
        return answer.observation(
            image, arm=self.name, contract=self._contract, load_ms=loaded.load_ms
        )

    def _encoded(
        self, loaded: _Loaded, pixels_path: Path, answer: Answer
    ) -> tuple[list[int], torch.Tensor]:
        """The ids to evaluate and the image's embeddings, (image tokens, width)."""
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
        answer.prompt_ids = prompt.observed
        answer.image_tokens = answer.prompt_ids.count(OBSERVED_IMAGE_ID)
        ids = answer.passage.prompt_ids(
            answer.prompt_ids, loaded.model.config.text_config.vocab_size
        )
        _refuse_overlong(loaded, ids, self._contract.limits.max_tokens)
        pixel_values = answer.saw("pixels", tiles.pixel_values.numpy())
        embeddings = _through_vision(loaded, torch.tensor(pixel_values), answer)
        refuse_unfit(embeddings.numpy(), ids.count(OBSERVED_IMAGE_ID), loaded.width)
        return ids, embeddings

    def _generate(
        self,
        loaded: _Loaded,
        now: Step,
        cache: transformers.DynamicCache,
        ends: frozenset[int],
        answer: Answer,
    ) -> None:
        tokenizer = loaded.processor.tokenizer
        answer.label_logprobs = {
            label: now.logprob(tokenizer.encode(label, add_special_tokens=False)[0])
            for label in self._contract.answer.labels
        }
        chooser = Chooser(self._contract.decoding)
        while True:
            chosen = chooser.choose(now)
            answer.tokens.append(now.token(chosen, _text(tokenizer, [chosen]), TOP_K))
            if chosen in ends:
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
            now = step(output.logits[0, -1].numpy())
        said = [token.id for token in answer.tokens]
        answer.text = _text(tokenizer, said[:-1] if answer.stop_reason == "eog" else said)


def _refuse_overlong(loaded: _Loaded, ids: Sequence[int], max_tokens: int) -> None:
    room = loaded.model.config.text_config.max_position_embeddings
    if len(ids) + max_tokens > room:
        raise StageFailed(
            "context_full",
            f"the prompt has {len(ids)} tokens, the answer may have {max_tokens}, "
            f"the checkpoint holds {room}",
        )


def _through_vision(loaded: _Loaded, pixel_values: torch.Tensor, answer: Answer) -> torch.Tensor:
    """Embeddings of (tiles, 3, height, width), tile by tile, as libmtmd encodes them."""
    parts = []
    with torch_layers.shown_vision_layers(loaded.model, answer.passage):
        for tile in pixel_values:
            begin = time.perf_counter_ns()
            features = loaded.model.model.get_image_features(tile[None, None], return_dict=True)
            parts.extend(features.pooler_output)
            answer.clock.encode.append(since_ms(begin))
    return torch.tensor(answer.saw("embed", torch.cat(parts).numpy()))


def _prefilled(
    loaded: _Loaded, evaluated: Sequence[int], embeddings: torch.Tensor, answer: Answer
) -> tuple[Step, transformers.DynamicCache]:
    """The first step, and the KV cache behind it."""
    begin = time.perf_counter_ns()
    observed = torch.tensor([evaluated])
    is_image = observed == OBSERVED_IMAGE_ID
    ids = observed.masked_fill(is_image, loaded.model.config.image_token_id)
    inputs = loaded.model.get_input_embeddings()(ids)
    instead = answer.passage.layer(TEXT_EMBEDDINGS, inputs[~is_image].numpy())
    if instead is not None:
        inputs[~is_image] = torch.tensor(instead)
    inputs = inputs.masked_scatter(is_image[..., None], embeddings)
    with torch_layers.shown_text_layers(loaded.model, answer.passage):
        output = loaded.model(inputs_embeds=inputs, use_cache=True, logits_to_keep=1)
    answer.clock.prefill = since_ms(begin)
    return answer.saw_prefill(output.logits[0, -1].numpy()), output.past_key_values


def _text(tokenizer: transformers.PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
