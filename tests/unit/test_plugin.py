"""The pytest plugin as a user's own pytest session sees it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scipy.special  # noqa: F401  (pytester forgets what a session imports; numpy loads only once)

from driftloop import plugin
from driftloop.devices import virtual
from driftloop.harness import evaluation, gates_file
from driftloop.harness.judgement.gate import GATE_NAMES
from driftloop.harness.releases.store import STORE_VARIABLE, Store
from tests.unit.harness.bundle_factory import Miniature
from tests.unit.reports.runs import MOVED, PHONE, RunWriter

pytest_plugins = ["pytester"]

SUITE = Path(__file__).parents[1] / "phone" / "test_release.py"
HEAVY = (
    "numpy",
    "torch",
    "PIL",
    "pydantic",
    "adbutils",
    "jinja2",
    "driftloop.harness.running.run",
    "reports",
    "devices",
)
SERIALS = ("R5CT10ABCDE", "127.0.0.1:5581")
JUDGED = ("--driftloop-bundle=bundle", "--driftloop-images=images")
OF_A_RUN = """
from pathlib import Path

import pytest

from driftloop.harness import evaluation as evaluations


@pytest.fixture
def evaluation():
    return evaluations.load(Path("run"))
"""
"""In place of the plugin's own fixture: a run that was made before."""
FLIPS = {(*PHONE, index): "water" for index in (1, 2, 3)}
UNDECIDED = {"gates": gates_file.load()}
"""By which so few cases decide nothing."""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of the user's with the acceptance suite unchanged, a bundle and an image."""
    monkeypatch.setenv(STORE_VARIABLE, str(pytester.path / "baselines"))
    monkeypatch.setenv("CI", "true")  # lines of the summary are not cut
    pytester.makepyfile(test_release=SUITE.read_text("utf-8"))
    Miniature().write(pytester.path / "bundle")
    pytester.mkdir("images").joinpath("a.png").write_bytes(b"not opened before the run")
    return pytester


def _run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("-p", "no:cacheprovider", "--strict-markers", *arguments)


def _said(result: pytest.RunResult) -> str:
    said = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in said
    assert "plugin.py" not in said
    return said


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = f"import sys, driftloop.plugin; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("more", [(), ("-m", "agreement"), ("-n", "1")])
def test_without_a_bundle_one_error_says_what_to_give(
    suite: pytest.Pytester, more: tuple[str, ...]
) -> None:
    result = _run(suite, *more)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.parseoutcomes().items() >= {"errors": 1}.items()
    assert plugin.NO_BUNDLE in _said(result)


def test_a_project_that_does_not_ask_for_the_fixtures_is_left_alone(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.fixture\n"
        "def phone():\n"
        "    return 'mine'\n"
        "def test_own(phone):\n"
        "    assert phone == 'mine'\n"
    )
    _run(pytester).assert_outcomes(passed=1)


def test_there_is_one_test_per_phone_and_gate_and_each_gate_is_a_marker(
    suite: pytest.Pytester,
) -> None:
    Store(suite.path / "baselines").add(_written(suite, "earlier"), "1.3.0")
    named = (f"--driftloop-phone={serial}" for serial in SERIALS)
    asked = ("--collect-only", "-q", *JUDGED, *named, "--driftloop-baseline=1.3.0")

    def ids(*more: str) -> list[str]:
        lines = _run(suite, *asked, *more).outlines
        return [line.split("[")[1].rstrip("]") for line in lines if "[" in line]

    gates = [plugin.OBSERVATIONS, *GATE_NAMES, plugin.BASELINE, plugin.VERDICT]
    assert ids() == [f"{serial}-{gate}" for serial in SERIALS for gate in gates]
    assert ids("-m", "agreement or verdict") == [
        f"{serial}-{gate}" for serial in SERIALS for gate in ("agreement", "verdict")
    ]
    listed = _run(suite, "--markers").stdout.str()
    assert [name for name in gates if f"@pytest.mark.{name}:" not in listed] == [plugin.BASELINE]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--driftloop-bundle=bundle",), plugin.NO_IMAGES),
        (("--driftloop-bundle=nowhere", JUDGED[1]), "bundle nowhere: no such folder"),
        ((JUDGED[0], "--driftloop-images=none"), "none: missing: no such folder"),
        ((*JUDGED, "--driftloop-gates=none.toml"), "gates 'none.toml': no such file"),
        ((*JUDGED, "--driftloop-contract=none"), "none"),
        ((*JUDGED, "--driftloop-baseline=1.2"), "no baseline '1.2' in"),
        ((*JUDGED, "-n", "2", "--driftloop-gates=none.toml"), "gates 'none.toml': no such file"),
        ((*JUDGED, "-n", "2", "--dist", "worksteal"), "use --dist load"),
    ],
)
def test_a_mistake_in_the_options_ends_the_session_with_one_line(
    suite: pytest.Pytester, arguments: tuple[str, ...], said: str
) -> None:
    result = _run(suite, "--driftloop-phone=virtual", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in _said(result).splitlines() if line.startswith("ERROR"))
    assert said in line


