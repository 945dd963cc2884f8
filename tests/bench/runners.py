"""The runner's time per image, model load excluded: against llama-mtmd-cli, and for evidence."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from driftloop.devices.runner.build import native_tool, runner_binary
from driftloop.devices.runner.protocol import (
    LINE,
    Decoding,
    ImageRequest,
    ImageResult,
    Request,
    RuntimeSettings,
    Timings,
)
from driftloop.devices.runner.variants import X86_64_V3
from driftloop.fixtures import real_size, textures
from driftloop.fixtures.drifts import keys
from driftloop.harness import bundle as bundles
from driftloop.harness import contract as contracts
from driftloop.harness.arms.base import Prepared
from driftloop.harness.contract import Pixels
from driftloop.harness.preprocess import pixels_sha256, prepare_as
from tests.bench.ratios import Row, in_turn

ROUNDS = 7
STEPS = 31
"""Decode steps after prefill: both programs take so many, whatever each calls its limit."""
NEVER_SAID = "<row_6_col_6>"
"""The token that ends an answer here, so that none ends before its last step."""
CONTEXT, BATCH, THREADS = 1024, 512, 2

_PREFILLED = re.compile(r"prompt eval time =\s*([\d.]+) ms")
"""Its clock starts with the text before the image and stops at the first logits: with encoding."""
_DECODED = re.compile(r" eval time =\s*([\d.]+) ms /\s*(\d+) runs")


def rows() -> list[Row]:
    """The runner against llama-mtmd-cli, and what evidence costs an image, on this host."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        text, mmproj = models(folder)
        picture = prepared(folder, "fire", 1).path
        asked = request(text, mmproj, picture)

        def image_ms(**changed: object) -> float:
            shutil.rmtree(folder / "tensors", ignore_errors=True)
            return answered(Request.model_validate(asked.model_dump() | changed), folder).total

        deep = {"tensors_folder": str(folder / "tensors")}
        ours_s, theirs_s, ratio = in_turn(
            lambda: _runner_s(asked, folder), lambda: _cli_s(text, mmproj, picture), ROUNDS
        )
        cheap_ms, none_ms, cheap = in_turn(image_ms, lambda: image_ms(evidence=False), ROUNDS)
        deep_ms, _, factor = in_turn(lambda: image_ms(**deep), image_ms, ROUNDS)
    return [
        Row(
            "runner time per image against llama-mtmd-cli",
            f"{ours_s:.2f} to {theirs_s:.2f} s, {ratio:.3f} x",
            "<= 1.02 x",
            ratio <= 1.02,
        ),
        Row(
            "cheap evidence over none",
            f"{cheap_ms / 1000:.2f} to {none_ms / 1000:.2f} s, {cheap:.3f} x",
            "<= 1.02 x",
            cheap <= 1.02,
        ),
        Row("deep mode over cheap evidence", f"{deep_ms / 1000:.2f} s, {factor:.2f} x"),
    ]


def prepared(folder: Path, element: str, place: int) -> Prepared:
    """A texture as every arm below the contract gets it, in a session of its own."""
    image = prepare_as(textures.texture(element, place).image.convert("RGB"), Pixels())
    path = folder / f"{place}.png"
    image.save(path)
    return Prepared(str(place), 0, place, path, pixels_sha256(image))


def models(folder: Path) -> tuple[Path, Path]:
    """The text model and, in `folder`, an mmproj that makes one tile of a picture, not sixteen:
    llama-mtmd-cli cannot be told by an option."""
    bundle = bundles.load(real_size.bundle(print))
    mmproj = Path(shutil.copy(bundle.mmproj("q8_0"), folder))
    keys.number("clip.vision.preproc_image_size", real_size.SHAPE.tile)(mmproj)
    return bundle.text_model("q8_0"), mmproj


def request(text: Path, mmproj: Path, picture: Path) -> Request:
    """One picture, with as many decode steps as the limit allows."""
    prompt = contracts.load("default").prompt
    return Request(
        run_id="bench",
        text_model_path=str(text),
        mmproj_path=str(mmproj),
        prompt=prompt.text,
        marker=prompt.marker,
        add_special=False,
        parse_special=True,
        max_tokens=STEPS + 1,
        labels=["fire"],
        decoding=Decoding(stop=(NEVER_SAID,)),
        runtime=RuntimeSettings(
            context=CONTEXT,
            batch=BATCH,
            cache_type_k="f16",
            cache_type_v="f16",
            flash_attention=False,
            threads=THREADS,
            vision_threads=THREADS,
            backend="cpu",
            tiling="split",
        ),
        images=[ImageRequest(case_id="0", session=0, position=0, pixels_path=str(picture))],
    )


def answered(asked: Request, folder: Path) -> Timings:
    """The runner's own times of a request with one image, in a process of its own."""
    written, results, heartbeat = (folder / name for name in ("request", "results", "heartbeat"))
    written.write_text(asked.model_dump_json())
    results.unlink(missing_ok=True)
    command = [runner_binary(X86_64_V3), written, results, heartbeat]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    lines = [LINE.validate_json(line) for line in results.read_text().splitlines()]
    timings = next(one for one in lines if isinstance(one, ImageResult)).timings_ms
    if timings is None or len(timings.decode) != STEPS:
        raise RuntimeError(f"the runner did not take {STEPS} steps: {lines}")
    return timings


def _runner_s(asked: Request, folder: Path) -> float:
    timings = answered(asked, folder)
    return (sum(timings.encode) + timings.prefill + sum(timings.decode)) / 1000


def _cli_s(text: Path, mmproj: Path, picture: Path) -> float:
    options = {
        "--model": text,
        "--mmproj": mmproj,
        "--image": picture,
        "--prompt": contracts.load("default").prompt.text,
        "--chat-template": "{{ messages[0]['content'] }}",
        "--n-predict": STEPS + 1,
        "--temp": 0,
        "--threads": THREADS,
        "--ctx-size": CONTEXT,
        "--batch-size": BATCH,
        "--flash-attn": "off",
        "--ignore-eos": None,
        "--verbosity": 4,  # below it no times are printed
    }
    command = [str(native_tool("llama-mtmd-cli")), "--jinja", "--no-warmup"]
    for option, value in options.items():
        command += [option] if value is None else [option, str(value)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    prefilled, decoded = _PREFILLED.search(said), _DECODED.search(said)
    if prefilled is None or decoded is None or int(decoded[2]) != STEPS:
        raise RuntimeError(f"llama-mtmd-cli did not take {STEPS} steps: {said[-2000:]}")
    return (float(prefilled[1]) + float(decoded[1])) / 1000
