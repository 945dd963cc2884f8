"""The rung `app`: what an app says of itself, on the ladder beside the runner's own answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from devices.phone import Phone
from fixtures import textures
from harness import contract as contracts
from harness.arms.app import AppLine
from harness.bundle import Bundle
from harness.comparison.blame import Blame
from harness.errors import BadInput
from harness.judgement.verdict import Verdict
from harness.preprocess import prepare_case
from harness.progress import Unseen
from harness.records.journal import RunFolder
from harness.running.request import RunRequest
from harness.running.run import evaluate

IMAGES = 9
DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = "desktop:q8_0+app"
PHONE = "phone:q8_0+app"
CONTRACT = contracts.load("default")

Lines = list[dict[str, Any]]
Change = Callable[[Lines, Path], None]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    textures.save(folder, IMAGES, seed=23)
    return folder


def answers_of(bundle: Path, images: Path, out: Path, contract: Path | None = None) -> Lines:
    """The app's lines as an app that is the reference would write them, pixels included."""
    request = RunRequest(
        bundle, str(images), out / "own", arms=(REFERENCE,), fixed=IMAGES,
        contract=str(contract) if contract else None,
    )  # fmt: skip
    evaluate(request, Unseen())
    under = contracts.load(str(contract)) if contract else CONTRACT
    lines = []
    for seen in RunFolder(request.out).read():
        if seen.canary is not None:
            continue
        dump = out / f"{Path(seen.case_id).stem}.rgb"
        dump.write_bytes(prepare_case(images / seen.case_id, under.pixels).tobytes())
        lines.append(
            {
                "image": seen.case_id,
                "text": seen.text,
                "pixels": dump.name,
                "grid": seen.grid,
                "image_tokens": seen.image_tokens,
                "prompt_ids": seen.prompt_ids,
                "token_ids": [token.id for token in seen.tokens or ()],
                "label_logprobs": seen.label_logprobs,
            }
        )
    return lines


def judged(bundle: Path, images: Path, out: Path, lines: Lines) -> Verdict:
    """What a run says of an app that wrote these lines."""
    file = out / "app.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    request = RunRequest(
        bundle, str(images), out / "run", arms=(REFERENCE, "app"), app=file, fixed=IMAGES
    )
    return evaluate(request, Unseen()).verdict


