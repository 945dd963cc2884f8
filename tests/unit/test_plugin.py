"""The pytest plugin as a user's own pytest session sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from driftloop import plugin
from driftloop.harness.judgement.gate import GATE_NAMES

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


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder of the user's holding the acceptance suite unchanged."""
    pytester.makepyfile(test_release=SUITE.read_text("utf-8"))
    return pytester


def _run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("-p", "no:cacheprovider", "-rs", *arguments)


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = f"import sys, driftloop.plugin; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_bundle_one_line_says_what_to_give(suite: pytest.Pytester) -> None:
    result = _run(suite)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([f"SKIPPED*{plugin.NO_BUNDLE}"])


def test_there_is_one_test_per_phone_and_gate(suite: pytest.Pytester) -> None:
    result = _run(
        suite,
        "--collect-only",
        "-q",
        "--driftloop-bundle=b",
        "--driftloop-images=i",
        "--driftloop-phone=R5CT10ABCDE",
        "--driftloop-phone=127.0.0.1:5581",
    )
    ids = [line.split("[")[1].rstrip("]") for line in result.outlines if "[" in line]
    gates = [plugin.DELIVERY, *GATE_NAMES]
    assert ids == [
        f"{serial}-{gate}" for serial in ("R5CT10ABCDE", "127.0.0.1:5581") for gate in gates
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--driftloop-bundle=b",), "--driftloop-bundle needs --driftloop-images"),
        (
            ("--driftloop-bundle=b", "--driftloop-images=i", "--driftloop-gates=none.toml"),
            "gates 'none.toml': no such file",
        ),
    ],
)
def test_a_mistake_in_the_options_ends_the_session_with_one_line(
    suite: pytest.Pytester, arguments: tuple[str, ...], said: str
) -> None:
    result = _run(suite, "--driftloop-phone=virtual", *arguments)
    assert result.ret in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED)
    assert said in result.stdout.str() + result.stderr.str()


def test_a_bundle_that_is_not_there_is_one_line_and_no_traceback(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_own="def test_own(bundle):\n    assert bundle.manifest\n")
    result = _run(suite, "test_own.py", "--driftloop-bundle=nowhere", "--driftloop-images=i")
    result.assert_outcomes(errors=1)
    text = result.stdout.str()
    assert "nowhere" in text
    assert "Traceback" not in text
    assert "plugin.py" not in text


def test_fixtures_of_the_same_name_in_a_project_are_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n"
        "@pytest.fixture\n"
        "def phone():\n"
        "    return 'mine'\n"
        "def test_own(phone):\n"
        "    assert phone == 'mine'\n"
    )
    _run(pytester).assert_outcomes(passed=1)
