"""What can go wrong in an evaluation, drawn as a tree.

DriftloopError
├── BadInput                 wrong usage or bad input; exit code 2
│   ├── ContractError        a contract that cannot be read or is contradictory
│   ├── GatesError           a gates file that cannot be read
│   ├── CaseError            an image or manifest no phone could classify
│   ├── BundleError          a bundle whose parts are damaged or do not belong together
│   ├── CheckpointError      a checkpoint that is missing or of another architecture
│   ├── DatasetError         a prepared dataset, or labels for one, that cannot be used
│   ├── EndpointRefused      a labelling endpoint that will never take this request
│   ├── RunFolderError       a run folder that belongs to another run, or cannot be read
│   ├── AuditError           a source that an audit was pointed at and cannot read
│   └── TrainingDiverged     a training whose loss is no number; what was saved before is kept
├── EndpointFailed           a labelling endpoint that is down, too slow or speaks no OpenAI; exit 4
├── AppRunFailed             the app ended without an answer for each image; exit code 4
└── ArmUnavailable           an arm cannot run on this machine at all (package, build); exit code 4

A fault inside one case is no exception: it is stored in the observation's `error`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class DriftloopError(Exception):
    """Root of the tree. `str(error)` is one line: what is wrong and what to do about it."""

    exit_code: int = 4


class BadInput(DriftloopError):
    """Wrong usage or bad input."""

    exit_code = 2


class ContractError(BadInput):
    """A contract that cannot be read or is contradictory."""


class GatesError(BadInput):
    """A gates file that cannot be read."""


class CaseError(BadInput):
    """An image or manifest no phone could classify. `kind` names the refusal, `path` the file."""

    def __init__(self, path: str, kind: str, detail: str) -> None:
        self.path = path
        self.kind = kind
        self.detail = detail
        super().__init__(f"{path}: {kind}: {detail}")


class BundleError(BadInput):
    """A bundle whose parts are damaged or do not belong together."""


class CheckpointError(BadInput):
    """A checkpoint that is missing or of another architecture."""


class DatasetError(BadInput):
    """A prepared dataset, or labels for one, that cannot be used."""


class EndpointRefused(BadInput):
    """A labelling endpoint that will never take this request: wrong key, model, address or form."""


class AuditError(BadInput):
    """A source that an audit was pointed at and cannot read, or whose code fails."""


class RunFolderError(BadInput):
    """A run folder that belongs to another run, or cannot be read."""


class TrainingDiverged(BadInput):
    """A training whose loss is no number; what was saved before is kept."""


class EndpointFailed(DriftloopError):
    """A labelling endpoint that fails or does not speak OpenAI's API; finished labels are kept."""


class AppRunFailed(DriftloopError):
    """The app ended, or was stuck, without an answer for each image; the same call goes on."""


class ArmUnavailable(DriftloopError):
    """An arm cannot run on this machine at all: a package or a build is missing."""


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Imports made within need the extra `name` of driftloop; `purpose` begins the error's line.

    Raises:
        ArmUnavailable: a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        install = f"pip install 'driftloop[{name}]'"
        raise ArmUnavailable(f"{purpose} needs {error.name}: {install}") from error
