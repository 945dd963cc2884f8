"""A run against an earlier one: what may be compared is, what may not is refused with a reason."""

from reports.between.answers import ArmBetween, arms_between
from reports.between.document import Between, between, refuse_if_nothing

__all__ = ["ArmBetween", "Between", "arms_between", "between", "refuse_if_nothing"]
