"""Labels from llama-cpp-python's own OpenAI server, which runs the tiny bundle."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.fixtures import demo
from driftloop.harness import contract as contracts
from driftloop.harness.dataset import Dataset
from driftloop.harness.dataset.label_endpoint import Endpoint, label, read_label, text_of
from driftloop.harness.errors import EndpointRefused

KEY = "local-key"
PROMPT, MAX_TOKENS = text_of(contracts.load("default").prompt), 8
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '' if loop.first else '\n' }}{{ part['text'] }}{% endfor %}{% endfor %}"
)
"""The contract's prompt as a chat template: the image, a line break, the text."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    bundle = demo.bundle(print)
    folder = tmp_path_factory.mktemp("server")
    text = folder / "text.gguf"
    change = [str(Path(sys.executable).with_name("gguf-new-metadata")), "--chat-template", TEMPLATE]
    subprocess.run(
        [*change, str(bundle / "text-f16.gguf"), str(text)], check=True, capture_output=True
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "model": text,
        "clip_model_path": bundle / "mmproj-f16.gguf",
        "chat_format": "mtmd",
        "model_alias": "tiny",
        "api_key": KEY,
        "n_ctx": 1024,
        "n_threads": 1,
        "n_threads_batch": 1,
        "host": "127.0.0.1",
        "port": port,
        "verbose": "false",
    }
    command = [sys.executable, "-m", "llama_cpp.server"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            _wait(port, process, folder / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


def _answer_over_plain_http(url: str, png: bytes) -> str:
    image = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    content = [
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "text", "text": PROMPT},
    ]
    body = {"model": "tiny", "max_tokens": MAX_TOKENS, "temperature": 0}
    body["messages"] = [{"role": "user", "content": content}]
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(  # noqa: S310  (the loopback)
        f"{url}/chat/completions", json.dumps(body).encode(), headers
    )
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        return str(json.load(reply)["choices"][0]["message"]["content"])


def test_a_real_server_labels_the_squares(
    url: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(EndpointRefused, match="401"):
        label(dataset.folder, Endpoint(url, "tiny"), PROMPT, MAX_TOKENS)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    outcome = label(dataset.folder, Endpoint(url, "tiny"), PROMPT, MAX_TOKENS)
    assert outcome.asked == len(dataset.entries)
    assert len(outcome.dataset.labelled) + outcome.unread.total() == len(dataset.entries)
    assert len(outcome.dataset.labelled) >= 2
    for entry in outcome.dataset.labelled:
        assert entry.label_image_sha256 == entry.pixels_sha256
    entry = outcome.dataset.labelled[0]
    answer = _answer_over_plain_http(url, entry.path.read_bytes())
    assert read_label(answer, contracts.load("default").answer.labels) == entry.label
