from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftloop.harness import ladder
from driftloop.harness.errors import BadInput
from driftloop.harness.ladder import ArmSpec

specs = st.one_of(
    st.builds(ArmSpec, st.just("torch"), st.none(), st.just(False), st.booleans()),
    st.builds(
        ArmSpec,
        st.sampled_from(["desktop", "phone"]),
        st.sampled_from(["f16", "q8_0", "q4_k_m"]),
        st.booleans(),
    ),
)


def hop_lines(names: list[str], phones: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{hop.name}: {hop.reference}@{hop.reference_phone} -> {hop.candidate}@{hop.phone}"
        for hop in ladder.hops(ladder.parse_ladder(names), phones)
    ]


@given(specs)
def test_a_name_reads_back_as_its_arm(spec: ArmSpec) -> None:
    assert ladder.parse(spec.name) == spec


UNKNOWN = "torch:q8_0 torch:train training torch+app desktop desktop: phone:q8_0+ phone:Q8_0 x"


@pytest.mark.parametrize("name", ["", *UNKNOWN.split()])
def test_an_unknown_arm_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadInput, match="not known; write torch") as caught:
        ladder.parse(name)
    assert repr(name) in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("names", "quants", "said"),
    [
        (["torch", "torch"], None, "named twice"),
        ([], None, "no arms"),
        (["torch", "desktop:q4_0"], ["q8_0", "f16"], "q4_0': the bundle holds only f16, q8_0"),
        (["app", "phone:q8_0"], None, "'app' is the ladder's last"),
    ],
)  # fmt: skip
def test_a_ladder_that_cannot_be_is_refused(
    names: list[str], quants: list[str] | None, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        ladder.parse_ladder(names, quants)


DEFAULT = ["torch", "desktop:f16", "desktop:q8_0", "desktop:q8_0+app", "phone:q8_0+app"]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"phones": ("A",)}, DEFAULT),
        ({}, DEFAULT[:-1]),
        ({"phones": ("A",), "training": True}, ["torch:training", *DEFAULT]),
        ({"app": True}, [*DEFAULT[:-1], "app"]),
        # An f16 ladder names no arm twice.
        (
            {"quant": "f16", "phones": ("A",)},
            ["torch", "desktop:f16", "desktop:f16+app", "phone:f16+app"],
        ),
    ],
)
def test_the_default_ladder_has_the_rungs_that_take_part(
    asked: dict[str, Any], names: list[str]
) -> None:
    assert [spec.name for spec in ladder.default_ladder(**asked)] == names


ON_HOST = [
    "conversion: torch@None -> desktop:f16@None",
    "quantization: desktop:f16@None -> desktop:q8_0@None",
    "runtime: desktop:q8_0@None -> desktop:q8_0+app@None",
]
PLATFORM = "platform: desktop:q8_0+app@None -> phone:q8_0+app@"
APP = "app: desktop:q8_0+app@None -> app@None"


@pytest.mark.parametrize(
    ("names", "phones", "lines"),
    [
        # Each default hop changes one thing, and every phone hops from the host.
        (DEFAULT, ("A", "B"), [*ON_HOST, f"{PLATFORM}A", f"{PLATFORM}B"]),
        (["torch:training", "torch"], (), ["contract: torch:training@None -> torch@None"]),
        # Neighbours that differ in several things name them all.
        (
            ["torch:training", "desktop:f16"],
            (),
            ["several (contract, conversion): torch:training@None -> desktop:f16@None"],
        ),
        (
            ["torch", "desktop:q8_0+app"],
            (),
            ["several (conversion, quantization, runtime): torch@None -> desktop:q8_0+app@None"],
        ),
        (
            ["torch", "phone:f16"],
            ("A",),
            ["several (conversion, platform): torch@None -> phone:f16@A"],
        ),
        # A phone's arm hops from the host's arm of its own settings.
        (
            ["desktop:q8_0", "desktop:q8_0+app", "phone:q8_0", "phone:q8_0+app"],
            ("A",),
            [ON_HOST[2], "platform: desktop:q8_0@None -> phone:q8_0@A", f"{PLATFORM}A"],
        ),
        # Phones' arms alone hop from each other on the same phone.
        (
            ["phone:f16", "phone:q8_0"],
            ("A", "B"),
            [f"quantization: phone:f16@{name} -> phone:q8_0@{name}" for name in "AB"],
        ),
        # The app is compared with the only phone, else with the last arm on the host.
        (
            [*DEFAULT, "app"],
            ("A",),
            [*ON_HOST, f"{PLATFORM}A", "app: phone:q8_0+app@A -> app@None"],
        ),
        ([*DEFAULT[:-1], "app"], (), [*ON_HOST, APP]),
        ([*DEFAULT, "app"], ("A", "B"), [*ON_HOST, f"{PLATFORM}A", f"{PLATFORM}B", APP]),
    ],
)
def test_hops_lead_from_arm_to_arm(
    names: list[str], phones: tuple[str, ...], lines: list[str]
) -> None:
    assert hop_lines(names, phones) == lines


@given(st.lists(specs, min_size=2, max_size=5, unique=True))
def test_every_hop_changes_something(arms: list[ArmSpec]) -> None:
    assert all(hop.changes for hop in ladder.hops(arms, ("A",)))
