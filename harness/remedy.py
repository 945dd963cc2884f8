"""Remedies for coin tosses: a KV cache of higher precision, weights kept in f16.

A run shows what its runtime and its quantization cost. Here the images that it costs most are run
again on this host under each remedy, and the remaining cost is measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from driftloop.harness import bundle as bundles
from driftloop.harness import evaluation
from driftloop.harness.arms.base import Prepared
from driftloop.harness.arms.desktop import DesktopArm
from driftloop.harness.bundle import Bundle
from driftloop.harness.comparison.case_comparison import label_differences, label_margin
from driftloop.harness.comparison.hop import HopResult
from driftloop.harness.contract import Runtime
from driftloop.harness.errors import BadInput
from driftloop.harness.ladder import parse
from driftloop.harness.records.journal import PIXELS_FOLDER
from driftloop.harness.records.observation import Observation, Place, Slot
from driftloop.harness.records.record import RunRecord
from driftloop.harness.running.noise_floor import SEED, upper_bound

if TYPE_CHECKING:
    from driftloop.harness.progress import Progress

_CASES: Final = 24
"""Images run under each remedy: those whose answers are closest to another label."""
_CACHES: Final = ("q4_0", "q8_0", "f16")
"""From the lowest precision to the highest."""
_SHARES: Final = (0.25, 0.5)
"""Of the text model's attention and feed-forward parts, those with the largest driven errors."""
_PARTS: Final = {"attention": "attn_(q|k|v|output)", "ffn": "ffn_(gate|up|down)"}


@dataclass(frozen=True)
class Remedy:
    """One remedy and the cost that remains under it."""

    what: str
    """For example `KV cache in q8_0`, or `15 of 60 parts of the text model in f16`."""
    mib: float
    """What it adds: to memory for a cache, to the file for weights."""
    cases: int
    coin_tosses: int
    """Cases whose margin is no larger than rounding alone moves it under this remedy."""
    flips: int
    """Cases whose label is not the reference's."""
    nats: float
    """Largest difference of a label's log-probability from the reference, averaged over cases."""


@dataclass(frozen=True)
class Remedies:
    """`cache`: on the runtime hop, `weights`: on the quantization hop; the first of each is the
    present state. Empty where the run has no such hop, or nothing can be tried on it."""

    cases: int
    """Cases of the run."""
    cache: tuple[Remedy, ...]
    weights: tuple[Remedy, ...]


def remedies(folder: Path, progress: Progress) -> Remedies:
    """Measure what would help the finished run in `folder`, on this host.

    Raises:
        BadInput: no run folder, no verdict in it, or a bundle that is no longer there.
        ArmUnavailable: llama-cpp-python is not installed.
    """
    run = evaluation.load(folder)
    record = run.record
    bundle = bundles.load(Path(record.bundle.path))
    if bundle.sha256 != record.bundle.sha256:
        raise BadInput(f"{record.bundle.path}: no longer the bundle of {folder}; restore it")
    seen = {one.slot: one for one in run.observations if one.canary is None and one.error is None}
    bench = _Bench(folder, record, bundle, seen, progress)
    by_name = {hop.name: hop for hop in run.verdict.hops if hop.phone is None}
    with TemporaryDirectory() as scratch:
        return Remedies(
            cases=len(record.cases),
            cache=tuple(bench.caches(by_name["runtime"])) if "runtime" in by_name else (),
            weights=tuple(bench.weights(by_name["quantization"], Path(scratch)))
            if "quantization" in by_name
            else (),
        )


