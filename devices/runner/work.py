"""What the runner is to do on a phone, in this host's words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from driftloop.devices.deploy import LocalBlob
from driftloop.devices.errors import BadRequest
from driftloop.devices.hashing import file_sha256
from driftloop.devices.runner.protocol import ImageRequest, ImageResult, Request, Settings

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class WorkImage:
    """One image of a session. (`session`, `position`) is its slot; a case may fill two."""

    case_id: str
    session: int
    position: int
    pixels_path: Path
    """A PNG on this host, already what the model sees."""
    pixels_sha256: str
    """SHA-256 over its RGB bytes, row by row."""
    always: bool = False
    """Run even after the run was stopped."""
    trajectory: LocalBlob | None = None
    """A reference's trajectory (safetensors) that the runner is driven along; None: not driven."""

    def is_answered_by(self, result: ImageResult) -> bool:
        """Whether `result` fills this image's slot, whatever pixels the runner made of it."""
        slot = (result.case_id, result.session, result.position)
        return slot == (self.case_id, self.session, self.position)


@dataclass(frozen=True)
class Work:
    """A run on one phone; BadRequest when `run_id` cannot name a folder."""

    run_id: str
    """Names the run's folder on the phone; the same name again continues the run."""
    runner: Path
    """The program; `devices.runner.build.runner_binary` builds one."""
    text_model: Path
    text_model_sha256: str
    mmproj: Path
    mmproj_sha256: str
    settings: Settings
    images: tuple[WorkImage, ...]
    evidence: bool = True
    """Fingerprints of every image's tensors; False only to measure what they cost."""
    deep: bool = False
    """Keep every tensor of every image; `devices.runner.client.run_deep` fetches them."""

    def __post_init__(self) -> None:
        if not _RUN_ID.fullmatch(self.run_id):
            raise BadRequest(
                f"{self.run_id!r} cannot name a run: use at most 100 of A-Z, a-z, 0-9, . _ and -"
            )

    @cached_property
    def sha256(self) -> str:
        """Hash of everything but the images that an answer depends on; trajectories count."""
        parts = (
            self._runner_sha256,
            self.text_model_sha256,
            self.mmproj_sha256,
            repr((self.settings, self.evidence, self.deep)),
            *(
                repr((image.session, image.position, image.trajectory.sha256))
                for image in self.images
                if image.trajectory
            ),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def _runner_sha256(self) -> str:
        return file_sha256(self.runner)

    @cached_property
    def _png_sha256(self) -> dict[Path, str]:
        return {path: file_sha256(path) for path in {image.pixels_path for image in self.images}}

    def blobs(self) -> list[LocalBlob]:
        """Every file the phone needs; the program first."""
        return [
            LocalBlob(self.runner, self._runner_sha256, executable=True),
            LocalBlob(self.text_model, self.text_model_sha256),
            LocalBlob(self.mmproj, self.mmproj_sha256),
            *(LocalBlob(path, sha256) for path, sha256 in self._png_sha256.items()),
            *(image.trajectory for image in self.images if image.trajectory),
        ]

    def request(
        self,
        images: Sequence[WorkImage],
        remote: Mapping[str, str],
        *,
        stop_path: str | None = None,
        tensors_folder: str | None = None,
    ) -> Request:
        """The request for `images`; `remote` holds the deployed paths by SHA-256.

        `stop_path` and `tensors_folder` (used in deep mode only) are `Request`'s.
        """
        return Request(
            **dict(self.settings),
            run_id=self.run_id,
            text_model_path=remote[self.text_model_sha256],
            mmproj_path=remote[self.mmproj_sha256],
            stop_path=stop_path,
            evidence=self.evidence,
            tensors_folder=tensors_folder if self.deep else None,
            images=[
                ImageRequest(
                    case_id=image.case_id,
                    session=image.session,
                    position=image.position,
                    pixels_path=remote[self._png_sha256[image.pixels_path]],
                    always=image.always,
                    trajectory_path=remote[image.trajectory.sha256] if image.trajectory else None,
                )
                for image in images
            ],
        )
