"""What the host and the on-phone runner exchange; runner.cpp writes the same field names.

The host pushes one `Request` as JSON. The runner appends one flushed JSON line per record to the
results file: first an `Attestation`, then one `ImageResult` per image in order, last a `Finished`.
Every record carries `record`, its kind. Lines are ASCII, so that any other byte shows damage. Times
are milliseconds from a monotonic clock.
Beside the results the runner keeps rewriting one `Heartbeat`.

What every arm that fills these records must do alike:

- Tokens: chosen as `Decoding` says, the lowest id on a tie. At most `max_tokens` new ones, among
  them the end-of-generation token, which is the last when `stop_reason` is `eog`.
- Text: the pieces joined, special tokens as they are spelled, without that last token.
- Logprobs: log-softmax in double over the float32 logits as the model gave them, whatever
  `Decoding` makes of them. A label's first token is that of the bare label, with no space before
  it and no special tokens added.
- Context: `context` tokens hold prompt and answer. A prompt of more than `context - 1` is
  `context_full` before anything is encoded; an answer that fills the rest is stopped with it.
- Batches: consecutive text ids are decoded together, `batch` at most at a time; each tile on its
  own. `n_ubatch` stays at llama.cpp's default, clipped to `batch`.
- Flash attention: on or off for the text context and the vision context alike, never `auto`.
- `single`: the overview alone, without slices and without the blank line libmtmd puts before it.
- Evidence: a `Fingerprint` of each stage's tensor, of all tiles one after another.
- Driven: every output that the trajectory holds is measured as a `DrivenLayer` says and then
  replaced by the trajectory's, so that what follows gets exactly the reference's input; the text
  model during prefill alone. Prompt ids, grid and evidence are the arm's own, from before.

A trajectory is every output on one reference arm's way through one case: a safetensors file of
float32 tensors in the order of computation, named as `TensorRecord` says, with `prompt_ids` (a
JSON list, as evaluated) and `grid` ("[rows, columns]") in its metadata. Float32, because a layer
whose arithmetic is the reference's must come out as exactly 0; float16 would add 2e-4 to all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

PROTOCOL_VERSION = 3

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
PromptId = Annotated[int, Field(ge=-1, lt=2**31)]
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class RuntimeSettings(_Record):
    """llama.cpp's settings. `threads = 0`: clamp(cores / 2, 2, 6), resolved on the phone."""

    context: int
    batch: int
    cache_type_k: str
    cache_type_v: str
    flash_attention: bool
    threads: int
    vision_threads: int
    backend: str
    tiling: Literal["single", "split"]


class Decoding(_Record):
    """How the next token is chosen. The defaults are greedy, ended by the model's own end tokens.

    In this order: `repeat_penalty` divides a positive logit (multiplies a negative one) of every id
    that is among the answer's so far; `top_k` likeliest ids are kept, 0 keeps all; a `temperature`
    of 0 takes the likeliest, above 0 one is drawn: the n-th token (from 0) by output n + 1 of
    splitmix64 seeded with `seed`, its upper 53 bits as a share of the summed probabilities, ids in
    descending order of probability, the lowest id first on a tie.
    """

    temperature: float = Field(default=0.0, ge=0.0)
    top_k: int = Field(default=0, ge=0)
    repeat_penalty: float = Field(default=1.0, gt=0.0)
    seed: int = Field(default=0, ge=0, lt=2**64)
    stop: tuple[str, ...] = ()
    """Tokens that end an answer, as they are spelled; empty: those the model itself names."""

    @property
    def effective(self) -> Decoding:
        """The same without a seed where no token is drawn."""
        return self if self.temperature else self.model_copy(update={"seed": 0})


class ImageRequest(_Record):
    """One image of a session; `pixels_path` is a PNG on the phone, already what the model sees."""

    case_id: str
    session: int
    position: int
    pixels_path: str
    always: bool = False
    """Run even after the request was stopped: see `Request.stop_path`."""
    trajectory_path: str | None = None
    """A reference's trajectory on the phone; the runner is driven along it. None: not driven."""


