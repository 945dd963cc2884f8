"""`torch`: the checkpoint under the contract, f32 on this host, step by step as the runner."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import transformers

from devices.runner.protocol import PROTOCOL_VERSION, Attestation, Decoding
from harness import checkpoint as checkpoints
from harness.arms import decoding, host, torch_layers
from harness.arms.answer import (
    TOP_K,
    Answer,
    StageFailed,
    decoded,
    prompt_ids,
    refuse_unfit,
    refuse_unfit_tiles,
    since_ms,
    step,
)
from harness.arms.base import Given, Look, Prepared
from harness.arms.decoding import Chooser
from harness.arms.logits import Step
from harness.arms.torch_layers import Kept
from harness.checkpoint import Checkpoint
from harness.contract import Contract
from harness.preprocess import pixels_sha256
from harness.records.observation import Observation
from harness.training import prompt as prompts
from harness.training.finetune import reproducible
from harness.training.prompt import OBSERVED_IMAGE_ID
from harness.training.tiles import cut

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
            answer = Answer()
            yield self._answered(image, Given(), answer)

    def look(self, images: Sequence[tuple[Prepared, Given]]) -> Iterator[Look]:
        """Run `images` in deep mode, on the same model. Raises as `observe` does."""
        for image, given in images:
            answer = Answer(deep=True)
            yield Look(self._answered(image, given, answer), answer.tensors)

    def _ready(self) -> _Loaded:
        if self._loaded is None:
            begin = time.perf_counter_ns()
            processor = checkpoints.load_processor(self._checkpoint)
            model = checkpoints.load_model(self._checkpoint)
            end_ids = checkpoints.end_of_generation(model, processor.tokenizer)
            self._loaded = _Loaded(model, processor, end_ids, since_ms(begin))
        return self._loaded

    def _answered(self, image: Prepared, given: Given, answer: Answer) -> Observation:
        loaded = self._ready()
        ends = loaded.ends(self._contract.decoding)
        with answer.attempt(), reproducible(_SEED, self._threads), torch.inference_mode():
            embeddings = self._encoded(loaded, image.pixels_path, given, answer)
            now, cache = _prefilled(loaded, embeddings, answer)
            self._generate(loaded, now, cache, ends, answer)
        return answer.observation(
            image, arm=self.name, contract=self._contract, load_ms=loaded.load_ms
        )

    def _encoded(
        self, loaded: _Loaded, pixels_path: Path, given: Given, answer: Answer
    ) -> torch.Tensor:
        """The image's embeddings, (image tokens, width), and the ids around them in `answer`."""
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
        answer.prompt_ids = prompt_ids(
            prompt.observed, given, loaded.model.config.text_config.vocab_size
        )
        answer.image_tokens = answer.prompt_ids.count(OBSERVED_IMAGE_ID)
        _refuse_overlong(loaded, answer.prompt_ids, self._contract.limits.max_tokens)
        if given.embeddings is not None:
            embeddings = torch.from_numpy(given.embeddings)
        elif given.pixel_values is not None:
            refuse_unfit_tiles(
                given.pixel_values, answer.image_tokens, loaded.processor.image_seq_len
            )
            embeddings = _through_vision(loaded, torch.from_numpy(given.pixel_values), answer)
        else:
            answer.saw("pixels", tiles.pixel_values.numpy())
            embeddings = _through_vision(loaded, tiles.pixel_values, answer)
        refuse_unfit(embeddings.numpy(), answer.image_tokens, loaded.width)
        return embeddings

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
    with _layers(torch_layers.vision_layers(loaded.model), answer):
        for tile in pixel_values:
            begin = time.perf_counter_ns()
            features = loaded.model.model.get_image_features(tile[None, None], return_dict=True)
            parts.extend(features.pooler_output)
            answer.clock.encode.append(since_ms(begin))
    embeddings = torch.cat(parts)
    answer.saw("embed", embeddings.numpy())
    return embeddings


def _prefilled(
    loaded: _Loaded, embeddings: torch.Tensor, answer: Answer
) -> tuple[Step, transformers.DynamicCache]:
    """The first step, and the KV cache behind it."""
    begin = time.perf_counter_ns()
    observed = torch.tensor([answer.prompt_ids])
    is_image = observed == OBSERVED_IMAGE_ID
    ids = observed.masked_fill(is_image, loaded.model.config.image_token_id)
    inputs = loaded.model.get_input_embeddings()(ids)
    inputs = inputs.masked_scatter(is_image[..., None], embeddings)
    with _layers(torch_layers.text_layers(loaded.model), answer):
        output = loaded.model(inputs_embeds=inputs, use_cache=True, logits_to_keep=1)
    answer.clock.prefill = since_ms(begin)
    return answer.saw_prefill(output.logits[0, -1].numpy()), output.past_key_values


@contextmanager
def _layers(hooks: AbstractContextManager[Kept], answer: Answer) -> Iterator[None]:
    """What `hooks` keep in this block goes to `answer`, in deep mode alone."""
    if not answer.deep:
        yield
        return
    with hooks as kept:
        yield
    answer.saw_layers(kept.tensors())


def _text(tokenizer: transformers.PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
