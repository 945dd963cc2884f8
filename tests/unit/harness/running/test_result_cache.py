import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftloop.devices.runner.protocol import PROTOCOL_VERSION, Decoding, Evidence
from driftloop.harness import contract, ladder
from driftloop.harness.arms.base import Prepared
from driftloop.harness.arms.fingerprint import fingerprint
from driftloop.harness.contract import Contract
from driftloop.harness.records.observation import Observation
from driftloop.harness.running import result_cache
from driftloop.harness.running.result_cache import ResultCache, arm_key

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


@pytest.fixture
def cache(tmp_path: Path) -> ResultCache:
    return ResultCache(key(), tmp_path)


def got(cache: ResultCache, arm: str = ARM, over: Contract = DEFAULT) -> Observation:
    kept = cache.get(prepared(), over, arm)
    assert kept is not None
    return kept


def test_an_answer_comes_back_whole_in_the_place_that_asks(cache: ResultCache) -> None:
    evidence = Evidence(prefill=fingerprint(np.arange(100, dtype=np.float32)))
    cache.put(prepared(), observation(ARM, evidence=evidence))
    kept = got(cache)
    assert (kept.case_id, kept.session, kept.position) == ("another", 5, 2)
    assert kept.contract_sha256 == DEFAULT.sha256
    assert kept.conditions.cached
    assert (kept.tokens, kept.evidence) == (observation().tokens, evidence)


def test_other_pixels_or_another_key_have_no_answer(cache: ResultCache, tmp_path: Path) -> None:
    cache.put(prepared(), observation(ARM))
    assert cache.get(prepared(pixels_sha256="q" * 64), DEFAULT, ARM) is None
    assert ResultCache(key("desktop:f16"), tmp_path).get(prepared(), DEFAULT, ARM) is None


def test_an_error_is_not_kept(cache: ResultCache) -> None:
    cache.put(prepared(), observation(ARM, error=fault()))
    assert cache.get(prepared(), DEFAULT, ARM) is None


def test_a_canary_is_neither_kept_nor_answered_from_what_was_kept(cache: ResultCache) -> None:
    cache.put(prepared(canary="again"), observation(ARM))
    assert cache.get(prepared(), DEFAULT, ARM) is None
    cache.put(prepared(), observation(ARM))
    assert cache.get(prepared(canary="again"), DEFAULT, ARM) is None
    assert got(cache)


def test_an_answer_from_before_the_arms_told_this_evidence_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = key()
    monkeypatch.setattr(result_cache, "PROTOCOL_VERSION", PROTOCOL_VERSION - 1)
    assert key() != now


def test_a_damaged_file_counts_as_none_and_is_written_anew(
    cache: ResultCache, tmp_path: Path
) -> None:
    cache.put(prepared(), observation(ARM))
    (file,) = (tmp_path / key()).iterdir()
    file.write_text(file.read_text()[:50])
    assert cache.get(prepared(), DEFAULT, ARM) is None
    cache.put(prepared(), observation(ARM))
    assert got(cache)


def read_as(reading: str) -> Contract:
    answer = DEFAULT.answer.model_copy(update={"reading": reading})
    return DEFAULT.model_copy(update={"answer": answer})


def test_a_label_is_read_anew_as_the_asking_contract_reads(cache: ResultCache) -> None:
    assert key(over=read_as("word")) == key()
    cache.put(prepared(), observation(ARM, text="firewood", label="fire"))
    assert got(cache, over=read_as("word")).label is None
    assert got(cache).label == "fire"


def test_torch_and_torch_training_share_answers_under_one_contract(tmp_path: Path) -> None:
    assert key("torch:training") == key("torch")
    cache = ResultCache(key("torch"), tmp_path)
    cache.put(prepared(), observation("torch"))
    assert got(cache, "torch:training").arm == "torch:training"


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
    bgr = DEFAULT.pixels.model_copy(update={"channels": "bgr"})
    swapped = DEFAULT.model_copy(update={"pixels": bgr})
    f16_cache = with_runtime(cache_type_k="f16", cache_type_v="f16")
    assert key(over=renamed) == key(over=swapped) == key(over=f16_cache) == key()
    assert key("torch", with_runtime(threads=3)) == key("torch")
    # The app's KV cache matters to the arms that use it.
    assert key("desktop:q8_0+app", f16_cache) != key("desktop:q8_0+app")


def test_another_process_waits_until_the_answers_that_are_being_computed_are_there(
    tmp_path: Path,
) -> None:
    waiting = """
import sys
from pathlib import Path
from driftloop.harness.running.result_cache import ResultCache
print("ready", flush=True)
with ResultCache(sys.argv[1], Path(sys.argv[2])).alone():
    print(len(list(Path(sys.argv[2]).rglob("*.json"))))
"""
    cache = ResultCache(key(), tmp_path)
    command = [sys.executable, "-c", waiting, key(), str(tmp_path)]
    with cache.alone():
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        time.sleep(0.3)
        cache.put(prepared(), observation(ARM))
    assert other.communicate(timeout=30)[0] == "1\n"
