"""The measured token budget: libmtmd's prompt and transformers', and the cost of each tiling."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final, get_args

from driftloop.devices.paths import cache_dir
from driftloop.devices.runner.protocol import Timings
from driftloop.harness import atomic, ladder
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.arms.base import Prepared, Side, host_arm
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import Contract, Tiling
from driftloop.harness.errors import ArmUnavailable, BundleError, CheckpointError
from driftloop.harness.preprocess import pixels_sha256, prepare_case
from driftloop.harness.records.observation import Observation
from driftloop.harness.training.prompt import AROUND_IMAGE, OBSERVED_IMAGE_ID

if TYPE_CHECKING:
    from PIL import Image
    from transformers import Idefics3Processor, PreTrainedTokenizerFast

    from driftloop.harness.progress import Progress

_TIMED: Final = 3
"""Repetitions whose median is reported, after one to warm up."""


@dataclass(frozen=True)
class Difference:
    """Where two prompts first differ: each side's id, spelled out."""

    position: int
    desktop: str
    torch: str


@dataclass(frozen=True)
class Budget:
    """One tiling's prompt, token by token, and its price on this machine."""

    tiling: Tiling
    grid: tuple[int, int]
    """Tiles as (rows, columns) without the overview; (0, 0) for `single`."""
    tokens_per_tile: int
    image_tokens: int
    framing_tokens: int
    """What libmtmd puts around the tiles: `<fake_token_around_image>`, `<global-img>`, ..."""
    text_tokens: int
    """The prompt's own words, and tokens that the tokenizer adds at its ends."""
    encode_ms: float
    prefill_ms: float
    difference: Difference | None
    """None where libmtmd and transformers give the same ids."""

    @property
    def prompt_tokens(self) -> int:
        """Everything in the context before the answer begins."""
        return self.image_tokens + self.framing_tokens + self.text_tokens


@dataclass(frozen=True)
class TokenReport:
    contract: Contract
    budgets: tuple[Budget, ...]
    """One per tiling."""
    label_tokens: dict[str, int]

    @property
    def equal(self) -> bool:
        """Both tokenizers give the same prompt under the contract's own tiling."""
        return self.own.difference is None

    @property
    def own(self) -> Budget:
        """Under the contract's own tiling."""
        return next(one for one in self.budgets if one.tiling == self.contract.tiling)

    def answer_tokens(self, budget: Budget) -> int:
        """What the limit and the context leave for the answer."""
        room = max(0, self.contract.runtime.context - budget.prompt_tokens)
        return min(self.contract.limits.max_tokens, room)

    def context_used(self, budget: Budget) -> int:
        """Tokens in the context at the end of the longest answer."""
        return budget.prompt_tokens + self.contract.limits.max_tokens

    def fits(self, budget: Budget) -> bool:
        """Whether the longest answer still fits into the app's context."""
        return self.context_used(budget) <= self.contract.runtime.context


@dataclass(frozen=True)
class PromptSize:
    """How many tokens an arm below the contract evaluates before it answers."""

    tokens: int
    """Of the whole prompt, the image's among them."""
    image_tokens: int


def checkpoint_hashes(bundle: Bundle) -> dict[str, str]:
    """File -> SHA-256 of the bundle's checkpoint, by name."""
    files = bundle.manifest.files
    return {name: files[name].sha256 for name in sorted(files) if name.startswith("checkpoint/")}


