"""What the files of a run's own bundle and of the phones' are found to be, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.harness import contract as contracts
from driftloop.harness import ladder
from driftloop.harness.arms.base import Side
from driftloop.harness.bundle import Bundle
from driftloop.harness.records.inquiry import FileFault
from driftloop.harness.running.soundness import soundness

from ..bundle_factory import Miniature

SPECS = ladder.parse_ladder(["desktop:f16", "phone:f16"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def own(tmp_path: Path) -> Bundle:
    return Miniature().write(tmp_path / "own")


def faults(own: Bundle, phones: Bundle) -> tuple[FileFault, ...]:
    contract = contracts.load("default")
    under = {"app": Side(contract, own), "phone": Side(contract, phones)}
    return soundness(under, SPECS).faults


def test_phones_may_be_given_the_same_files_from_elsewhere(own: Bundle, tmp_path: Path) -> None:
    assert faults(own, Miniature().write(tmp_path / "phones")) == ()


def test_a_file_on_phones_that_is_stored_in_other_types_is_a_fault_of_theirs(
    own: Bundle, tmp_path: Path
) -> None:
    finer = Miniature(types={"v.blk.0.ffn_up.weight": "f32", "v.blk.0.attn_q.weight": "f32"})
    (fault,) = faults(own, finer.write(tmp_path / "phones"))
    assert (fault.owner, fault.half, fault.stage) == ("phone bundle", "mmproj", "embed")
    assert fault.layer == "vision layer 0 attention"
    assert fault.detail.startswith("f32, f16 in the bundle of the other arms; 2 of ")


def test_what_is_wrong_in_such_a_file_by_itself_is_said_alone(own: Bundle, tmp_path: Path) -> None:
    coarser = Miniature(types={"blk.0.ffn_down.weight": "q8_0"})
    (fault,) = faults(own, coarser.write(tmp_path / "phones"))
    assert fault.detail == "q8_0, nothing in a f16 file is coarser than f16"