@pytest.mark.parametrize("arguments", [("test_release.py", *JUDGED), ("test_own.py",)])
def test_a_crash_is_one_line_and_its_traceback_is_in_the_file_that_it_names(
    suite: pytest.Pytester,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    def crash() -> None:
        raise ZeroDivisionError("no such share\nand more of it")

    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(virtual, "running", crash)
    suite.makepyfile(test_own="def test_own(phone):\n    pass\n")
    result = _run(suite, *arguments)
    result.assert_outcomes(errors=1)
    (log,) = (tmp_path / "cache" / "logs").iterdir()
    (line,) = (line for line in _said(result).splitlines() if line.startswith("ERROR test_"))
    assert "a fault of driftloop itself, ZeroDivisionError: no such share" in line
    assert line.endswith(str(log))
    assert "and more of it" in log.read_text("utf-8")


def _written(suite: pytest.Pytester, name: str, **over: Any) -> Path:  # noqa: ANN401
    """A run folder of that name."""
    folder = RunWriter(suite.path / name, pictures=False, run_id=name, **over).write()
    evaluation.load(folder).write()
    return folder


def _failed(result: pytest.RunResult) -> dict[str, str]:
    """By gate, the first line that says why."""
    lines = (line for line in result.outlines if line.startswith("FAILED"))
    return {re.split(r"[\[\]]", line)[1]: line.partition(" - Failed: ")[2] for line in lines}


@pytest.mark.parametrize(
    ("fields", "allowed", "failed"),
    [
        ({}, False, {}),
        ({"answers": FLIPS}, True, {"agreement": "platform: ", "verdict": "FAIL: The phone no"}),
        ({"absent": {PHONE}}, True, {"observations": "phone:q8_0+app: ", "verdict": "INFRA: The"}),
        (UNDECIDED, False, {"agreement": "inconclusive: ", "verdict": "inconclusive: There is"}),
        (UNDECIDED, True, {}),
    ],
)
def test_a_session_fails_wherever_a_run_does_and_only_what_is_undecided_may_be_allowed(
    suite: pytest.Pytester, fields: dict[str, Any], allowed: bool, failed: dict[str, str]
) -> None:
    suite.makeconftest(OF_A_RUN)
    run = evaluation.load(_written(suite, "run", **fields))
    result = _run(suite, "-rfs", *(["--driftloop-allow-inconclusive"] if allowed else []))
    said = _failed(result)
    assert all(said[gate].startswith(why) for gate, why in failed.items()), said
    assert bool(said) == bool(failed)
    assert result.ret == (pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK)
    skipped = result.stdout.str().count("inconclusive: ")
    assert bool(skipped) == (run.verdict.verdict == "INCONCLUSIVE")


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ({}, {}, None),
        ({"apart": MOVED}, {"apart": MOVED}, None),
        ({}, {"apart": MOVED}, "new since 1.3.0: quantization, embed: "),
        ({"contract": "as-shipped"}, {}, "drifts are not compared with 1.3.0: "),
    ],
)
def test_a_drift_that_is_new_since_a_baseline_fails_also_where_none_can_be_compared(
    suite: pytest.Pytester, before: dict[str, Any], now: dict[str, Any], why: str | None
) -> None:
    suite.makeconftest(OF_A_RUN)
    Store(suite.path / "baselines").add(_written(suite, "earlier", **before), "1.3.0")
    _written(suite, "run", days=1, **now)
    said = _failed(_run(suite, "-rf", "--driftloop-baseline=1.3.0", "-m", "baseline"))
    assert [*said] == ([] if why is None else ["baseline"])
    assert said.get("baseline", "").startswith(why or "")
