"""The other side of labelling: servers on the loopback, one scripted and one real."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from driftloop.fixtures import textures
from driftloop.harness.contract import Pixels
from driftloop.harness.dataset import Dataset
from driftloop.harness.dataset.assemble import Settings
from driftloop.harness.dataset.prepare import prepare


@dataclass(frozen=True)
class Reply:
    """What the scripted server answers; status 0 closes the connection without a word."""

    status: int = 200
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0

    @staticmethod
    def saying(content: str | None, after_s: float = 0) -> Reply:
        """A chat completion."""
        choices = [{"index": 0, "message": {"role": "assistant", "content": content}}]
        return Reply(
            body=json.dumps({"object": "chat.completion", "choices": choices}), after_s=after_s
        )


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    at: float
    path: str
    key: str
    body: dict[str, Any]

    @property
    def pixels_sha256(self) -> str:
        """Of the image in it."""
        url = self.body["messages"][0]["content"][0]["image_url"]["url"]
        head, _, data = url.partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            return hashlib.sha256(image.tobytes()).hexdigest()


class ScriptedServer:
    """An HTTP server whose next reply `script` decides, given how many came before."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: Callable[[int], Reply] = lambda _: Reply.saying("fire")
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                with outer._lock:
                    reply = outer.script(len(outer.asked))
                    outer.asked.append(Asked(time.monotonic(), self.path, key, body))
                time.sleep(reply.after_s)
                if not reply.status:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body.encode())))
                self.end_headers()
                self.wfile.write(reply.body.encode())

            def log_message(self, *args: object) -> None:
                del args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that says `fire` until it is told otherwise."""
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six textures without a label."""
    folder = tmp_path_factory.mktemp("unlabelled")
    for number, item in enumerate(textures.textures(6, seed=21)):
        item.image.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def dataset(pictures: Path, tmp_path: Path) -> Dataset:
    """`pictures`, prepared."""
    settings = Settings(labels=textures.ELEMENTS, held_out=0.2)
    return prepare(str(pictures), tmp_path / "dataset", Pixels(), settings, workers=1).dataset
