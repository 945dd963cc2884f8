"""The arms on this host on the tiny bundle: against transformers, each other, and when things go
wrong."""

from __future__ import annotations

import hashlib
import math
import shutil
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image

from driftloop.devices.runner.llama_cpp import LLAMA_COMMIT
from driftloop.devices.runner.protocol import Decoding, RunSettings
from driftloop.fixtures import tiny
from driftloop.fixtures.drifts import keys, release
from driftloop.harness import bundle as bundles
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness import contract as contracts
from driftloop.harness.arms.base import Prepared
from driftloop.harness.arms.desktop import DesktopArm, vision_threads
from driftloop.harness.arms.torch import TorchArm
from driftloop.harness.bundle import Bundle
from driftloop.harness.contract import CacheType, Contract, Prompt, Runtime, Tiling
from driftloop.harness.errors import BundleError, ContractError
from driftloop.harness.preprocess import pixels_sha256
from driftloop.harness.records.observation import Observation
from tests.arm_work import (
    APP,
    ARMS,
    CONTRACT,
    REFERENCE,
    Opened,
    answers,
    desktop,
    ids,
    limited,
    observed,
    under,
)

NEVER = ("<|im_start|>",)
"""A token no answer holds, so that answers reach their limit."""


@pytest.fixture(params=ARMS)
def opened(request: pytest.FixtureRequest) -> Opened:
    return ARMS[request.param]


def decoding(max_tokens: int = 8, **chosen: object) -> Contract:
    found = Decoding.model_validate(chosen)
    return limited(max_tokens, CONTRACT.model_copy(update={"decoding": found}))


def worst(left: Observation, right: Observation) -> float:
    return max(
        abs(left.label_logprobs[label] - right.label_logprobs[label])
        for label in CONTRACT.answer.labels
    )


# What every arm on this host does


@pytest.mark.parametrize(
    ("tiling", "grid", "tiles"), [("single", (0, 0), 1), ("split", (2, 2), 5)], ids=str
)
def test_every_field_of_an_observation_is_filled(
    opened: Opened,
    tiling: Tiling,
    grid: tuple[int, int],
    tiles: int,
    tiny_bundle: Bundle,
    pictures: list[Prepared],
) -> None:
    for seen, case in zip(
        observed(opened, tiny_bundle, pictures[1:4], under(tiling)), pictures[1:4], strict=True
    ):
        assert (seen.case_id, seen.session, seen.position, seen.pixels_sha256) == (
            case.case_id,
            case.session,
            case.position,
            case.pixels_sha256,
        )
        assert seen.error is None
        assert (seen.grid, seen.image_tokens) == (grid, 4 * tiles)
        assert (seen.prompt_ids or []).count(-1) == 4 * tiles
        assert set(seen.label_logprobs) == set(CONTRACT.answer.labels)
        assert seen.conditions.load_ms is not None
        assert seen.timings_ms is not None
        assert len(seen.timings_ms.encode) == tiles
        assert len(seen.timings_ms.decode) == len(seen.tokens or ()) - 1
        assert seen.timings_ms.total > seen.timings_ms.prefill > 0
        evidence = seen.evidence
        assert evidence.pixels is not None
        assert evidence.pixels.shape == (tiles, 3, 128, 128)
        assert evidence.embed is not None
        assert evidence.embed.shape == (4 * tiles, 96)
        assert evidence.prefill is not None
        assert len(evidence.prefill.shape) == 1


