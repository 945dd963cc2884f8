"""Labels from an endpoint: faults that pass are waited out, all else stops, nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driftloop.harness import contract as contracts
from driftloop.harness import dataset as data
from driftloop.harness.dataset import Dataset, assemble
from driftloop.harness.dataset.label_endpoint import Endpoint, Outcome, label, read_label, text_of
from driftloop.harness.dataset.prepare import prepare
from driftloop.harness.errors import DatasetError, EndpointFailed, EndpointRefused
from tests.integration.harness.dataset.conftest import Reply, ScriptedServer

CONTRACT = contracts.load("default")
QUESTION = text_of(CONTRACT.prompt), 32
KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_API_KEY", KEY)


def _label(
    dataset: Dataset,
    server: ScriptedServer,
    *,
    model: str = "seer",
    retries: int = 4,
    timeout_s: float = 30,
    concurrency: int = 1,
    per_minute: float | None = None,
    relabel: bool = False,
) -> Outcome:
    endpoint = Endpoint(server.url, model, retries=retries, timeout_s=timeout_s)
    pace = {"concurrency": concurrency, "per_minute": per_minute}
    return label(dataset.folder, endpoint, *QUESTION, **pace, relabel=relabel)


def _error(status: int, message: str) -> Reply:
    return Reply(status, json.dumps({"error": {"message": message}}))


def test_the_squares_themselves_are_sent_and_the_record_says_so(
    dataset: Dataset, server: ScriptedServer
) -> None:
    outcome = _label(dataset, server, concurrency=3)
    sent = {asked.pixels_sha256 for asked in server.asked}
    assert sent == {entry.pixels_sha256 for entry in dataset.entries}
    for entry in data.load(dataset.folder).entries:
        assert (entry.label, entry.label_source) == ("fire", "endpoint")
        assert entry.label_image_sha256 == entry.pixels_sha256
    assert outcome.asked == 6
    body, asked = server.asked[0].body, server.asked[0]
    assert (asked.path, asked.key) == ("/v1/chat/completions", KEY)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("seer", 32, 0)
    text = body["messages"][0]["content"][1]["text"]
    assert text.startswith("Classify this image")
    assert text.endswith("Element:")
    assert KEY not in (dataset.folder / "labels.jsonl").read_text()


def test_faults_that_pass_are_waited_out(dataset: Dataset, server: ScriptedServer) -> None:
    faults = {
        0: Reply(429, "{}", {"Retry-After": "1"}),
        1: Reply(500, "oops"),
        3: Reply(0),
        4: Reply(503, "{}"),
    }
    server.script = lambda count: faults.get(count, Reply.saying("wood"))
    outcome = _label(dataset, server)
    assert {entry.label for entry in outcome.dataset.entries} == {"wood"}
    assert len(server.asked) == len(faults) + 6
    assert server.asked[1].at - server.asked[0].at >= 1


@pytest.mark.parametrize(
    ("reply", "kind", "fragment", "requests"),
    [
        (_error(401, f"bad key {KEY}"), EndpointRefused, "DRIFTLOOP_API_KEY", 1),
        (Reply(403, "{}"), EndpointRefused, "may not use this model", 1),
        (Reply(404, "{}"), EndpointRefused, "check --model", 1),
        (_error(400, "no images here"), EndpointRefused, "no images here", 1),
        (Reply(422, "{}"), EndpointRefused, "422", 1),
        (Reply(429, "{}"), EndpointFailed, "429", 3),
        (Reply(500, "<html>\nboom</html>"), EndpointFailed, "500", 3),
        (Reply(0), EndpointFailed, "cannot be reached", 3),
        (Reply.saying("fire", after_s=1), EndpointFailed, "no answer in time", 3),
        (Reply(200, "<html>welcome</html>"), EndpointFailed, "no chat completion", 1),
        (Reply(200, '{"choices": []}'), EndpointFailed, "no chat completion", 1),
        (Reply(200, "fire", {"Content-Type": "text/plain"}), EndpointFailed, "completion", 1),
    ],
)  # fmt: skip
def test_a_fault_that_stays_stops_in_one_line_and_keeps_what_was_done(
    reply: Reply,
    kind: type[Exception],
    fragment: str,
    requests: int,
    dataset: Dataset,
    server: ScriptedServer,
) -> None:
    server.script = lambda count: Reply.saying("metal") if count < 2 else reply
    with pytest.raises(kind) as failure:
        _label(dataset, server, retries=2, timeout_s=0.5)
    assert fragment in str(failure.value)
    assert "\n" not in str(failure.value)
    assert KEY not in str(failure.value)
    assert len(server.asked) == 2 + requests
    labelled = data.load(dataset.folder).labelled
    assert [entry.label for entry in labelled] == ["metal", "metal"]


def test_the_next_call_asks_only_what_has_no_answer(
    dataset: Dataset, server: ScriptedServer
) -> None:
    server.script = lambda count: Reply.saying("metal") if count < 2 else Reply(401, "{}")
    with pytest.raises(EndpointRefused):
        _label(dataset, server)
    server.script = lambda _: Reply.saying("land")
    assert _label(dataset, server).asked == 4
    answered = [asked.pixels_sha256 for asked in (*server.asked[:2], *server.asked[3:])]
    assert len(set(answered)) == len(answered) == 6


def test_answers_that_are_no_label_are_kept_counted_and_not_guessed_at(
    dataset: Dataset, server: ScriptedServer
) -> None:
    answers = ["It is fire.", "Fire.", None, "firewood", " **Wood**\n", "It is fire."]
    server.script = lambda count: Reply.saying(answers[count])
    outcome = _label(dataset, server)
    assert [entry.label for entry in outcome.dataset.labelled] == ["fire", "wood"]
    assert outcome.unread == {"It is fire.": 2, "": 1, "firewood": 1}
    lines = (dataset.folder / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == [one or "" for one in answers]
    assert _label(dataset, server).asked == 0
    server.script = lambda _: Reply.saying("metal")
    assert _label(dataset, server, model="another").asked == 4


def test_the_same_pixels_are_asked_about_once(
    dataset: Dataset, server: ScriptedServer, pictures: Path, tmp_path: Path
) -> None:
    rows = "\n".join(["image", *[str(pictures / "0.png")] * 3, str(pictures / "1.png")])
    (tmp_path / "twice.csv").write_text(rows)
    settings = assemble.read(dataset.folder)
    prepare(str(tmp_path / "twice.csv"), dataset.folder, dataset.pixels, settings, workers=1)
    outcome = _label(dataset, server)
    assert len(server.asked) == outcome.asked == 2
    assert len(outcome.dataset.labelled) == 4


def test_relabelling_replaces_labels_and_requests_begin_no_faster_than_the_rate(
    dataset: Dataset, server: ScriptedServer
) -> None:
    _label(dataset, server, concurrency=4, per_minute=600)
    begun = [asked.at for asked in server.asked]
    assert begun[-1] - begun[0] >= 0.45
    server.script = lambda count: Reply.saying("wood" if count % 2 else "who knows")
    outcome = _label(dataset, server, model="another", relabel=True)
    assert outcome.asked == 6
    labels = sorted(str(entry.label) for entry in outcome.dataset.entries)
    assert labels == ["fire"] * 3 + ["wood"] * 3


def test_a_square_that_was_changed_is_not_sent_and_no_address_is_asked(
    dataset: Dataset, server: ScriptedServer
) -> None:
    dataset.entries[0].square().rotate(90).save(dataset.entries[0].path)
    with pytest.raises(DatasetError, match="missing or changed"):
        _label(dataset, server)
    assert not server.asked
    with pytest.raises(EndpointRefused, match="no http"):
        Endpoint("localhost:8000", "seer")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [("fire", "fire"), ("Fire.\n", "fire"), ('"WOOD"', "wood"), ("fire wood", None), ("", None)],
)
def test_only_the_label_alone_is_an_answer(answer: str, wanted: str | None) -> None:
    assert read_label(answer, CONTRACT.answer.labels) == wanted
