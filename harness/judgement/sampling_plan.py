"""The plan of a run's agreement gate in numbers, as it is printed before the run and kept; pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.gates_file import Gates
from harness.ladder import Change


class SamplingPlan(BaseModel):
    """How many images decide, and how often they decide wrongly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sequential", "fixed"]
    accept: float
    reject: float
    alpha: float
    """Exactly how often a share of `accept` is failed, and, `beta`, one of `reject` is passed."""
    beta: float
    look: int | None
    """Images between looks; None where there is one look at the end."""
    most: int
    """Images after which it has decided, or, where fixed, those there are."""
    clean: int | None
    """Images that pass where none flips; None where so few never do."""
    expected_accept: float
    """Images on average where answers agree in a share of `accept`; `expected_reject` likewise."""
    expected_reject: float

    @property
    def sentence(self) -> str:
        """For people, before a run and in its report."""
        errors = (
            f"fails a release that agrees in {self.accept:g} with probability {self.alpha:.3f}, "
            f"passes one that agrees in {self.reject:g} with probability {self.beta:.3f}"
        )
        if self.kind == "fixed":
            return f"a fixed sample of {self.most} images: {errors}"
        return (
            f"a sequential test, looked at every {self.look} images: {errors}; takes {self.clean} "
            f"images where none flips, {self.expected_accept:.0f} on average at {self.accept:g}, "
            f"{self.expected_reject:.0f} at {self.reject:g}, {self.most} at most"
        )


def sampling_plan(
    gates: Gates, changes: tuple[Change, ...], images: int, fixed: int | None
) -> SamplingPlan | None:
    """That of a hop with `images` images a session; None where the gates decide on shares.

    `fixed`: how many images the run takes, where that is set before it.
    """
    if gates.agreement.decide_on != "sequential":
        return None
    if fixed is not None:
        sample = gates.fixed_plan(changes, fixed)
        alpha, beta = sample.error_rates
        return SamplingPlan(
            kind="fixed",
            accept=sample.accept,
            reject=sample.reject,
            alpha=alpha,
            beta=beta,
            look=None,
            most=fixed,
            clean=fixed if sample.accept_at >= 0 else None,
            expected_accept=fixed,
            expected_reject=fixed,
        )
    plan = gates.plan(changes, images)
    alpha, beta = plan.error_rates
    return SamplingPlan(
        kind="sequential",
        accept=plan.accept,
        reject=plan.reject,
        alpha=alpha,
        beta=beta,
        look=plan.look,
        most=plan.most,
        clean=plan.needed_more(0, 0),
        expected_accept=plan.expected_images(plan.accept),
        expected_reject=plan.expected_images(plan.reject),
    )
