"""`driftloop audit` as users call it: silent on the aligned pipeline, and each side's faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures import textures, tiny
from tests.integration.cli.conftest import Driftloop

CONFIG = """\
image_size: 256
padding: black
do_image_splitting: false
mask_prompt: true
append_eos: true
max_new_tokens: 32
do_sample: false
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "train.yaml"
    path.write_text(CONFIG, "utf-8")
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures that are no squares."""
    folder = tmp_path_factory.mktemp("photos")
    for index, label in enumerate(("water", "land", "fire", "wood", "metal")):
        (folder / label).mkdir()
        noise = Image.effect_noise((301 + 30 * index, 201), 90).convert("RGB")
        noise.save(folder / label / "one.png")
    return folder


def rows_of(stdout: str) -> tuple[str, list[dict[str, Any]]]:
    document = json.loads(stdout)
    return document["verdict"], document["rows"]


def test_the_aligned_pipeline_has_no_mismatch(
    driftloop: Driftloop, bundle: Path, config: Path
) -> None:
    done = driftloop(
        *("audit", "--dataset", tiny.dataset(), "--checkpoint", tiny.checkpoint()),
        *("--bundle", bundle, "--train-config", config),
        *("--collator", "harness.training.dataset:collate", "--json"),
    )
    verdict, rows = rows_of(done.stdout)
    assert [row for row in rows if row["match"] is False] == []
    assert (done.returncode, verdict) == (0, "ALIGNED")
    assert {row["side"] for row in rows} == {
        "dataset",
        "checkpoint",
        "bundle",
        "train-config",
        "collator",
    }
    keys = {"aspect", "contract", "found", "where", "match", "impact"}
    assert all(keys <= set(row) for row in rows)


def test_a_dataset_prepared_here_is_held_against_its_sources(
    driftloop: Driftloop, photos: Path, tmp_path: Path
) -> None:
    for recipe, faults in (("android", set()), ("training-lanczos", {"resize", "centring"})):
        folder = tmp_path / recipe
        prepared = driftloop("dataset", "prepare", photos, folder, "--recipe", recipe)
        assert prepared.returncode == 0, prepared.stderr
        done = driftloop("audit", "--dataset", folder, "--sources", photos, "--json")
        _, rows = rows_of(done.stdout)
        found = {row["aspect"]: row for row in rows if row["match"] is False}
        assert faults <= set(found)
        # A prepared dataset alone tells neither prompt nor sampling.
        assert done.returncode == (1 if faults else 3)
        for aspect in faults:
            assert "held against their sources" in found[aspect]["where"]
            assert "levels" in found[aspect]["impact"]


def test_mismatches_are_measured_worst_first_and_all_together_last(
    driftloop: Driftloop, tmp_path: Path
) -> None:
    textures.save(tmp_path / "pictures", 10, seed=77)
    (tmp_path / "train.toml").write_text(
        'channel_order = "bgr"\nmax_new_tokens = 128\npadding_color = "white"\n', "utf-8"
    )
    done = driftloop(
        *("audit", "--train-config", tmp_path / "train.toml", "--checkpoint", tiny.checkpoint()),
        *("--measure", tmp_path / "pictures" / "labels.csv"),
    )
    assert done.returncode == 1, done.stderr
    table = done.stdout[done.stdout.index("measured, worst first") :]
    assert table.index("channel order: bgr") < table.index("max tokens: 128")
    assert table.index("max tokens: 128") < table.index("all together")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "Traceback" not in done.stderr


def test_an_mmproj_of_another_checkpoint_is_named_with_its_tensors(
    driftloop: Driftloop, bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "base"
    shutil.copytree(tiny.checkpoint(), other)
    from safetensors.numpy import load_file, save_file

    weights = load_file(other / "model.safetensors")
    name = "model.vision_model.encoder.layers.0.self_attn.q_proj.weight"
    weights[name] = weights[name][::-1].copy()
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    done = driftloop("audit", "--bundle", bundle, "--checkpoint", other, "--json")
    _, rows = rows_of(done.stdout)
    (row,) = [row for row in rows if row["aspect"] == "mmproj"]
    assert row["match"] is False
    assert "v.blk.0.attn_q.weight" in row["note"]


def test_a_prompt_longer_than_the_context_is_counted_in_tokens(
    driftloop: Driftloop, bundle: Path, tmp_path: Path
) -> None:
    contract = tmp_path / "small.toml"
    contract.write_text(
        'extends = "default"\nname = "small"\n[runtime]\ncontext = 64\n[limits]\nmax_tokens = 40\n'
    )
    done = driftloop("audit", "--bundle", bundle, "--contract", contract, "--json")
    _, rows = rows_of(done.stdout)
    (row,) = [row for row in rows if row["aspect"] == "prompt_fits"]
    assert row["match"] is False
    assert "32 prompt tokens" in row["note"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nothing to audit"),
        (("--sources", "."), "nothing to audit"),
        (("--dataset", "nowhere"), "no such dataset"),
        (("--train-config", "nowhere.yaml"), "cannot be read"),
        (("--checkpoint", "./nowhere"), "no such folder"),
        (("--bundle", "nowhere"), "no such folder"),
        (("--collator", "json:loads"), "give --checkpoint or --bundle"),
        (("--app-source", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(
    options: tuple[str, ...], said: str, driftloop: Driftloop, tmp_path: Path
) -> None:
    done = driftloop("audit", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_exported_dataset_is_read_in_both_forms(
    driftloop: Driftloop, photos: Path, tmp_path: Path
) -> None:
    """The record of the app's guide spells libmtmd's marker out, which is said."""
    prepared = driftloop("dataset", "prepare", photos, tmp_path / "set")
    assert prepared.returncode == 0, prepared.stderr
    for form, out in (("jsonl", tmp_path / "train.jsonl"), ("hf", tmp_path / "hf")):
        done = driftloop("dataset", "export", tmp_path / "set", out, "--format", form)
        assert done.returncode == 0, done.stderr
        judged = driftloop("audit", "--dataset", out, "--json")
        _, rows = rows_of(judged.stdout)
        assert {row["aspect"] for row in rows if row["match"] is False} == {"marker"}


def test_an_export_with_the_models_own_image_token_is_aligned(
    driftloop: Driftloop, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "train.jsonl"
    driftloop("dataset", "prepare", photos, tmp_path / "set")
    driftloop("dataset", "export", tmp_path / "set", out, "--image-token", "<image>")
    judged = driftloop("audit", "--dataset", out, "--checkpoint", tiny.checkpoint(), "--json")
    verdict, rows = rows_of(judged.stdout)
    assert (verdict, judged.returncode) == ("ALIGNED", 0)
    assert json.loads(judged.stdout)["missing"] == []
    assert next(row["found"] for row in rows if row["aspect"] == "marker") == "image token"


def test_an_app_is_unread_until_what_it_leaves_open_is_settled(
    driftloop: Driftloop, tmp_path: Path
) -> None:
    apps = Path(__file__).parents[2] / "unit/harness/audit/app/apps"
    folder = shutil.copytree(apps / "as_shipped", tmp_path / "app")
    first = driftloop("audit", "--app-source", folder, "--contract", "as-shipped")
    assert first.returncode == 1
    assert "stock" in first.stdout
    for file in folder.rglob("*.kt"):
        text = file.read_text().replace("mmproj-SmolVLM2-500M-Video-Instruct", "mmproj-elements")
        file.write_text(text.replace("elements-smolvlm2-500m", "elements"))
    second = driftloop("audit", "--app-source", folder, "--contract", "as-shipped", "--update")
    assert second.returncode == 3, second.stdout
    assert "image size (app): a line of driftloop-app.toml" in second.stdout
    settled = folder / "driftloop-app.toml"
    settled.write_text(settled.read_text().replace("# image_size = {", "image_size = {", 1))
    third = driftloop("audit", "--app-source", folder, "--contract", "as-shipped")
    assert (third.returncode, "ALIGNED" in third.stdout) == (0, True)
    assert max(map(len, second.stdout.splitlines())) <= 80


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
    done = driftloop("audit", option, tmp_path / source, "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"]) == (3, "UNREAD"), done.stderr
    assert document["missing"]
    assert all(one["supply"] for one in document["missing"])