@dataclass(frozen=True)
class _Bench:
    """A run's images and answers, and its bundle under other settings."""

    folder: Path
    record: RunRecord
    bundle: Bundle
    seen: dict[Slot, Observation]
    progress: Progress

    def caches(self, hop: HopResult) -> Iterator[Remedy]:
        """The present state, and each type of KV cache of higher precision."""
        images = self._images(hop)
        runtime, quant = self.record.contract.runtime, parse(hop.candidate).quant or "f16"
        if not images or runtime.cache_type_k not in _CACHES:
            return
        now = _cache_mib(self.bundle, quant, runtime)
        for cache in _CACHES[_CACHES.index(runtime.cache_type_k) :]:
            dearer = runtime.model_copy(update={"cache_type_k": cache, "cache_type_v": cache})
            mib = _cache_mib(self.bundle, quant, dearer) - now
            yield self._measured(f"KV cache in {cache}", mib, hop, self.bundle, dearer, images)

    def weights(self, hop: HopResult, scratch: Path) -> Iterator[Remedy]:
        """The present state, and parts of the model kept in f16."""
        images = self._images(hop)
        quant = parse(hop.candidate).quant or "f16"
        if not images or "f16" not in self.bundle.quants:
            return
        runtime = self.record.contract.runtime.reference()
        manifest = self.bundle.manifest
        dearer_vision = {quant: manifest.mmproj["f16"]}
        vision = replace(
            self.bundle, manifest=manifest.model_copy(update={"mmproj": dearer_vision})
        )
        mib = _mib(vision.mmproj(quant)) - _mib(self.bundle.mmproj(quant))
        yield self._measured(f"all in {quant}", 0.0, hop, self.bundle, runtime, images)
        yield self._measured("vision tower in f16", mib, hop, vision, runtime, images)
        parts = _worst_parts(hop)
        for share in _SHARES:
            kept = parts[: round(share * len(parts))]
            if not kept:
                continue
            mixed = self._mixed(quant, kept, scratch)
            mib = _mib(mixed.text_model(quant)) - _mib(self.bundle.text_model(quant))
            what = f"{len(kept)} of {len(parts)} parts of the text model in f16 ({kept[0]}, ...)"
            yield self._measured(what, mib, hop, mixed, runtime, images)

    def _mixed(self, quant: str, kept: Sequence[str], scratch: Path) -> Bundle:
        """The bundle with a text model of its own, in which `kept` layers' parts are f16."""
        target = scratch / f"text-{len(kept)}.gguf"
        source = self.bundle.text_model("f16")
        patterns = [_pattern(layer) for layer in kept]
        done = subprocess.run(
            [sys.executable, "-m", "driftloop.harness.quantize", source, target, quant, *patterns],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.splitlines() or ["no word"])[-1]
            raise BadInput(f"{source}: llama.cpp cannot quantize it to {quant}: {last}")
        manifest = self.bundle.manifest
        weights = manifest.text[quant].model_copy(update={"file": os.fspath(target)})
        return replace(self.bundle, manifest=manifest.model_copy(update={"text": {quant: weights}}))

    def _images(self, hop: HopResult) -> list[Prepared]:
        """The cases that either arm of the hop is least sure of."""
        margins: dict[Place, float] = {}
        for (arm, phone, *_), seen in self.seen.items():
            margin = label_margin(seen.label_logprobs)
            if arm in (hop.reference, hop.candidate) and phone is None and margin is not None:
                margins[seen.place] = min(margin, margins.get(seen.place, margin))
        cases = {case.place: case for case in self.record.cases}
        nearest = [cases[place] for place in sorted(margins, key=lambda one: margins[one])]
        return [
            Prepared(
                case.id,
                case.session,
                case.position,
                self.folder / PIXELS_FOLDER / f"{case.pixels_sha256}.png",
                case.pixels_sha256,
            )
            for case in nearest[:_CASES]
            if case.pixels_sha256 is not None
        ]

    def _measured(
        self,
        what: str,
        mib: float,
        hop: HopResult,
        bundle: Bundle,
        runtime: Runtime,
        images: Sequence[Prepared],
    ) -> Remedy:
        """`images` under `runtime`, each with a twin, against the hop's reference."""
        quant = parse(hop.candidate).quant or "f16"
        arm = DesktopArm(bundle, quant, runtime, self.record.contract, hop.candidate)
        advance = self.progress.track(what)
        advance(0, len(images))
        margins, moved, nats, flips = [], [], [], 0
        with closing(arm):
            for done, twins in enumerate(arm.twin(images, SEED, 0), start=1):
                own, twin = (label_margin(one.label_logprobs) for one in (twins.own, twins.embed))
                ours = self.seen.get((hop.reference, None, *twins.own.place))
                if own is not None and twin is not None and ours is not None:
                    margins.append(own)
                    moved.append(abs(own - twin))
                    apart = label_differences(ours.label_logprobs, twins.own.label_logprobs)
                    nats.append(max(apart.values(), default=0.0))
                    flips += ours.label != twins.own.label
                advance(done, len(images))
        floor = upper_bound(moved) or 0.0
        return Remedy(
            what=what,
            mib=mib,
            cases=len(margins),
            coin_tosses=sum(margin <= floor for margin in margins),
            flips=flips,
            nats=sum(nats) / len(nats) if nats else 0.0,
        )


def _worst_parts(hop: HopResult) -> list[str]:
    """The text model's attention and feed-forward parts, the largest driven error first."""
    own = [one for one in hop.driven if one.name.startswith("text layer ")]
    return [one.name for one in sorted(own, key=lambda one: one.typical_error, reverse=True)]


def _pattern(layer: str) -> str:
    """The regular expression of a part's tensors: `text layer 3 ffn` are those of block 3."""
    _, _, number, part = layer.split(" ")
    return rf"^blk\.{number}\.{_PARTS[part]}\.weight$"


def _mib(path: Path) -> float:
    return path.stat().st_size / 2**20


def _cache_mib(bundle: Bundle, quant: str, runtime: Runtime) -> float:
    """What the KV cache takes: keys and values of every layer for every token of the context."""
    import gguf

    from driftloop.harness.bundle.gguf_file import GgufFile

    file = GgufFile(bundle.text_model(quant))

    def number(key: str) -> int:
        return int(str(file.require(f"llama.{key}")))

    width = number("embedding_length") // number("attention.head_count")
    width *= number("attention.head_count_kv")
    total = 0.0
    for cache in (runtime.cache_type_k, runtime.cache_type_v):
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[cache.upper()]]
        total += runtime.context * number("block_count") * width * size / block
    return total / 2**20
