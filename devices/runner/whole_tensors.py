"""A close look at images on a phone: the runner in deep mode, and its tensors brought here."""

from __future__ import annotations

import shlex
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
from devices.runner.protocol import ImageResult, tensors_name
from devices.runner.work import Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.float32]]


def look(
    phone: Phone, work: Work, *, on_deploy: deploy.Progress | None = None
) -> Iterator[tuple[ImageResult, Tensors]]:
    """Run `work` in deep mode; each image's result with its tensors, in the order of `work.images`.

    Each image's tensors are fetched and removed as they come, so that the phone holds those of two
    images at most. Always anew, whatever stands on the phone under `work.run_id`, and nothing of it
    stays there. The caller holds the phone's lease.

    Raises:
        DeviceError: as `client.run`; what was answered before a RunnerFailed has been yielded.
    """
    deep = replace(work, deep=True)
    phone.patiently(lambda: discard(phone, work.run_id))
    try:
        for line in run(phone, deep, on_deploy=on_deploy):
            if isinstance(line, ImageResult):
                yield line, _fetched(phone, deep, line)
    except (RunnerFailed, GeneratorExit):
        phone.patiently(lambda: discard(phone, work.run_id))
        raise
    phone.patiently(lambda: discard(phone, work.run_id))


def _fetched(phone: Phone, work: Work, result: ImageResult) -> Tensors:
    """The tensors of `result`, which then no longer lie on the phone."""
    (attempt,) = phone.patiently(lambda: attempts(phone, run_folder(work)))
    remote = f"{attempt.tensors_folder}/{tensors_name(result.session, result.position)}"
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "tensors"
        phone.patiently(lambda: phone.pull(remote, local))
        phone.patiently(lambda: phone.shell(f"rm -f {shlex.quote(remote)}"))
        return _tensors(result, local)


def _tensors(result: ImageResult, local: Path) -> Tensors:
    import numpy as np

    def read(shape: tuple[int, ...], offset_bytes: int) -> NDArray[np.float32]:
        count = int(np.prod(shape))
        return np.fromfile(local, "<f4", count, offset=offset_bytes).reshape(shape)

    return {one.name: read(one.shape, one.offset_bytes) for one in result.tensors}