class Settings(_Record):
    """What the app fixes and the runner needs. The repr is part of `devices.runner.work.Work`'s
    hash, which names a run's folder on the phone."""

    prompt: str
    marker: str
    add_special: bool
    parse_special: bool
    max_tokens: int
    labels: tuple[str, ...]
    runtime: RuntimeSettings
    decoding: Decoding = Decoding()
    top_k: int = 16
    """Likeliest tokens reported for each step; unrelated to `Decoding.top_k`."""


class Request(Settings):
    """A run as the phone sees it; paths are the phone's."""

    protocol: int = PROTOCOL_VERSION
    run_id: str
    text_model_path: str
    mmproj_path: str
    stop_path: str | None = None
    """Once this file exists, of the images not yet begun only those marked `always` are run."""
    evidence: bool = True
    """False leaves the fingerprints out; for measuring what they cost."""
    tensors_folder: str | None = None
    """Deep mode: each image's tensors go into a file here, `tensors_name` of it, as
    `ImageResult.tensors` says. Before an image the runner waits until at most one file is here, so
    that whoever fetches and removes them limits the space that is needed."""
    images: list[ImageRequest]


class TokenLogprob(_Record):
    id: TokenId
    logprob: float


class Fingerprint(_Record):
    """A summary of a float32 tensor, so that arms can be compared without moving it.

    `projection` is linear, so that of a difference is the difference of projections, and its
    length estimates the tensor's (within 9 % or so). Of element i of the flattened tensor, row
    r = i // 64 and column j = i % 64 name bucket (j + r) % 64 and the sign: minus where bit j (from
    the lowest) of output r + 1 of splitmix64 seeded with 0 is set. Sums in float64, given as
    float32.
    """

    shape: tuple[int, ...]
    crc32: int
    """Of the bytes, as zlib computes it."""
    finite: bool
    """False where any element is not a finite number; the numbers below then leave it out."""
    mean: float
    rms: float
    minimum: float
    maximum: float
    projection: tuple[float, ...]
    """64 numbers."""


class Evidence(_Record):
    """The tensors of one image's stages. None: not reached. Of a driven image: the arm's own,
    as they were before the trajectory's took their place."""

    pixels: Fingerprint | None = None
    """(tiles, 3, height, width), as the vision graph gets them."""
    embed: Fingerprint | None = None
    """(image tokens, width), after the projector."""
    prefill: Fingerprint | None = None
    """(vocabulary,): the first step's logits."""


class TensorRecord(_Record):
    """One tensor in its image's file of `tensors_folder`: little-endian float32, C order."""

    name: str
    """A stage (`pixels`, `embed`, `prefill`) or a layer: see `harness.arms.layers`."""
    shape: tuple[int, ...]
    offset_bytes: int


class DrivenLayer(_Record):
    """One output of a candidate that was given the reference's input: its error is its own.

    Over the rows of the output (all axes but the last), R the reference's and C the candidate's, in
    float64. What a row is divided by, its |R|^2, is taken as at least 0.01 of the mean of |R|^2
    over all rows, so that neither rows of almost no length nor the few huge ones of a text model
    dominate.
    """

    name: str
    """As `TensorRecord.name`."""
    error: float
    """sqrt(mean of |C - R|^2 / |R|^2); exactly 0 when bit-equal. Infinity, with `gain` and `shift`
    of 0, where the shapes differ, where a value is not finite, and where R is all zeros and C is
    not."""
    gain: float
    """Mean of (C - R).R / |R|^2: the projection on the reference minus 1."""
    shift: float
    """Mean of all elements of C - R, over the root mean square of those of R."""


def tensors_name(session: int, position: int) -> str:
    """The name of an image's file in `Request.tensors_folder`."""
    return f"{session}-{position}"


class Token(_Record):
    """One generated token. `top` holds the `top_k` likeliest ids of this step, likeliest first."""

    id: TokenId
    piece: str
    logprob: float
    top: list[TokenLogprob]


