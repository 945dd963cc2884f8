"""What a mismatch costs, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driftloop.harness.audit.impact import Impact

# change, cases, changed, unanswered, labelled, right before and after, mean shift
SHIFTED = Impact(None, 102, 12, 0, 96, 90, 78, 1.31)
BARE = replace(SHIFTED, labelled=0, mean_shift=None)


@pytest.mark.parametrize(
    ("impact", "said"),
    [
        (
            SHIFTED,
            "12 of 102 answers change; 90 -> 78 of 96 right; labels shift by 1.3 nats (mean)",
        ),
        (BARE, "12 of 102 answers change"),
        (
            replace(BARE, cases=99, changed=1, unanswered=3),
            "1 of 99 answers changes; 3 more get none",
        ),
    ],
)
def test_an_impact_says_what_a_user_asks(impact: Impact, said: str) -> None:
    assert impact.text == said