def prompt_size(bundle: Bundle, contract: Contract) -> PromptSize | None:
    """The size of the contract's prompt around an image, counted once per checkpoint.

    None where transformers is not installed or cannot read the checkpoint's processor: arms that
    need it will say so.
    """
    counted_by = {
        "checkpoint": checkpoint_hashes(bundle),
        "prompt": contract.prompt.model_dump(mode="json"),
        "tiling": contract.tiling,
        "size": contract.pixels.size,
    }
    key = hashlib.sha256(json.dumps(counted_by, sort_keys=True).encode()).hexdigest()
    kept = cache_dir("prompts") / key
    try:
        return PromptSize(*json.loads(kept.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    from PIL import Image

    square = Image.new("RGB", (contract.pixels.size, contract.pixels.size))
    try:
        processor = checkpoints.load_processor(checkpoints.load(bundle.checkpoint))
        ids = _torch_ids(processor, square, contract)
    except (ArmUnavailable, CheckpointError):
        return None
    size = PromptSize(len(ids), ids.count(OBSERVED_IMAGE_ID))
    atomic.write_text(kept, json.dumps([size.tokens, size.image_tokens]))
    return size


def measure(
    bundle: Bundle, contract: Contract, quant: str, image: Path, progress: Progress
) -> TokenReport:
    """The budget of `contract`'s prompt around the image at `image`, under every tiling.

    Prompts longer than the contract's context are timed in one that holds them.

    Raises:
        CaseError: no phone could show the image.
        BundleError, CheckpointError: a model or its processor cannot be loaded.
        ArmUnavailable: torch's or llama.cpp's packages are not installed.
    """
    square = prepare_case(image, contract.pixels)
    processor = checkpoints.load_processor(checkpoints.load(bundle.checkpoint))
    tilings: tuple[Tiling, ...] = get_args(Tiling)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "square.png"
        square.save(path)
        case = Prepared(image.stem, 0, 0, path, pixels_sha256(square))
        budgets = [
            _budget(bundle, contract.model_copy(update={"tiling": tiling}), quant, processor, case,
                    square, progress)
            for tiling in tilings
        ]  # fmt: skip
    tokenizer = processor.tokenizer
    labels = {
        label: len(tokenizer.encode(label, add_special_tokens=False))
        for label in contract.answer.labels
    }
    return TokenReport(contract, tuple(budgets), labels)


def _budget(
    bundle: Bundle,
    contract: Contract,
    quant: str,
    processor: Idefics3Processor,
    case: Prepared,
    square: Image.Image,
    progress: Progress,
) -> Budget:
    wanted = _torch_ids(processor, square, contract)
    seen = _observed(bundle, contract, quant, case, len(wanted), progress)
    ids = seen[0].prompt_ids or []
    frame = processor.tokenizer.convert_tokens_to_ids(AROUND_IMAGE)
    places = [place for place, token in enumerate(ids) if token == frame]
    around = places[-1] - places[0] + 1
    image_tokens = ids.count(OBSERVED_IMAGE_ID)
    rows, columns = grid = seen[0].grid or (0, 0)
    timings = [one.timings_ms for one in seen[1:] if isinstance(one.timings_ms, Timings)]
    return Budget(
        tiling=contract.tiling,
        grid=grid,
        tokens_per_tile=image_tokens // (rows * columns + 1),
        image_tokens=image_tokens,
        framing_tokens=around - image_tokens,
        text_tokens=len(ids) - around,
        encode_ms=median(sum(timing.encode) for timing in timings),
        prefill_ms=median(timing.prefill for timing in timings),
        difference=_first_difference(ids, wanted, processor.tokenizer),
    )


def _torch_ids(processor: Idefics3Processor, square: Image.Image, contract: Contract) -> list[int]:
    from driftloop.harness.training import prompt as prompts
    from driftloop.harness.training.tiles import cut

    grid = cut(processor.image_processor, square, contract.tiling).grid
    encoded = prompts.encode(processor.tokenizer, contract.prompt, grid, processor.image_seq_len)
    return encoded.observed


def _observed(
    bundle: Bundle, contract: Contract, quant: str, case: Prepared, tokens: int, progress: Progress
) -> list[Observation]:
    """The desktop arm on the same picture again and again, one token of answer each time."""
    limits = contract.limits.model_copy(update={"max_tokens": 1})
    runtime = contract.runtime.model_copy(
        update={"context": max(contract.runtime.context, tokens + 64)}
    )
    brief = contract.model_copy(update={"limits": limits, "runtime": runtime})
    arm = host_arm(ladder.parse(f"desktop:{quant}+app"), Side(brief, bundle))
    advance = progress.track(f"timing tiling {contract.tiling}")
    advance(0, _TIMED + 1)
    seen = []
    for one in arm.observe([case] * (_TIMED + 1)):
        if one.error is not None:
            raise BundleError(
                f"{bundle.path}: {quant} cannot answer ({one.error.kind}: {one.error.detail}); "
                "`driftloop bundle check` says more"
            )
        seen.append(one)
        advance(len(seen), _TIMED + 1)
    return seen


def _first_difference(
    desktop: Sequence[int], torch: Sequence[int], tokenizer: PreTrainedTokenizerFast
) -> Difference | None:
    def spelled(ids: Sequence[int], place: int) -> str:
        if place == len(ids):
            return "nothing more"
        if ids[place] == OBSERVED_IMAGE_ID:
            return "an image token"
        return f"{ids[place]} {tokenizer.convert_ids_to_tokens(ids[place])}"

    if desktop == torch:
        return None
    pairs = enumerate(zip(desktop, torch, strict=False))
    shorter = min(len(desktop), len(torch))
    place = next((place for place, (one, other) in pairs if one != other), shorter)
    return Difference(place, spelled(desktop, place), spelled(torch, place))
