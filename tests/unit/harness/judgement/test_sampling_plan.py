"""The plan in numbers, as people read it before a run."""

import pytest

from harness import gates_file
from harness.judgement.sampling_plan import sampling_plan

GATES = gates_file.load()


def test_the_sequential_plan_says_its_errors_and_what_it_costs() -> None:
    plan = sampling_plan(GATES, ("platform",), 3, None)
    assert plan is not None
    assert plan.sentence == (
        "a sequential test, looked at every 3 images: fails a release that agrees in 0.98 with "
        "probability 0.050, passes one that agrees in 0.94 with probability 0.050; takes 72 images "
        "where none flips, 144 on average at 0.98, 113 at 0.94, 342 at most"
    )


@pytest.mark.parametrize(("images", "clean"), [(259, 259), (49, 49), (48, None)])
def test_a_fixed_plan_says_whether_so_few_images_can_pass(images: int, clean: int | None) -> None:
    plan = sampling_plan(GATES, ("platform",), 3, images)
    assert plan is not None
    assert (plan.kind, plan.most, plan.clean) == ("fixed", images, clean)
    assert f"a fixed sample of {images} images" in plan.sentence


def test_there_is_no_plan_where_shares_decide() -> None:
    rule = GATES.agreement.model_copy(update={"decide_on": "point"})
    gates = GATES.model_copy(update={"agreement": rule})
    assert sampling_plan(gates, ("platform",), 3, None) is None
