"""Many runs at once: the plain records of run folders and baselines, asked with SQL.

DuckDB reads `run.json` and `verdict.json` as they lie; no database is kept. A folder of another
version, or a damaged one, is named and left out.
"""

from harness.releases.history.database import History, Skipped
from harness.releases.history.rows import Answer, BlameRow, HopRow, LatencyRow

__all__ = ["Answer", "BlameRow", "History", "HopRow", "LatencyRow", "Skipped"]
