"""How often the real functions are called that read, compare and judge a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

from driftloop.harness import evaluation
from driftloop.harness.judgement import verdict
from driftloop.harness.records.observation import Observation


@contextmanager
def counted() -> Iterator[Callable[[], tuple[int, int, int]]]:
    """Gives (observations parsed, runs compared, runs judged) so far."""
    parse = Observation.model_validate_json
    with (
        mock.patch.object(Observation, "model_validate_json", wraps=parse) as parsed,
        mock.patch.object(verdict, "compare", wraps=verdict.compare) as compared,
        mock.patch.object(evaluation, "judge", wraps=evaluation.judge) as judged,
    ):
        yield lambda: (parsed.call_count, compared.call_count, judged.call_count)
