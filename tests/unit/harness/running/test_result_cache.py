from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.runner.protocol import PROTOCOL_VERSION, Decoding, Evidence
from harness import contract, ladder
from harness.arms.base import Prepared
from harness.arms.fingerprint import fingerprint
from harness.contract import Contract
from harness.running import result_cache
from harness.running.result_cache import ResultCache, arm_key

from ..run_factory import fault, observation

DEFAULT = contract.load("default")
VERSIONS = {"llama-cpp-python": "0.3.36"}
ARM = "desktop:q8_0"


def key(arm: str = ARM, over: Contract = DEFAULT, **changed: object) -> str:
    content: dict[str, Any] = {"file_hashes": ["a", "b"], "versions": VERSIONS} | changed
    return arm_key(ladder.parse(arm), over, **content)


def prepared(**over: object) -> Prepared:
    content: dict[str, Any] = {
        "case_id": "another",
        "session": 5,
        "position": 2,
        "pixels_path": Path("x.png"),
        "pixels_sha256": "p" * 64,
    }
    return Prepared(**(content | over))


def test_an_answer_comes_back_in_the_place_that_asks(tmp_path: Path) -> None:
    cache = ResultCache(key(), tmp_path)
    cache.put(prepared(), observation("desktop:q8_0"))
    kept = cache.get(prepared(), DEFAULT, ARM)
    assert kept is not None
    assert (kept.case_id, kept.session, kept.position) == ("another", 5, 2)
    assert kept.contract_sha256 == DEFAULT.sha256
    assert kept.conditions.cached
    assert kept.tokens == observation().tokens


def test_other_pixels_or_another_key_have_no_answer(tmp_path: Path) -> None:
    cache = ResultCache(key(), tmp_path)
    cache.put(prepared(), observation("desktop:q8_0"))
    assert cache.get(prepared(pixels_sha256="q" * 64), DEFAULT, ARM) is None
    assert ResultCache(key("desktop:f16"), tmp_path).get(prepared(), DEFAULT, ARM) is None


def test_an_error_is_not_kept(tmp_path: Path) -> None:
    cache = ResultCache(key(), tmp_path)
    cache.put(prepared(), observation("desktop:q8_0", error=fault()))
    assert cache.get(prepared(), DEFAULT, ARM) is None


def test_a_canary_is_neither_kept_nor_answered_from_what_was_kept(tmp_path: Path) -> None:
    cache = ResultCache(key(), tmp_path)
    cache.put(prepared(canary="again"), observation("desktop:q8_0"))
    assert cache.get(prepared(), DEFAULT, ARM) is None
    cache.put(prepared(), observation("desktop:q8_0"))
    assert cache.get(prepared(canary="again"), DEFAULT, ARM) is None
    assert cache.get(prepared(), DEFAULT, ARM) is not None


def test_evidence_is_kept_with_the_answer(tmp_path: Path) -> None:
    evidence = Evidence(prefill=fingerprint(np.arange(100, dtype=np.float32)))
    cache = ResultCache(key(), tmp_path)
    cache.put(prepared(), observation("desktop:q8_0", evidence=evidence))
    kept = cache.get(prepared(), DEFAULT, ARM)
    assert kept is not None
    assert kept.evidence == evidence


def test_an_answer_from_before_the_arms_told_this_evidence_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = key()
    monkeypatch.setattr(result_cache, "PROTOCOL_VERSION", PROTOCOL_VERSION - 1)
    assert key() != now


def test_a_damaged_file_counts_as_none_and_is_written_anew(tmp_path: Path) -> None:
    cache = ResultCache(key(), tmp_path)
    cache.put(prepared(), observation("desktop:q8_0"))
    (file,) = (tmp_path / key()).iterdir()
    file.write_text(file.read_text()[:50])
    assert cache.get(prepared(), DEFAULT, ARM) is None
    cache.put(prepared(), observation("desktop:q8_0"))
    assert cache.get(prepared(), DEFAULT, ARM) is not None


def read_as(reading: str) -> Contract:
    answer = DEFAULT.answer.model_copy(update={"reading": reading})
    return DEFAULT.model_copy(update={"answer": answer})


def test_a_label_is_read_anew_as_the_asking_contract_reads(tmp_path: Path) -> None:
    assert key(over=read_as("word")) == key()
    cache = ResultCache(key(), tmp_path)
    cache.put(prepared(), observation(ARM, text="firewood", label="fire"))
    by_word = cache.get(prepared(), read_as("word"), ARM)
    by_containment = cache.get(prepared(), DEFAULT, ARM)
    assert by_word is not None
    assert by_containment is not None
    assert (by_word.label, by_containment.label) == (None, "fire")


def test_torch_and_torch_training_share_answers_under_one_contract(tmp_path: Path) -> None:
    assert key("torch:training") == key("torch")
    cache = ResultCache(key("torch"), tmp_path)
    cache.put(prepared(), observation("torch"))
    kept = cache.get(prepared(), DEFAULT, "torch:training")
    assert kept is not None
    assert kept.arm == "torch:training"


def with_runtime(**runtime: object) -> Contract:
    return DEFAULT.model_copy(update={"runtime": DEFAULT.runtime.model_copy(update=runtime)})


@pytest.mark.parametrize(
    "other",
    [
        key("desktop:f16"),
        key("desktop:q8_0+app"),
        key(file_hashes=["a", "c"]),
        key(versions={"llama-cpp-python": "0.3.37"}),
        key(over=DEFAULT.model_copy(update={"tiling": "split"})),
        key(over=with_runtime(threads=3)),
        key(over=DEFAULT.model_copy(update={"decoding": Decoding(temperature=1.0)})),
        key(over=DEFAULT.model_copy(update={"decoding": Decoding(stop=("fire",))})),
    ],
)
def test_whatever_decides_an_answer_changes_the_key(other: str) -> None:
    assert other != key()


def test_what_decides_no_answer_does_not() -> None:
    renamed = DEFAULT.model_copy(update={"name": "mine"})
    swapped = DEFAULT.model_copy(
        update={"pixels": DEFAULT.pixels.model_copy(update={"channels": "bgr"})}
    )
    f16_cache = with_runtime(cache_type_k="f16", cache_type_v="f16")
    assert key(over=renamed) == key(over=swapped) == key(over=f16_cache) == key()
    assert key("torch", with_runtime(threads=3)) == key("torch")


def test_the_apps_kv_cache_matters_to_the_arms_that_use_it() -> None:
    f16_cache = with_runtime(cache_type_k="f16", cache_type_v="f16")
    assert key("desktop:q8_0+app", f16_cache) != key("desktop:q8_0+app")
