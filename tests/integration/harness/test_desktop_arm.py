"""The desktop arm on the tiny bundle: against PyTorch, against itself, and when things go wrong."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from devices.runner.protocol import Decoding, RunSettings
from devices.runner.source import LLAMA_COMMIT
from fixtures.drifts import bundles as planting
from fixtures.drifts import keys
from harness import bundle as bundles
from harness import contract as contracts
from harness.arms.base import Prepared
from harness.arms.desktop import DesktopArm
from harness.arms.llama_load import resolve_vision_threads
from harness.arms.torch import TorchArm
from harness.bundle import Bundle
from harness.contract import Contract, Prompt, Runtime, Tiling
from harness.errors import BundleError
from harness.records.observation import Observation

CONTRACT = contracts.load("default")


def under(tiling: Tiling) -> Contract:
    return CONTRACT.model_copy(update={"tiling": tiling})


def observed(
    bundle: Bundle,
    pictures: list[Prepared],
    contract: Contract = CONTRACT,
    quant: str = "f16",
    runtime: Runtime | None = None,
) -> list[Observation]:
    chosen = runtime or contract.runtime.reference()
    arm = DesktopArm(bundle, quant, chosen, contract, f"desktop:{quant}")
    try:
        return list(arm.observe(pictures))
    finally:
        arm.close()


def worst(left: Observation, right: Observation) -> float:
    return max(
        abs(left.label_logprobs[label] - right.label_logprobs[label])
        for label in CONTRACT.answer.labels
    )


@pytest.mark.parametrize(("tiling", "image_tokens"), [("single", 4), ("split", 20)])
def test_a_clean_conversion_says_what_pytorch_says(
    tiny_bundle: Bundle, pictures: list[Prepared], tiling: Tiling, image_tokens: int
) -> None:
    contract = under(tiling)
    reference = list(TorchArm(tiny_bundle.checkpoint, contract).observe(pictures))
    candidate = observed(tiny_bundle, pictures, contract)
    for above, below in zip(reference, candidate, strict=True):
        assert below.error is None
        assert below.prompt_ids == above.prompt_ids
        assert below.prompt_ids.count(-1) == below.image_tokens == image_tokens
        assert below.image_tokens == above.image_tokens
        assert below.grid == above.grid
        assert below.pixels_sha256 == above.pixels_sha256
        assert worst(above, below) < 0.01
        assert below.text == above.text
        assert [token.id for token in below.tokens] == [token.id for token in above.tokens]


def test_libmtmd_turns_back_what_the_first_converters_exchanged(
    tiny_bundle: Bundle, pictures: list[Prepared], tmp_path: Path
) -> None:
    """So that the file check may call such an mmproj a remark."""

    def exchange(_keys: keys.Keys, tensors: keys.Tensors) -> None:
        for name in [name for name in tensors if ".ffn_up." in name]:
            other = name.replace("ffn_up", "ffn_down")
            tensors[name], tensors[other] = tensors[other], tensors[name]

    files = planting.mmproj_files(tiny_bundle.path, "f16")
    old = bundles.load(
        planting.planted(tiny_bundle.path, tmp_path / "old", files, keys.rewritten(exchange))
    )
    assert [fault.remark for fault in bundles.faults(old, ["f16"])] == [True]
    for now, before in zip(
        observed(tiny_bundle, pictures[:2]), observed(old, pictures[:2]), strict=True
    ):
        assert now.evidence == before.evidence
        assert now.label_logprobs == before.label_logprobs


def test_the_answers_are_the_models_and_not_a_constant(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    said = {observation.label for observation in observed(tiny_bundle, pictures)}
    assert len(said - {None}) >= 3


def test_an_answer_does_not_depend_on_what_was_asked_before(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    runtime = CONTRACT.runtime
    forward = observed(tiny_bundle, pictures, quant="q8_0", runtime=runtime)
    backward = observed(tiny_bundle, pictures[::-1], quant="q8_0", runtime=runtime)[::-1]
    for first, second in zip(forward, backward, strict=True):
        assert first.tokens == second.tokens
        assert first.label_logprobs == second.label_logprobs
        assert first.evidence == second.evidence


def test_the_apps_runtime_is_a_second_quantization(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    plain = observed(tiny_bundle, pictures)
    app = observed(tiny_bundle, pictures, runtime=CONTRACT.runtime)
    moved = max(worst(one, other) for one, other in zip(plain, app, strict=True))
    assert 1e-4 < moved < 0.5
    assert [one.prompt_ids for one in plain] == [other.prompt_ids for other in app]


def test_a_small_batch_evaluates_the_same_prompt(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    reference = CONTRACT.runtime.reference()
    whole = observed(tiny_bundle, pictures[:2], under("split"))
    cut = observed(
        tiny_bundle, pictures[:2], under("split"), runtime=reference.model_copy(update={"batch": 7})
    )
    for one, other in zip(whole, cut, strict=True):
        assert one.prompt_ids == other.prompt_ids
        assert worst(one, other) < 1e-3


def test_every_stage_of_an_observation_is_filled(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    (first,) = observed(tiny_bundle, pictures[:1], under("split"))
    assert first.stop_reason == "eog"
    assert first.grid == (2, 2)
    assert first.timings_ms is not None
    assert len(first.timings_ms.encode) == 5
    assert len(first.timings_ms.decode) == len(first.tokens) - 1
    assert first.timings_ms.total > first.timings_ms.prefill > 0
    for token in first.tokens:
        assert len(token.top) == 16
        assert token.top[0].id == token.id
        assert token.top[0].logprob == token.logprob
        logprobs = [rival.logprob for rival in token.top]
        assert logprobs == sorted(logprobs, reverse=True)
    assert first.text == "".join(token.piece for token in first.tokens[:-1])
    assert first.label == CONTRACT.answer.read(first.text)


def test_an_answer_cut_at_the_limit_says_so(tiny_bundle: Bundle, pictures: list[Prepared]) -> None:
    limits = CONTRACT.limits.model_copy(update={"max_tokens": 1})
    contract = CONTRACT.model_copy(update={"limits": limits})
    (first,) = observed(tiny_bundle, pictures[:1], contract)
    assert first.stop_reason == "max_tokens"
    assert len(first.tokens) == 1
    assert first.text == first.tokens[0].piece


def test_a_prompt_longer_than_the_context_is_refused_before_it_is_encoded(
    tiny_bundle: Bundle, pictures: list[Prepared]
) -> None:
    prompt = Prompt(text="<__media__>" + " water" * 80)
    contract = CONTRACT.model_copy(update={"prompt": prompt})
    runtime = CONTRACT.runtime.model_copy(update={"context": 64})
    (first,) = observed(tiny_bundle, pictures[:1], contract, runtime=runtime)
    assert first.error is not None
    assert first.error.kind == "context_full"
    assert first.stop_reason == "error"
    assert first.label is None
    assert len(first.prompt_ids) == 87
    assert first.timings_ms is not None
    assert first.timings_ms.encode == []


def test_one_image_that_cannot_be_read_leaves_the_others_answered(
    tiny_bundle: Bundle, pictures: list[Prepared], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(pictures[0].pixels_path.read_bytes()[:300])
    bad = replace(pictures[0], pixels_path=damaged)
    before, middle, after = observed(tiny_bundle, [pictures[0], bad, pictures[0]])
    assert middle.error is not None
    assert middle.error.kind == "image_decode"
    assert middle.tokens == []
    assert after.tokens == before.tokens


@pytest.mark.parametrize("half", ["text", "mmproj"])
def test_a_gguf_that_cannot_be_loaded_is_one_line(
    half: str, tiny_bundle: Bundle, pictures: list[Prepared], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_bundle.path, folder)
    copy = bundles.load(folder)
    path = copy.text_model("q4_0") if half == "text" else copy.mmproj("q4_0")
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(BundleError) as caught:
        observed(copy, pictures[:1], quant="q4_0")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_llama_cpp_writes_nothing_on_the_terminal(
    tiny_bundle: Bundle, pictures: list[Prepared], capfd: pytest.CaptureFixture[str]
) -> None:
    observed(tiny_bundle, pictures[:1], quant="q8_0", runtime=CONTRACT.runtime)
    assert capfd.readouterr() == ("", "")


def test_the_attestation_says_which_build_and_which_files_answered(tiny_bundle: Bundle) -> None:
    arm = DesktopArm(tiny_bundle, "q8_0", CONTRACT.runtime, CONTRACT, "desktop:q8_0+app")
    attestation = arm.attest()
    arm.close()
    text = tiny_bundle.text_model("q8_0").read_bytes()
    assert attestation.text_model_sha256 == hashlib.sha256(text).hexdigest()
    mmproj = tiny_bundle.mmproj("q8_0").read_bytes()
    assert attestation.mmproj_sha256 == hashlib.sha256(mmproj).hexdigest()
    assert attestation.llama_commit == LLAMA_COMMIT
    assert attestation.backends == ["CPU"]
    assert attestation.settings == RunSettings(
        context=1024,
        batch=512,
        micro_batch=512,
        cache_type_k="q4_0",
        cache_type_v="q4_0",
        flash_attention=True,
        max_tokens=32,
        decoding=Decoding(),
    )
    assert attestation.load_ms > 0
    assert attestation.threads >= 1


def test_the_micro_batch_in_force_is_told_though_nobody_set_it(tiny_bundle: Bundle) -> None:
    runtime = CONTRACT.runtime.model_copy(update={"batch": 7})
    arm = DesktopArm(tiny_bundle, "q8_0", runtime, CONTRACT, "desktop:q8_0+app")
    settings = arm.attest().settings
    arm.close()
    assert settings is not None
    assert (settings.batch, settings.micro_batch) == (7, 7)


@pytest.mark.parametrize(
    ("asked", "cores", "given"), [(0, 1, 1), (0, 2, 2), (0, 8, 4), (0, 64, 6), (3, 64, 3)]
)
def test_threads_follow_the_apps_rule(asked: int, cores: int, given: int) -> None:
    assert Runtime(threads=asked).threads_on(cores) == given


def test_vision_threads_never_outnumber_the_cores() -> None:
    assert resolve_vision_threads(4, 2) == 2
    assert resolve_vision_threads(4, 8) == 4