class Timings(_Record):
    """Milliseconds per stage of one image; model load is not part of it."""

    image_decode: Milliseconds
    tokenize: Milliseconds
    encode: list[Milliseconds]
    """One entry per tile."""
    prefill: Milliseconds
    decode: list[Milliseconds]
    """One entry per step after the first token, whose logits prefill already gave."""
    total: Milliseconds


class ThreadPlacement(_Record):
    name: str
    cpus_allowed: str


class RunSettings(_Record):
    """The settings in force, read back from llama.cpp where possible."""

    context: int
    batch: int
    micro_batch: int
    cache_type_k: str
    cache_type_v: str
    flash_attention: bool
    max_tokens: int
    decoding: Decoding


class Attestation(_Record):
    """Who answered: build, machine and settings as the runner found them."""

    record: Literal["attestation"] = "attestation"
    protocol: int
    llama_commit: str
    compiler: str
    target: str
    variant: str
    cpu_features_found: list[str]
    cpu_features_used: list[str]
    backends: list[str]
    threads: int
    vision_threads: int
    placement: list[ThreadPlacement]
    text_model_sha256: str
    mmproj_sha256: str
    settings: RunSettings | None = None
    """None for an arm that is no llama.cpp."""
    load_ms: Milliseconds
    pid: Count


class RunnerFault(_Record):
    """`kind` is one of image_decode, trajectory, tokenize, context_full, encode, decode (per
    image), or request, model_load, mmproj_load, context, internal (for the process, by its own
    word), or one of `devices.runner.ending`'s (for the process, as the host sees it)."""

    kind: str
    detail: str


class ImageResult(_Record):
    """Either a whole answer or an `error` with whatever was known before it."""

    record: Literal["image"] = "image"
    case_id: str
    session: Count
    position: Count
    pixels_sha256: str | None
    """SHA-256 over the decoded RGB bytes, row by row."""
    grid: tuple[Count, Count] | None
    """Tiles as (rows, columns) without the overview; (0, 0) for `single`."""
    image_tokens: Count | None
    prompt_ids: list[PromptId]
    """Text ids as evaluated; each image token is -1."""
    tokens: list[Token]
    label_logprobs: dict[str, float]
    """Log-probability of each label's first token at the first step."""
    evidence: Evidence = Evidence()
    tensors: list[TensorRecord] = []
    """Deep mode only; in the order in which they were computed."""
    driven: list[DrivenLayer] = []
    """Of an image with a trajectory, in the order of computation."""
    text: str
    stop_reason: Literal["eog", "max_tokens", "error"]
    timings_ms: Timings | None
    memory_peak_kib: Count
    memory_kib: Count
    error: RunnerFault | None = None

    @model_validator(mode="after")
    def _computed(self) -> ImageResult:
        """The runner ends an image whose numbers are none, so a NaN in its answer is damage."""
        if any(map(math.isnan, self._numbers())):
            raise ValueError("a number of the answer is NaN")
        return self

    def _numbers(self) -> Iterator[float]:
        yield from self.label_logprobs.values()
        for token in self.tokens:
            yield from (token.logprob, *(rival.logprob for rival in token.top))
        for seen in (self.evidence.pixels, self.evidence.embed, self.evidence.prefill):
            if seen is not None:
                yield from (seen.mean, seen.rms, seen.minimum, seen.maximum, *seen.projection)
        for layer in self.driven:
            yield from (layer.error, layer.gain, layer.shift)


class Heartbeat(_Record):
    """A sign of life in a file of its own; `beat` grows at least once a second.

    The thread that writes it does no other work, so it also beats while a step takes long.
    """

    beat: int
    pid: int
    stage: Literal[
        "start", "hash", "load", "image", "tokenize", "encode", "prefill", "decode", "end"
    ]
    image: int
    """Index of the image being worked on within the request; -1 before the first."""


class Finished(_Record):
    """The last line: how the process ended."""

    record: Literal["finished"] = "finished"
    images: Count
    error: RunnerFault | None = None


Line = Attestation | ImageResult | Finished
LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="record")])
