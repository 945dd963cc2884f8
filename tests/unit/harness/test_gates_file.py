import math
from pathlib import Path

import pytest

from driftloop.harness import gates_file
from driftloop.harness.errors import GatesError
from driftloop.harness.gates_file import Gates, TrialRule
from driftloop.harness.tolerance import DrivenLimit


def written(folder: Path, text: str) -> Path:
    path = folder / "gates.toml"
    path.write_text(text)
    return path


def test_the_default_gates_load() -> None:
    gates = gates_file.load()
    assert gates.latency.max_session_p90_s == 24.0
    assert gates.driven.weights["q8_0"].by_part["vision layers"].error > 0


def test_a_file_holds_only_what_differs(tmp_path: Path) -> None:
    gates = gates_file.load(written(tmp_path, "[hops.platform]\nmax_numeric_flips = 0.5\n"))
    assert gates.hops.platform.max_numeric_flips == 0.5
    assert gates.hops.platform.flip_margin == gates_file.load().hops.platform.flip_margin
    assert gates.latency.trial == gates_file.load().latency.trial == TrialRule()
    own = "[memory]\nmax_peak_mib = 1.0\n[latency.trial]\nmargin = 0.05\nmax_runs = 9\n"
    trial = gates_file.load(written(tmp_path, own)).latency.trial
    assert trial == TrialRule(margin=0.05, max_runs=9)


def test_a_session_is_held_against_the_share_that_the_sequential_test_rejects(
    tmp_path: Path,
) -> None:
    assert gates_file.load().min_session_agreement(("conversion",), 3) == pytest.approx(0.94**3)
    text = "[hops.conversion]\nreject = 0.9\n[hops.runtime]\nmin_session_agreement = 1.0\n"
    own = gates_file.load(written(tmp_path, text))
    assert own.min_session_agreement(("conversion",), 3) == pytest.approx(0.9**3)
    assert own.min_session_agreement(("conversion", "platform"), 1) == pytest.approx(0.9)
    assert own.min_session_agreement(("runtime",), 3) == 1.0


def test_a_hop_may_have_a_plan_of_its_own(tmp_path: Path) -> None:
    gates = gates_file.load(written(tmp_path, "[hops.quantization]\naccept = 0.95\nreject = 0.9\n"))
    default, own = gates.plan(("platform",), 3), gates.plan(("quantization",), 3)
    assert (default.accept, default.reject) == (0.98, 0.94)
    assert (own.accept, own.reject) == (0.95, 0.9)
    assert gates.plan(("quantization", "platform"), 3) == own
    assert gates.most_images(3) == own.most > default.most
    assert gates_file.load().most_images(3) == 342


def test_a_driven_row_of_ones_own_stands_beside_the_others(tmp_path: Path) -> None:
    text = "[driven.weights.q4_k_m]\nvision_layers = [0.2, 0.05, 0.05]\n"
    weights = gates_file.load(written(tmp_path, text)).driven.weights
    assert weights["q8_0"] == gates_file.load().driven.weights["q8_0"]
    own = weights["q4_k_m"].by_part
    assert own["vision layers"] == DrivenLimit(0.2, 0.05, 0.05)
    assert own["text ffn"] == DrivenLimit(0.0, 0.0, 0.0)


def test_provenance_is_kept_and_a_limit_may_be_infinite(tmp_path: Path) -> None:
    text = "[calibration]\nbundle = 'tiny'\nimages = 24\n[memory]\nmax_peak_mib = inf\n"
    gates = gates_file.load(written(tmp_path, text))
    assert gates.calibration == {"bundle": "tiny", "images": 24}
    assert gates.memory.max_peak_mib == math.inf
    assert Gates.model_validate_json(gates.model_dump_json()) == gates


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[agreement]\nmin_case = 3\n", "agreement.min_case"),
        ("[hops.tiling]\naccept = 0.9\n", "hops.tiling"),
        ("[hops.platform]\nmax_numeric_flips = 1.5\n", "hops.platform.max_numeric_flips"),
        ("[hops.platform]\nmin_session_agreement = 2\n", "hops.platform.min_session_agreement"),
        ("[hops.platform]\nflip_margin = nan\n", "hops.platform.flip_margin"),
        ("[agreement]\nconfidence = 'luck'\n", "agreement.confidence"),
        ("latency = 3\n", "latency"),
        ("[equal]\npixels = false\n", "equal"),
        ("[agreement]\naccept = 1.0\n", "agreement.accept"),
        ("[agreement]\naccept = 0.9\n", "reject 0.94 is not below accept 0.9"),
        ("[hops.platform]\nreject = 0.99\n", "hops.platform: reject 0.99"),
        ("[accuracy]\nmargin = 'luck'\n", "accuracy.margin"),
        ("[calibration]\nwhen = [1]\n", "calibration.when"),
        ("[hops.platform]\nmax_embed_distance = -1\n", "hops.platform.max_embed_distance"),
        ("[hops.platform]\nfloors = 0\n", "hops.platform.floors"),
        ("[driven.platform]\nvision_layers = [0.1, 0.1]\n", "driven.platform.vision_layers"),
        ("[driven.cache.q4_0]\nffn = [0.1, 0.1, 0.1]\n", "driven.cache.q4_0.ffn"),
        ("[latency.trial]\nmargin = 0.2\n", "latency.trial: detect (0.1) must be above margin"),
        ("[latency.trial]\nruns = 3\n", "latency.trial.runs"),
        ("[latency\n", "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        (None, "no such file"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_the_key(
    tmp_path: Path, text: str | bytes | None, named: str
) -> None:
    path = tmp_path / "gates.toml"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(GatesError) as caught:
        gates_file.load(path)
    message = str(caught.value)
    assert named in message
    assert str(path) in message
    assert "\n" not in message
