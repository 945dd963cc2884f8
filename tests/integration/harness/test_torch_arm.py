"""The torch arm on the trained tiny checkpoint."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from fixtures import tiny
from harness import checkpoint as checkpoints
from harness import contract as contracts
from harness.arms.base import Prepared
from harness.arms.torch import TorchArm
from harness.contract import Contract, Tiling
from harness.preprocess import pixels_sha256
from harness.records.observation import Observation

DEFAULT = contracts.load("default")


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    return tiny.checkpoint()


def _cases(folder: Path, contract: Contract, count: int) -> list[tuple[Prepared, str]]:
    cases = []
    textures = islice(tiny.held_out(), count)
    for index, (pixels, label) in enumerate(tiny.prepared(textures, contract)):
        path = folder / f"{index}.png"
        pixels.save(path)
        session, position = divmod(index, contract.limits.images_per_session)
        prepared = Prepared(f"case-{index}", session, position, path, pixels_sha256(pixels))
        cases.append((prepared, label))
    return cases


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    folder = tmp_path_factory.mktemp("six")
    return [prepared for prepared, _ in _cases(folder, DEFAULT, 6)]


def _observed(checkpoint: Path, contract: Contract, cases: list[Prepared]) -> list[Observation]:
    return list(TorchArm(checkpoint, contract).observe(cases))


@pytest.fixture(scope="module")
def observed(checkpoint: Path, six: list[Prepared]) -> list[Observation]:
    return _observed(checkpoint, DEFAULT, six)


def _accuracy(checkpoint: Path, contract: Contract, folder: Path, count: int) -> float:
    cases = _cases(folder, contract, count)
    observations = _observed(checkpoint, contract, [prepared for prepared, _ in cases])
    pairs = zip(observations, cases, strict=True)
    return sum(seen.label == label for seen, (_, label) in pairs) / len(cases)


def test_held_out_textures_are_right_in_90_to_98_of_100_cases(
    checkpoint: Path, tmp_path: Path
) -> None:
    assert 0.90 <= _accuracy(checkpoint, DEFAULT, tmp_path, 100) <= 0.98


def test_red_and_blue_exchanged_cost_many_answers(checkpoint: Path, tmp_path: Path) -> None:
    assert _accuracy(checkpoint, contracts.load("as-shipped"), tmp_path, 40) < 0.75


def test_every_field_of_an_observation_is_filled(
    observed: list[Observation], six: list[Prepared]
) -> None:
    for seen, case in zip(observed, six, strict=True):
        assert (seen.case_id, seen.session, seen.position) == (
            case.case_id,
            case.session,
            case.position,
        )
        assert seen.pixels_sha256 == case.pixels_sha256
        assert (seen.grid, seen.image_tokens) == ((0, 0), 4)
        assert seen.prompt_ids.count(-1) == 4
        assert set(seen.label_logprobs) == set(DEFAULT.answer.labels)
        assert seen.label == seen.text
        assert seen.stop_reason == "eog"
        assert seen.error is None
        assert seen.timings_ms is not None
        assert len(seen.timings_ms.encode) == 1
        assert len(seen.timings_ms.decode) == len(seen.tokens) - 1
        assert seen.conditions.load_ms is not None
        assert seen.evidence.pixels is not None
        assert seen.evidence.pixels.shape == (1, 3, 128, 128)
        assert seen.evidence.embed is not None
        assert seen.evidence.embed.shape == (4, 96)
        assert seen.evidence.prefill is not None
        assert len(seen.evidence.prefill.shape) == 1


def test_tokens_are_greedy_with_16_rivals_in_falling_order(observed: list[Observation]) -> None:
    for token in (token for seen in observed for token in seen.tokens):
        logprobs = [rival.logprob for rival in token.top]
        assert len(logprobs) == 16
        assert logprobs == sorted(logprobs, reverse=True)
        assert (token.id, token.logprob) == (token.top[0].id, logprobs[0])
        assert sum(map(math.exp, logprobs)) <= 1 + 1e-9


def test_the_end_token_is_recorded_but_is_no_text(observed: list[Observation]) -> None:
    assert observed[0].tokens[-1].piece == "<end_of_utterance>"
    assert "<end_of_utterance>" not in observed[0].text
    assert "".join(token.piece for token in observed[0].tokens[:-1]) == observed[0].text


@pytest.mark.parametrize("tiling", ["single", "split"])
def test_tokens_equal_those_of_transformers_own_generate(
    checkpoint: Path, six: list[Prepared], tiling: Tiling
) -> None:
    contract = DEFAULT.model_copy(update={"tiling": tiling})
    opened = checkpoints.load(checkpoint)
    model, processor = checkpoints.load_model(opened), checkpoints.load_processor(opened)
    text = "<image>" + DEFAULT.prompt.text.removeprefix(DEFAULT.prompt.marker)
    for seen in _observed(checkpoint, contract, six):
        with Image.open(six[seen.session * 3 + seen.position].pixels_path) as image:
            inputs = processor(
                text=text,
                images=[image],
                do_image_splitting=tiling == "split",
                return_tensors="pt",
            )
        inputs.pop("mm_token_type_ids", None)
        ids = inputs["input_ids"][0].tolist()
        with torch.inference_mode():
            whole = model.generate(**inputs, do_sample=False, max_new_tokens=32)[0].tolist()
            # In f32 the sum over 49280 tokens alone would be off by 1e-4.
            logprobs = model(**inputs).logits[0, -1].double().log_softmax(-1)
        image_id = model.config.image_token_id
        assert seen.prompt_ids == [-1 if token == image_id else token for token in ids]
        assert [token.id for token in seen.tokens] == whole[len(ids) :]
        for label, logprob in seen.label_logprobs.items():
            (first, *_) = processor.tokenizer.encode(label, add_special_tokens=False)
            assert logprob == pytest.approx(float(logprobs[first]), abs=1e-5)


def test_split_tiling_sees_four_tiles_and_the_overview(
    checkpoint: Path, six: list[Prepared]
) -> None:
    contract = DEFAULT.model_copy(update={"tiling": "split"})
    (seen, *_) = _observed(checkpoint, contract, six[:1])
    assert (seen.grid, seen.image_tokens) == ((2, 2), 20)
    assert seen.timings_ms is not None
    assert len(seen.timings_ms.encode) == 5


def test_two_runs_give_equal_answers_to_the_last_bit(
    checkpoint: Path, six: list[Prepared], observed: list[Observation]
) -> None:
    again = _observed(checkpoint, DEFAULT, six)
    timeless = {"timings_ms": None, "conditions": observed[0].conditions}
    assert [seen.model_copy(update=timeless) for seen in again] == [
        seen.model_copy(update=timeless) for seen in observed
    ]


def test_an_answer_stops_at_the_contracts_limit(checkpoint: Path, six: list[Prepared]) -> None:
    contract = DEFAULT.model_copy(
        update={"limits": DEFAULT.limits.model_copy(update={"max_tokens": 1})}
    )
    (seen,) = _observed(checkpoint, contract, six[:1])
    assert (len(seen.tokens), seen.stop_reason) == (1, "max_tokens")
    assert seen.text == seen.tokens[0].piece


def test_a_file_that_is_no_image_is_a_fault_of_its_case_alone(
    checkpoint: Path, six: list[Prepared], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(six[0].pixels_path.read_bytes()[:300])
    case = Prepared("broken", 0, 0, broken, "")
    first, second = _observed(checkpoint, DEFAULT, [case, six[1]])
    assert first.error is not None
    assert first.error.kind == "image_decode"
    assert (first.label, first.stop_reason) == (None, "error")
    assert second.error is None


def test_the_attestation_names_versions_threads_and_the_checkpoint(checkpoint: Path) -> None:
    said = TorchArm(checkpoint, DEFAULT, threads=2).attest()
    assert said.llama_commit == ""
    assert f"torch {torch.__version__}" in said.variant
    assert (said.threads, said.vision_threads) == (2, 2)
    assert said.settings is None
    assert said.text_model_sha256 == checkpoints.load(checkpoint).sha256
