"""The Python entry: ten names, loaded when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import driftloop


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in driftloop.__all__:
        assert getattr(driftloop, name).__doc__, name


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'evaluated'"):
        _ = driftloop.evaluated  # type: ignore[attr-defined]  # what the test is about


def test_importing_driftloop_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import driftloop;"
        "heavy = ('driftloop.', 'torch', 'numpy');"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
