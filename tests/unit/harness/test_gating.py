import math
from pathlib import Path

import pytest

from harness import gating
from harness.errors import GatesError
from harness.gating import Gates


def written(folder: Path, text: str) -> Path:
    path = folder / "gates.toml"
    path.write_text(text)
    return path


def test_the_default_gates_load() -> None:
    gates = gating.load()
    assert gates.latency.max_session_p90_s == 24.0
    assert gates.hops.tolerances()["conversion"].label_logprob == 0.01


def test_a_file_holds_only_what_differs(tmp_path: Path) -> None:
    gates = gating.load(written(tmp_path, "[hops.platform]\nmin_agreement = 0.5\n"))
    assert gates.hops.platform.min_agreement == 0.5
    assert gates.hops.platform.flip_margin == gating.load().hops.platform.flip_margin


def test_a_session_may_differ_where_its_images_may_unless_the_file_says_otherwise(
    tmp_path: Path,
) -> None:
    table = gating.load().hops
    assert table.min_session_agreement(("platform",), 3) == pytest.approx(0.94**3)
    assert table.min_session_agreement(("conversion",), 1) == pytest.approx(0.98)
    assert table.min_session_agreement(("conversion", "runtime"), 3) == pytest.approx(0.94**3)
    text = "[hops.platform]\nmin_agreement = 0.5\n[hops.runtime]\nmin_session_agreement = 1.0\n"
    other = gating.load(written(tmp_path, text)).hops
    assert other.min_session_agreement(("platform",), 3) == pytest.approx(0.125)
    assert other.min_session_agreement(("runtime",), 3) == 1.0


def test_gates_kept_by_an_older_run_are_read_without_their_session_limit() -> None:
    document = gating.load().model_dump(mode="json")
    for limits in document["hops"].values():
        limits.pop("min_session_agreement", None)
    assert Gates.model_validate(document) == gating.load()


def test_a_run_from_before_there_was_a_contract_hop_tells_no_limits_of_it() -> None:
    document = gating.load().model_dump(mode="json")
    del document["hops"]["contract"]
    assert Gates.model_validate(document).hops.contract.min_agreement == 0.0


def test_a_limit_may_be_infinite_and_survives_json(tmp_path: Path) -> None:
    gates = gating.load(written(tmp_path, "[memory]\nmax_peak_mib = inf\n"))
    assert Gates.model_validate_json(gates.model_dump_json()).memory.max_peak_mib == math.inf


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[agreement]\nmin_case = 3\n", "agreement.min_case"),
        ("[hops.tiling]\nmin_agreement = 1.0\n", "hops.tiling"),
        ("[hops.platform]\nmin_agreement = 1.5\n", "hops.platform.min_agreement"),
        ("[hops.platform]\nmin_session_agreement = 2\n", "hops.platform.min_session_agreement"),
        ("[hops.platform]\nflip_margin = nan\n", "hops.platform.flip_margin"),
        ("[agreement]\ndecide_on = 'luck'\n", "agreement.decide_on"),
        ("latency = 3\n", "latency"),
        ("[latency\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_the_key(
    tmp_path: Path, text: str, named: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(GatesError) as caught:
        gating.load(path)
    message = str(caught.value)
    assert named in message
    assert str(path) in message
    assert "\n" not in message


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GatesError, match="no such file"):
        gating.load(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GatesError, match="cannot be read"):
        gating.load(path)
