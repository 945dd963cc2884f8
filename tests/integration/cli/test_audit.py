"""`driftloop audit`, `listen`: silent on the aligned pipeline, and each side's faults."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from driftloop.fixtures import textures, tiny
from driftloop.fixtures.drifts.release import contract
from tests.integration.cli.conftest import Driftloop, width

CONFIG = """\
image_size: 256
padding: black
do_image_splitting: false
mask_prompt: true
append_eos: true
max_new_tokens: 32
do_sample: false
"""
UNIT = Path(__file__).parents[2] / "unit/harness"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures that are no squares."""
    folder = tmp_path_factory.mktemp("photos")
    for index, label in enumerate(("water", "land", "fire", "wood", "metal")):
        (folder / label).mkdir()
        noise = Image.effect_noise((301 + 30 * index, 201), 90).convert("RGB")
        noise.save(folder / label / "one.png")
    return folder


def mismatches(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By aspect."""
    return {row["aspect"]: row for row in document["rows"] if row["match"] is False}


def test_the_aligned_pipeline_has_no_mismatch(
    driftloop: Driftloop, bundle: Path, tmp_path: Path
) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(CONFIG)
    document = driftloop.json(
        *("audit", "--dataset", tiny.dataset(), "--checkpoint", tiny.checkpoint()),
        *("--bundle", bundle, "--train-config", config),
        *("--collator", "driftloop.harness.training.dataset:collate"),
    )
    assert mismatches(document) == {}
    assert document["verdict"] == "ALIGNED"
    sides = {"dataset", "checkpoint", "bundle", "train-config", "collator"}
    assert {row["side"] for row in document["rows"]} == sides
    keys = {"aspect", "contract", "found", "where", "match", "impact"}
    assert all(keys <= set(row) for row in document["rows"])


@pytest.mark.parametrize(
    ("recipe", "faults"), [("android", set()), ("training-lanczos", {"resize", "centring"})]
)
def test_a_dataset_prepared_here_is_compared_with_its_sources(
    recipe: str, faults: set[str], driftloop: Driftloop, photos: Path, tmp_path: Path
) -> None:
    driftloop.ok("dataset", "prepare", photos, tmp_path / "set", "--recipe", recipe)
    # A prepared dataset alone tells neither prompt nor sampling.
    status = 1 if faults else 3
    arguments = ("audit", "--dataset", tmp_path / "set", "--sources", photos)
    found = mismatches(driftloop.json(*arguments, status=status))
    assert faults <= set(found)
    for aspect in faults:
        assert "compared with their sources" in found[aspect]["where"]
        assert "levels" in found[aspect]["impact"]


def test_mismatches_are_measured_worst_first_and_all_together_last(
    driftloop: Driftloop, tmp_path: Path
) -> None:
    textures.save(tmp_path / "pictures", 10, seed=77)
    (tmp_path / "train.toml").write_text(
        'channel_order = "bgr"\nmax_new_tokens = 128\npadding_color = "white"\n', "utf-8"
    )
    said = driftloop.ok(
        *("audit", "--train-config", tmp_path / "train.toml", "--checkpoint", tiny.checkpoint()),
        *("--measure", tmp_path / "pictures" / "labels.csv"),
        status=1,
    ).stdout
    table = said[said.index("measured, worst first") :]
    places = [table.index(one) for one in ("order: bgr", "max tokens: 128", "all together")]
    assert places == sorted(places)
    assert width(said) <= 80


def test_an_mmproj_of_another_checkpoint_is_named_with_its_tensors(
    driftloop: Driftloop, bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "base"
    shutil.copytree(tiny.checkpoint(), other)
    weights = load_file(other / "model.safetensors")
    name = "model.vision_model.encoder.layers.0.self_attn.q_proj.weight"
    weights[name] = weights[name][::-1].copy()
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    document = driftloop.json("audit", "--bundle", bundle, "--checkpoint", other, status=1)
    assert "v.blk.0.attn_q.weight" in mismatches(document)["mmproj"]["note"]


def test_a_prompt_longer_than_the_context_is_counted_in_tokens(
    driftloop: Driftloop, bundle: Path, tmp_path: Path
) -> None:
    small = contract(
        {"runtime": {"context": 64}, "limits": {"max_tokens": 40}}, tmp_path / "small.toml"
    )
    document = driftloop.json("audit", "--bundle", bundle, "--contract", small, status=1)
    assert "32 prompt tokens" in mismatches(document)["prompt_fits"]["note"]


@pytest.mark.parametrize(("form", "out"), [("jsonl", "train.jsonl"), ("hf", "hf")])
def test_an_exported_dataset_is_read_in_both_forms(
    form: str, out: str, driftloop: Driftloop, photos: Path, tmp_path: Path
) -> None:
    """The record of the app's guide spells libmtmd's marker out, which is a mismatch."""
    driftloop.ok("dataset", "prepare", photos, tmp_path / "set")
    driftloop.ok("dataset", "export", tmp_path / "set", tmp_path / out, "--format", form)
    document = driftloop.json("audit", "--dataset", tmp_path / out, status=1)
    assert set(mismatches(document)) == {"marker"}


def test_an_export_with_the_models_own_image_token_is_aligned(
    driftloop: Driftloop, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "train.jsonl"
    driftloop("dataset", "prepare", photos, tmp_path / "set")
    driftloop("dataset", "export", tmp_path / "set", out, "--image-token", "<image>")
    document = driftloop.json("audit", "--dataset", out, "--checkpoint", tiny.checkpoint())
    assert (document["verdict"], document["missing"]) == ("ALIGNED", [])
    markers = [row["found"] for row in document["rows"] if row["aspect"] == "marker"]
    assert markers[0] == "image token"


def test_an_app_is_unread_until_what_it_leaves_open_is_settled(
    driftloop: Driftloop, tmp_path: Path
) -> None:
    folder = shutil.copytree(UNIT / "audit/app/apps/as_shipped", tmp_path / "app")
    audit = ("audit", "--app-source", folder, "--contract", "as-shipped")
    assert "stock" in driftloop.ok(*audit, status=1).stdout
    for file in folder.rglob("*.kt"):
        text = file.read_text().replace("mmproj-SmolVLM2-500M-Video-Instruct", "mmproj-elements")
        file.write_text(text.replace("elements-smolvlm2-500m", "elements"))
    unread = driftloop.ok(*audit, "--update", status=3).stdout
    assert "image size (app): a line of driftloop-app.toml" in unread
    assert width(unread) <= 80
    settled = folder / "driftloop-app.toml"
    settled.write_text(settled.read_text().replace("# image_size = {", "image_size = {", 1))
    assert "ALIGNED" in driftloop.ok(*audit).stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--train-config", "empty.yaml"),
        ("--app-source", "app"),
        ("--dataset", "pictures"),
        ("--checkpoint", "bare"),
    ],
)
def test_where_nothing_is_read_the_verdict_is_unread(
    options: tuple[str, str], driftloop: Driftloop, tmp_path: Path
) -> None:
    (tmp_path / "empty.yaml").write_text("learning_rate: 0.1\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/A.kt").write_text("class A : B by c() {\n    override fun f() = 1\n}\n")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (256, 256)).save(tmp_path / "pictures/a.png")
    shutil.copytree(tiny.checkpoint(), tmp_path / "bare")
    (tmp_path / "bare/driftloop-training.json").unlink()
    for name in ("processor_config.json", "preprocessor_config.json"):
        settings = tmp_path / "bare" / name
        settings.write_text(settings.read_text().replace('splitting": true', 'splitting": false'))
    option, source = options
    document = driftloop.json("audit", option, tmp_path / source, status=3)
    assert document["verdict"] == "UNREAD"
    assert document["missing"]
    assert all(one["supply"] for one in document["missing"])


@pytest.fixture
def app_log(tmp_path: Path) -> Path:
    """A log of an app, but for what its tile's slices say."""
    path = tmp_path / "app.log"
    whole = (UNIT / "listen/logs/llama.cpp-af6528e6d.log").read_text()
    path.write_text("\n".join(line for line in whole.splitlines() if "slice" not in line))
    return path


def test_a_log_that_agrees_with_the_contract_ends_in_0_and_with_another_contract_in_1(
    driftloop: Driftloop, app_log: Path, tmp_path: Path
) -> None:
    driftloop.ok("listen", "--log", app_log)
    other = contract({"runtime": {"cache_type_k": "q8_0"}}, tmp_path / "other.toml")
    wrong = mismatches(driftloop.json("listen", "--log", app_log, "--contract", other, status=1))
    assert set(wrong) == {"cache_type_k"}
    assert "K (q4_0)" in wrong["cache_type_k"]["candidates"][0]["line"]


def test_a_log_outweighs_the_source_in_the_apps_confirmed_values(
    driftloop: Driftloop, app_log: Path, tmp_path: Path
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "jni.cpp").write_text(
        "void load() {\n  params.n_ctx = 4096;\n  params.n_batch = 512;\n}\n"
    )

    def confirmed() -> dict[str, Any]:
        return dict(tomllib.loads((app / "driftloop-app.toml").read_text())["context"])

    driftloop("audit", "--app-source", app)
    assert confirmed()["value"] == 4096
    done = driftloop("listen", "--log", app_log, "--app-source", app)
    assert "context: 4096 is now 1024" in done.stderr
    context = confirmed()
    assert (context["value"], context["at"].partition(":")[0]) == (1024, "app.log")
    rows = driftloop.json("audit", "--app-source", app, status=None)["rows"]
    assert {row["aspect"]: row["match"] for row in rows}["context"] is True
    driftloop("audit", "--app-source", app, "--update")
    assert confirmed() == context