def test_tokens_are_greedy_with_16_rivals_and_the_end_token_is_no_text(
    opened: Opened, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    for seen in observed(opened, tiny_bundle, pictures):
        tokens = seen.tokens or []
        for token in tokens:
            logprobs = [rival.logprob for rival in token.top]
            assert len(logprobs) == 16
            assert logprobs == sorted(logprobs, reverse=True)
            assert (token.id, token.logprob) == (token.top[0].id, logprobs[0])
            assert sum(map(math.exp, logprobs)) <= 1 + 1e-9
        assert seen.stop_reason == "eog"
        assert tokens[-1].piece == "<end_of_utterance>"
        assert seen.text == "".join(token.piece for token in tokens[:-1])
        assert seen.label == CONTRACT.answer.read(seen.text)


def test_an_answer_cut_at_the_limit_says_so(
    opened: Opened, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    (seen,) = observed(opened, tiny_bundle, pictures[:1], limited(1))
    assert seen.stop_reason == "max_tokens"
    (token,) = seen.tokens or ()
    assert seen.text == token.piece


def test_an_answer_does_not_depend_on_what_was_asked_before(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    """To the last bit."""
    for arm in (ARMS["torch"], desktop("q8_0", APP)):
        forward = observed(arm, tiny_bundle, pictures)
        backward = observed(arm, tiny_bundle, pictures[::-1])
        assert list(map(answers, forward)) == list(map(answers, backward[::-1]))


def test_one_image_that_cannot_be_read_leaves_the_others_answered(
    opened: Opened, tiny_bundle: Bundle, pictures: list[Prepared], damaged_picture: Prepared
) -> None:
    images = [pictures[0], damaged_picture, pictures[0]]
    before, middle, after = observed(opened, tiny_bundle, images)
    assert middle.error is not None
    assert middle.error.kind == "image_decode"
    assert (middle.tokens, middle.label, middle.stop_reason) == ([], None, "error")
    assert answers(after) == answers(before)


# Against transformers


def _cases(folder: Path, contract: Contract, count: int) -> list[tuple[Prepared, str]]:
    cases = []
    textures = islice(tiny.held_out(), count)
    for index, (pixels, label) in enumerate(tiny.prepared(textures, contract)):
        path = folder / f"{index}.png"
        pixels.save(path)
        cases.append((Prepared(f"case-{index}", 0, index, path, pixels_sha256(pixels)), label))
    return cases


@pytest.mark.parametrize(
    ("name", "count", "least", "most"),
    [("default", 100, 0.90, 0.98), ("as-shipped", 40, 0.0, 0.749)],
    ids=["held-out textures are right", "red and blue exchanged cost many answers"],
)
def test_the_checkpoint_is_right_as_often_as_it_was_trained_to_be(
    name: str, count: int, least: float, most: float, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    contract = contracts.load(name)
    cases = _cases(tmp_path, contract, count)
    seen = observed(ARMS["torch"], tiny_bundle, [prepared for prepared, _ in cases], contract)
    right = sum(one.label == label for one, (_, label) in zip(seen, cases, strict=True))
    assert least <= right / count <= most


@pytest.mark.parametrize("tiling", ["single", "split"])
def test_tokens_equal_those_of_transformers_own_generate(
    tiny_bundle: Bundle, pictures: list[Prepared], tiling: Tiling
) -> None:
    checkpoint = checkpoints.load(tiny_bundle.checkpoint)
    model, processor = checkpoints.load_model(checkpoint), checkpoints.load_processor(checkpoint)
    text = "<image>" + CONTRACT.prompt.text.removeprefix(CONTRACT.prompt.marker)
    seen = observed(ARMS["torch"], tiny_bundle, pictures, under(tiling))
    for one, picture in zip(seen, pictures, strict=True):
        with Image.open(picture.pixels_path) as image:
            inputs = processor(
                text=text,
                images=[image],
                do_image_splitting=tiling == "split",
                return_tensors="pt",
            )
        inputs.pop("mm_token_type_ids", None)
        prompt = inputs["input_ids"][0].tolist()
        with torch.inference_mode():
            whole = model.generate(**inputs, do_sample=False, max_new_tokens=32)[0].tolist()
            # In f32 the sum over 49280 tokens alone would be off by 1e-4.
            logprobs = model(**inputs).logits[0, -1].double().log_softmax(-1)
        image_id = model.config.image_token_id
        assert one.prompt_ids == [-1 if token == image_id else token for token in prompt]
        assert ids(one) == whole[len(prompt) :]
        for label, logprob in one.label_logprobs.items():
            (first, *_) = processor.tokenizer.encode(label, add_special_tokens=False)
            assert logprob == pytest.approx(float(logprobs[first]), abs=1e-5)


# llama.cpp


@pytest.mark.parametrize("tiling", ["single", "split"])
def test_a_clean_conversion_says_what_pytorch_says(
    tiny_bundle: Bundle, pictures: list[Prepared], tiling: Tiling
) -> None:
    reference, candidate = (
        observed(arm, tiny_bundle, pictures, under(tiling)) for arm in ARMS.values()
    )
    for above, below in zip(reference, candidate, strict=True):
        assert below.error is None
        for field in ("prompt_ids", "image_tokens", "grid", "pixels_sha256", "text"):
            assert getattr(below, field) == getattr(above, field), field
        assert ids(below) == ids(above)
        assert worst(above, below) < 0.01
    assert len({one.label for one in candidate} - {None}) >= 3, "no constant"


def test_libmtmd_turns_back_what_the_first_converters_exchanged(
    tiny_bundle: Bundle, pictures: list[Prepared], tmp_path: Path
) -> None:
    """So that the file check may call such an mmproj a remark."""

    def exchange(_keys: keys.Keys, tensors: keys.Tensors) -> None:
        for name in [name for name in tensors if ".ffn_up." in name]:
            other = name.replace("ffn_up", "ffn_down")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    files = release.files(tiny_bundle.path, "mmproj", "f16")
    old = bundles.load(
        release.planted(tiny_bundle.path, tmp_path / "old", files, keys.rewritten(exchange))
    )
    assert [fault.remark for fault in bundles.faults(old, ["f16"])] == [True]
    now, before = (observed(desktop(), bundle, pictures[:2]) for bundle in (tiny_bundle, old))
    assert list(map(answers, now)) == list(map(answers, before))


def test_the_apps_runtime_is_a_second_quantization(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    plain = observed(desktop(), tiny_bundle, pictures)
    app = observed(desktop("f16", APP), tiny_bundle, pictures)
    assert 1e-4 < max(map(worst, plain, app)) < 0.5
    assert [one.prompt_ids for one in plain] == [other.prompt_ids for other in app]


def test_a_small_batch_evaluates_the_same_prompt(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    small = desktop("f16", REFERENCE.model_copy(update={"batch": 7}))
    whole, cut = (
        observed(arm, tiny_bundle, pictures[:2], under("split")) for arm in (desktop(), small)
    )
    assert [one.prompt_ids for one in whole] == [other.prompt_ids for other in cut]
    assert max(map(worst, whole, cut)) < 1e-3


def test_a_prompt_longer_than_the_context_is_refused_before_it_is_encoded(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    prompt = Prompt(text="<__media__>" + " water" * 80)
    contract = CONTRACT.model_copy(update={"prompt": prompt})
    small = desktop("f16", APP.model_copy(update={"context": 64}))
    (first,) = observed(small, tiny_bundle, pictures[:1], contract)
    assert first.error is not None
    assert first.error.kind == "context_full"
    assert (first.stop_reason, first.label) == ("error", None)
    assert len(first.prompt_ids or ()) == 87
    assert first.timings_ms is not None
    assert first.timings_ms.encode == []


@pytest.mark.parametrize("half", ["text", "mmproj"])
def test_a_gguf_that_cannot_be_loaded_is_one_line(
    half: str, tiny_bundle: Bundle, pictures: list[Prepared], tmp_path: Path
) -> None:
    copy = bundles.load(Path(shutil.copytree(tiny_bundle.path, tmp_path / "copy")))
    path = copy.text_model("q4_0") if half == "text" else copy.mmproj("q4_0")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BundleError) as caught:
        observed(desktop("q4_0"), copy, pictures[:1])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_llama_cpp_writes_nothing_on_the_terminal(
    tiny_bundle: Bundle, pictures: list[Prepared], capfd: pytest.CaptureFixture[str]
) -> None:
    observed(desktop("q8_0", APP), tiny_bundle, pictures[:1])
    assert capfd.readouterr() == ("", "")


# Decoding


def test_both_arms_draw_the_same_tokens(tiny_bundle: Bundle, pictures: list[Prepared]) -> None:
    drawing = decoding(temperature=2.0, top_k=50, seed=3, stop=NEVER)
    above, below = (observed(arm, tiny_bundle, pictures[:3], drawing) for arm in ARMS.values())
    assert list(map(ids, above)) == list(map(ids, below))
    greedy = observed(desktop(), tiny_bundle, pictures[:3], decoding(stop=NEVER))
    assert list(map(ids, below)) != list(map(ids, greedy))


def test_a_contracts_decoding_is_obeyed(
    opened: Opened, tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    def answered(**chosen: object) -> Observation:
        (seen,) = observed(opened, tiny_bundle, pictures[:1], decoding(**chosen))  # type: ignore[arg-type]
        return seen

    first, again, other = (answered(temperature=5.0, seed=seed, stop=NEVER) for seed in (1, 1, 2))
    assert ids(first) == ids(again) != ids(other)

    plain, unstopped = answered(), answered(stop=NEVER)
    assert plain.stop_reason == "eog"
    assert plain.tokens is not None
    assert (unstopped.stop_reason, len(ids(unstopped))) == ("max_tokens", 8)
    assert ids(unstopped)[: len(plain.tokens)] == ids(plain)
    stopped = answered(stop=(plain.tokens[0].piece,))
    assert (stopped.stop_reason, ids(stopped), stopped.text) == ("eog", ids(plain)[:1], "")

    # A token said before is divided down to a logit of 0: only where every other is below that can
    # it come again.
    penalized = answered(repeat_penalty=1e6, stop=NEVER)
    assert len(set(ids(unstopped))) < len(set(ids(penalized))) <= 8
    assert penalized.evidence == plain.evidence

    # Log-probabilities are the model's whatever is chosen.
    drawn = answered(temperature=50.0, seed=4)
    assert drawn.tokens is not None
    assert drawn.tokens[0].id != plain.tokens[0].id
    assert drawn.tokens[0].logprob < plain.tokens[0].logprob
    assert drawn.tokens[0].top == plain.tokens[0].top
    assert drawn.label_logprobs == plain.label_logprobs

    with pytest.raises(ContractError, match=r"decoding\.stop: 'no such token'"):
        answered(stop=("no such token",))


# Attestations


def test_torchs_attestation_names_versions_threads_and_the_checkpoint(tiny_bundle: Bundle) -> None:
    said = TorchArm(tiny_bundle.checkpoint, CONTRACT, threads=2).attest()
    assert (said.llama_commit, said.settings) == ("", None)
    assert f"torch {torch.__version__}" in said.variant
    assert (said.threads, said.vision_threads) == (2, 2)
    assert said.text_model_sha256 == checkpoints.load(tiny_bundle.checkpoint).sha256


@pytest.mark.parametrize(
    ("batch", "cache"), [(512, "q4_0"), *((7, kind) for kind in get_args(CacheType))]
)
def test_desktops_attestation_says_which_build_files_and_settings_answered(
    batch: int, cache: CacheType, tiny_bundle: Bundle
) -> None:
    """The micro-batch in force is told though nobody set it."""
    runtime = APP.model_copy(update={"batch": batch, "cache_type_k": cache, "cache_type_v": cache})
    with closing(DesktopArm(tiny_bundle, "q8_0", runtime, CONTRACT, "desktop:q8_0+app")) as arm:
        said = arm.attest()
    for sha256, path in (
        (said.text_model_sha256, tiny_bundle.text_model("q8_0")),
        (said.mmproj_sha256, tiny_bundle.mmproj("q8_0")),
    ):
        assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said.llama_commit == LLAMA_COMMIT
    assert said.backends == ["CPU"]
    assert said.settings == RunSettings(
        context=1024,
        batch=batch,
        micro_batch=batch,
        cache_type_k=cache,
        cache_type_v=cache,
        flash_attention=True,
        max_tokens=32,
        decoding=Decoding(),
    )
    assert said.load_ms > 0
    assert said.threads >= 1


@pytest.mark.parametrize(
    ("asked", "cores", "given"), [(0, 1, 1), (0, 2, 2), (0, 8, 4), (0, 64, 6), (3, 64, 3)]
)
def test_threads_follow_the_apps_rule(asked: int, cores: int, given: int) -> None:
    assert Runtime(threads=asked).threads_on(cores) == given


def test_vision_threads_never_outnumber_the_cores() -> None:
    assert [vision_threads(Runtime(vision_threads=4), cores) for cores in (2, 8)] == [2, 4]
