"""What a phone wrote is read as far as it can be believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from driftloop.devices.runner.attempt import whole_lines
from driftloop.devices.runner.protocol import PROTOCOL_VERSION, Finished, ImageResult

ATTESTATION: dict[str, Any] = {
    "record": "attestation", "protocol": PROTOCOL_VERSION, "llama_commit": "0c1e57098",
    "compiler": "clang", "target": "aarch64-linux-musl", "variant": "arm64", "threads": 2,
    "cpu_features_found": [], "cpu_features_used": [], "backends": ["CPU"], "vision_threads": 4,
    "placement": [], "text_model_sha256": "a", "mmproj_sha256": "b", "load_ms": 1.0, "pid": 7,
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "record": "image", "case_id": "a", "session": 0, "position": 0, "pixels_sha256": None,
    "grid": [0, 0], "image_tokens": 4, "prompt_ids": [1, -1, 2], "text": "\u2028 water",
    "tokens": [{"id": 5, "piece": "w", "logprob": -0.1, "top": [{"id": 5, "logprob": -0.1}]}],
    "label_logprobs": {"water": -0.1}, "stop_reason": "eog", "memory_peak_kib": 9, "memory_kib": 8,
    "timings_ms": {"image_decode": 1, "tokenize": 1, "encode": [1], "prefill": 1, "decode": [],
                   "total": 4},
}  # fmt: skip
FINISHED = '{"record":"finished","images":1,"error":null}'


def line(document: dict[str, Any], **changed: object) -> str:
    """As the runner writes it."""
    return json.dumps(document | changed)


def test_lines_are_read_up_to_a_torn_last_one() -> None:
    whole = f"{line(ATTESTATION)}\n{line(ANSWER)}\n"
    (_, answer), size, damage = whole_lines(whole + FINISHED[:20])
    assert (size, damage) == (len(whole), None)
    assert isinstance(answer, ImageResult)
    assert answer.text == "\u2028 water"
    assert whole_lines(whole[size:] + FINISHED + "\n")[0] == [Finished(images=1)]


BAD = {
    "torn": line(ANSWER)[:90],
    "empty": "",
    "byte order mark": "\ufeff" + line(ANSWER),
    "line separator": line(ANSWER).replace("\\u2028", "\u2028"),
    "bytes that are no text": line(ANSWER).replace("water", "w\ufffdter"),
    "another protocol": line(ATTESTATION, protocol=2),
    "unknown record": line(ANSWER, record="picture"),
    "NaN": line(ANSWER, label_logprobs={"water": float("nan")}),
    "NaN as a word": line(ANSWER, label_logprobs={"water": "NaN"}),
    "infinite time": line(ANSWER, timings_ms=ANSWER["timings_ms"] | {"total": float("inf")}),
    "negative time": line(ANSWER, timings_ms=ANSWER["timings_ms"] | {"encode": [-1.0]}),
    "token of 2**70": line(ANSWER, tokens=[ANSWER["tokens"][0] | {"id": 2**70}]),
    "prompt id of 2**70": line(ANSWER, prompt_ids=[2**70]),
    "memory of 2**70": line(ANSWER, memory_kib=2**70),
    "half a surrogate pair": line(ANSWER, text="\ud800"),
    "nested too deep": "[" * 100_000,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_nothing_is_read_from_a_damaged_line_on(bad: str) -> None:
    before = f"{line(ATTESTATION)}\n"
    lines, size, damage = whole_lines(f"{before}{bad}\n{line(ANSWER)}\n{FINISHED}\n")
    assert [one.record for one in lines] == ["attestation"]
    assert size == len(before)
    assert damage
    assert "\n" not in damage