@pytest.fixture(scope="module")
def own(tiny_bundle: Bundle, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the reference's own answers as an app's lines."""
    folder = tmp_path_factory.mktemp("own")
    lines = answers_of(tiny_bundle.path, images, folder)
    (folder / "lines.json").write_text(json.dumps(lines))
    return folder


@pytest.fixture
def lines(own: Path, tmp_path: Path) -> Lines:
    """The reference's own answers, to change; their dumps lie beside the test's app file."""
    for dump in own.glob("*.rgb"):
        (tmp_path / dump.name).write_bytes(dump.read_bytes())
    copied: Lines = json.loads((own / "lines.json").read_text())
    return copied


def test_an_app_that_answers_as_the_runner_is_clean(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    verdict = judged(tiny_bundle.path, images, tmp_path, lines)
    (hop,) = verdict.hops
    assert (hop.name, hop.reference, hop.candidate) == ("app", REFERENCE, "app")
    assert hop.blames == ()
    for equal in (hop.pixels_equal, hop.prompt_ids_equal, hop.tokens_equal, hop.grid_equal):
        assert (equal.count, equal.of) == (IMAGES, IMAGES)
    assert not [gate for gate in verdict.gates if gate.outcome == "fail"]
    assert not verdict.undelivered


def test_what_the_app_does_not_say_is_equal_to_nothing(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    said = [{"image": line["image"], "text": line["text"]} for line in lines]
    verdict = judged(tiny_bundle.path, images, tmp_path, said)
    (hop,) = verdict.hops
    for equal in (hop.pixels_equal, hop.prompt_ids_equal, hop.tokens_equal, hop.grid_equal):
        assert equal.of == 0
    assert hop.agreement == 1.0
    (note,) = [note for note in verdict.notes if note.startswith("app: not told")]
    assert all(what in note for what in ("pixels", "prompt ids", "generated ids", "probabilities"))


def _bgr(lines: Lines, folder: Path) -> None:
    for line in lines:
        dump = folder / line["pixels"]
        dump.write_bytes(
            np.frombuffer(dump.read_bytes(), np.uint8).reshape(-1, 3)[:, ::-1].tobytes()
        )


def _sixty_four(lines: Lines, folder: Path) -> None:
    for line in lines:
        dump = folder / line["pixels"]
        square = Image.frombytes("RGB", (256, 256), dump.read_bytes())
        dump.write_bytes(square.resize((64, 64)).tobytes())


def _another_prompt(lines: Lines, _folder: Path) -> None:
    for line in lines:
        line["prompt_ids"] = [*line["prompt_ids"][:-1], 2, line["prompt_ids"][-1]]


def _another_cache(lines: Lines, _folder: Path) -> None:
    for line in lines:
        line["label_logprobs"] = {
            label: value - 0.9 * (index + 1)
            for index, (label, value) in enumerate(line["label_logprobs"].items())
        }


def _another_rule(lines: Lines, _folder: Path) -> None:
    for line in lines:
        line["label"] = "fire" if "water" in line["text"] else "water"


def _cut_short(lines: Lines, _folder: Path) -> None:
    for line in lines:
        line["token_ids"] = line["token_ids"][:1]
        line["text"] = line["text"][:3]


@pytest.mark.parametrize(
    ("change", "stage", "words"),
    [
        (_bgr, "resize", "bgr"),
        (_sixty_four, "resize", "its pixels are"),
        (_another_prompt, "tokens", "ids instead of"),
        (_another_cache, "prefill", "nats"),
        (_another_rule, "label", "as another label"),
        (_cut_short, "decode", "ends answers early"),
    ],
)
def test_a_difference_is_blamed_at_its_stage_on_the_hop_app(
    change: Change,
    stage: str,
    words: str,
    tiny_bundle: Bundle,
    images: Path,
    lines: Lines,
    tmp_path: Path,
) -> None:
    change(lines, tmp_path)
    first: Blame = judged(tiny_bundle.path, images, tmp_path, lines).blames[0]
    assert (first.hop, first.stage) == ("app", stage), first.sentence
    assert words in first.sentence


def test_the_lines_and_their_dumps_are_pulled_from_the_phone_that_the_app_ran_on(
    tiny_bundle: Bundle, images: Path, lines: Lines, phone: Phone, tmp_path: Path
) -> None:
    _bgr(lines, tmp_path)
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    remote = "/data/local/tmp/an app's/lines.jsonl"
    phone.push_bytes(text.encode(), remote)
    for line in lines:
        phone.push(tmp_path / line["pixels"], f"/data/local/tmp/an app's/{line['pixels']}")
    request = RunRequest(
        tiny_bundle.path, str(images), tmp_path / "run", phones=(phone.serial,),
        arms=(REFERENCE, PHONE, "app"), app_pull=remote, fixed=IMAGES,
    )  # fmt: skip
    verdict = evaluate(request, Unseen()).verdict
    platform, app = verdict.hops
    assert platform.blames == ()
    assert (app.reference, app.reference_phone) == (PHONE, phone.serial)
    assert "bgr" in app.blames[0].sentence
    again = evaluate(request, Unseen()).verdict
    assert again.blames == verdict.blames


def test_another_model_than_the_bundle_s_is_blamed_though_no_answer_shows_it(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    for line in lines:
        line["mmproj_sha256"] = "0" * 64
    verdict = judged(tiny_bundle.path, images, tmp_path, lines)
    assert verdict.verdict == "FAIL"
    assert "mmproj 000000000000, not " in verdict.blames[0].sentence


def test_an_image_that_the_app_never_answered_is_its_fault(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    verdict = judged(tiny_bundle.path, images, tmp_path, lines[1:])
    assert "the app wrote no line" in verdict.blames[0].sentence


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"image": "nowhere.png", "text": "fire"}\n', "line 1: 'nowhere.png' is none of"),
        ('{"image": "IMAGE", "text": "fire"}\n' * 2, "line 2: 'IMAGE' stands on line 1 too"),
        ('{"image": "IMAGE", "te', "line 1: .*torn"),
        ('{"image": "IMAGE"}\n', "line 1: text: Field required"),
        ('{"text": "fire"}\n', "line 1: .*name the image"),
        ('{"image": "IMAGE", "text": "fire", "pixels": "gone.rgb"}\n', "gone.rgb"),
        ('{"image": "IMAGE", "text": "fire", "pixels": "../x"}\n', "no path below"),
        ("\n", "holds no line"),
        ("\x00\x1b[31m\u2028\n", "line 1: "),
    ],
)
def test_lines_that_cannot_be_used_are_refused_in_one_line(
    text: str, says: str, tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    name = next(images.glob("*.png")).name
    file = tmp_path / "app.jsonl"
    file.write_text(text.replace("IMAGE", name))
    request = RunRequest(
        tiny_bundle.path, str(images), tmp_path / "run", arms=(REFERENCE, "app"), app=file
    )
    with pytest.raises(BadInput, match=says.replace("IMAGE", name)) as caught:
        evaluate(request, Unseen())
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_the_lines_is_refused_and_not_waited_for(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "app.jsonl")
    request = RunRequest(
        tiny_bundle.path,
        str(images),
        tmp_path / "run",
        arms=(REFERENCE, "app"),
        app=tmp_path / "app.jsonl",
    )
    with pytest.raises(BadInput, match="is no regular file"):
        evaluate(request, Unseen())


def test_the_documented_format_is_the_one_that_is_read() -> None:
    schema = json.loads((DOCS / "app-observations.schema.json").read_text())
    assert schema == AppLine.model_json_schema()
    for line in (DOCS / "app-observations.example.jsonl").read_text().splitlines():
        assert AppLine.model_validate_json(line).text in CONTRACT.answer.labels
    page = (DOCS / "app-observations.md").read_text()
    assert all(f"`{field}`" in page for field in AppLine.model_fields)
