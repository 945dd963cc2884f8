"""A close look at images on a phone: the runner in deep mode, and its tensors brought here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from devices import deploy
from devices.errors import RunnerFailed
from devices.phone import Phone
from devices.runner.attempt import attempts
from devices.runner.client import discard, run, run_folder
from devices.runner.protocol import ImageResult
from devices.runner.work import Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.float32]]


def look(
    phone: Phone, work: Work, *, on_deploy: deploy.Progress | None = None
) -> Iterator[tuple[ImageResult, Tensors]]:
    """Run `work` in deep mode; each image's result with its tensors, in the order of `work.images`.

    Always anew, whatever stands on the phone under `work.run_id`, and nothing of it stays there.
    The caller holds the phone's lease.

    Raises:
        DeviceError: as `client.run`; what was answered before a RunnerFailed has been yielded.
    """
    deep = replace(work, deep=True)
    phone.patiently(lambda: discard(phone, work.run_id))
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "tensors"
        results, failed = _answered(phone, deep, on_deploy)
        if results:
            (attempt,) = phone.patiently(lambda: attempts(phone, run_folder(deep)))
            phone.patiently(lambda: phone.pull(attempt.tensors_path, local))
        phone.patiently(lambda: discard(phone, work.run_id))
        for result in results:
            yield result, _tensors(result, local)
    if failed:
        raise failed


def _answered(
    phone: Phone, work: Work, on_deploy: deploy.Progress | None
) -> tuple[list[ImageResult], RunnerFailed | None]:
    """The results in the order of the images, and why there are no more of them."""
    results: list[ImageResult] = []
    try:
        lines = run(phone, work, on_deploy=on_deploy)
        results.extend(line for line in lines if isinstance(line, ImageResult))
    except RunnerFailed as failed:
        return results, failed
    return results, None


def _tensors(result: ImageResult, local: Path) -> Tensors:
    import numpy as np

    def read(shape: tuple[int, ...], offset_bytes: int) -> NDArray[np.float32]:
        count = int(np.prod(shape))
        return np.fromfile(local, "<f4", count, offset=offset_bytes).reshape(shape)

    return {one.name: read(one.shape, one.offset_bytes) for one in result.tensors}
