"""What a mismatch costs, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.audit.impact import Impact

IMPACT = Impact(
    change=None,
    cases=102,
    changed=12,
    unanswered=0,
    labelled=96,
    right_before=90,
    right_after=78,
    mean_shift=1.31,
)


@pytest.mark.parametrize(
    ("impact", "said"),
    [
        (
            IMPACT,
            "12 of 102 answers change; 90 -> 78 of 96 right; labels shift by 1.3 nats (mean)",
        ),
        (replace(IMPACT, labelled=0, mean_shift=None), "12 of 102 answers change"),
        (
            replace(IMPACT, labelled=0, mean_shift=None, cases=99, changed=1, unanswered=3),
            "1 of 99 answers changes; 3 more get none",
        ),
    ],
)
def test_an_impact_says_what_a_user_asks(impact: Impact, said: str) -> None:
    assert impact.text == said
