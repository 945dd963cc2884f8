import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import ladder
from harness.errors import BadInput
from harness.ladder import ArmSpec

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


@pytest.mark.parametrize(
    "name",
    [
        "",
        "torch:q8_0",
        "torch:train",
        "training",
        "torch+app",
        "desktop",
        "desktop:",
        "phone:q8_0+",
        "phone:Q8_0",
        "x",
    ],
)
def test_an_unknown_arm_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadInput, match="not known; write torch") as caught:
        ladder.parse(name)
    assert repr(name) in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_arm_named_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="named twice"):
        ladder.parse_ladder(["torch", "torch"])


def test_a_ladder_without_arms_is_refused() -> None:
    with pytest.raises(BadInput, match="no arms"):
        ladder.parse_ladder([])


def test_a_quant_the_bundle_lacks_is_refused() -> None:
    with pytest.raises(BadInput, match=r"'desktop:q4_0': the bundle holds only f16, q8_0"):
        ladder.parse_ladder(["torch", "desktop:q4_0"], quants=["q8_0", "f16"])


def test_each_default_hop_changes_one_thing_and_every_phone_hops_from_the_host() -> None:
    names = [spec.name for spec in ladder.default_ladder("q8_0", ("A", "B"))]
    assert hop_lines(names, ("A", "B")) == [
        "conversion: torch@None -> desktop:f16@None",
        "quantization: desktop:f16@None -> desktop:q8_0@None",
        "runtime: desktop:q8_0@None -> desktop:q8_0+app@None",
        "platform: desktop:q8_0+app@None -> phone:q8_0+app@A",
        "platform: desktop:q8_0+app@None -> phone:q8_0+app@B",
    ]


def test_the_training_sides_rung_stands_on_top_and_its_hop_changes_the_contract() -> None:
    names = [spec.name for spec in ladder.default_ladder("q8_0", ("A",), training=True)]
    assert hop_lines(names, ("A",))[:2] == [
        "contract: torch:training@None -> torch@None",
        "conversion: torch@None -> desktop:f16@None",
    ]
    assert hop_lines(["torch:training", "desktop:f16"]) == [
        "several (contract, conversion): torch:training@None -> desktop:f16@None"
    ]


def test_without_phones_the_default_ladder_ends_on_the_host() -> None:
    assert [spec.name for spec in ladder.default_ladder("q8_0")][-1] == "desktop:q8_0+app"


def test_an_f16_ladder_names_no_arm_twice() -> None:
    names = [spec.name for spec in ladder.default_ladder("f16", ("A",))]
    assert names == ["torch", "desktop:f16", "desktop:f16+app", "phone:f16+app"]


def test_neighbours_that_differ_in_several_things_name_them_all() -> None:
    assert hop_lines(["torch", "desktop:q8_0+app"]) == [
        "several (conversion, quantization, runtime): torch@None -> desktop:q8_0+app@None"
    ]
    assert hop_lines(["torch", "phone:f16"], ("A",)) == [
        "several (conversion, platform): torch@None -> phone:f16@A"
    ]


def test_a_phone_arm_hops_from_the_host_arm_of_its_own_settings() -> None:
    names = ["desktop:q8_0", "desktop:q8_0+app", "phone:q8_0", "phone:q8_0+app"]
    assert hop_lines(names, ("A",))[1:] == [
        "platform: desktop:q8_0@None -> phone:q8_0@A",
        "platform: desktop:q8_0+app@None -> phone:q8_0+app@A",
    ]


def test_phone_arms_alone_hop_from_each_other_on_the_same_phone() -> None:
    assert hop_lines(["phone:f16", "phone:q8_0"], ("A", "B")) == [
        "quantization: phone:f16@A -> phone:q8_0@A",
        "quantization: phone:f16@B -> phone:q8_0@B",
    ]


def test_the_app_is_compared_with_the_one_phone_else_with_the_last_arm_on_the_host() -> None:
    def last(phones: tuple[str, ...]) -> str:
        names = [spec.name for spec in ladder.default_ladder("q8_0", phones, app=True)]
        return hop_lines(names, phones)[-1]

    assert last(("A",)) == "app: phone:q8_0+app@A -> app@None"
    assert last(()) == "app: desktop:q8_0+app@None -> app@None"
    assert last(("A", "B")) == "app: desktop:q8_0+app@None -> app@None"


def test_nothing_stands_below_the_app() -> None:
    with pytest.raises(BadInput, match="'app' is the ladder's last"):
        ladder.parse_ladder(["app", "phone:q8_0"])


@given(st.lists(specs, min_size=2, max_size=5, unique=True))
def test_every_hop_changes_something(arms: list[ArmSpec]) -> None:
    assert all(hop.changes for hop in ladder.hops(arms, ("A",)))
