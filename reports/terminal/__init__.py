"""What a run, a comparison or a history looks like on a terminal of 80 columns."""

from reports.terminal.changes import between_view, change_line
from reports.terminal.run import summary_view

__all__ = ["between_view", "change_line", "summary_view"]
