"""Work for the runner on a virtual phone, and what is read of its answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy
from numpy.typing import NDArray

from driftloop.devices.phone import Phone
from driftloop.devices.runner import variants
from driftloop.devices.runner.build import runner_binary
from driftloop.devices.runner.client import run, run_deep
from driftloop.devices.runner.protocol import Attestation, Decoding, ImageResult, RuntimeSettings
from driftloop.devices.runner.work import Work, WorkImage
from driftloop.harness import contract
from driftloop.harness.arms import deployment
from driftloop.harness.bundle import Bundle

Tensors = dict[str, NDArray[numpy.float32]]

ONE_THREAD = {"threads": 1, "vision_threads": 1}
"""For runs of many images: no thread waits for another, however busy this machine is."""


@dataclass(frozen=True)
class TinyRunner:
    """The runner on one phone, with the q8_0 files of the tiny bundle and pictures for it."""

    phone: Phone
    bundle: Bundle
    pictures: Sequence[WorkImage]

    def work(
        self,
        images: Sequence[WorkImage] | int = 1,
        *,
        run_id: str = "test",
        decoding: Decoding | None = None,
        prompt: str | None = None,
        **changes: object,
    ) -> Work:
        """A run of `images`, or of so many pictures; `changes` are the default runtime's."""
        fixed = contract.load("default")
        settings = deployment.settings(fixed, fixed.runtime)
        runtime = RuntimeSettings.model_validate(settings.runtime.model_dump() | changes)
        text, mmproj = self.bundle.text_model("q8_0"), self.bundle.mmproj("q8_0")
        return Work(
            run_id=run_id,
            runner=runner_binary(variants.choose(self.phone.identity())),
            text_model=text,
            text_model_sha256=self.bundle.file_sha256(text),
            mmproj=mmproj,
            mmproj_sha256=self.bundle.file_sha256(mmproj),
            settings=settings.model_copy(
                update={
                    "runtime": runtime,
                    "decoding": decoding or Decoding(),
                    "prompt": settings.prompt if prompt is None else prompt,
                }
            ),
            images=tuple(self.pictures[:images] if isinstance(images, int) else images),
        )

    def long_work(self, sessions: int, *, run_id: str = "test", **changes: object) -> Work:
        """Enough sessions that something can happen in the middle of them."""
        images = [
            replace(one, session=session, position=position)
            for session in range(sessions)
            for position, one in enumerate(self.pictures[:3])
        ]
        return self.work(images, run_id=run_id, **ONE_THREAD, **changes)

    def answer(self, todo: Work) -> list[ImageResult]:
        """The images' results of a whole run."""
        return image_results(run(self.phone, todo))

    def deep(
        self, images: Sequence[WorkImage] | int = 1, **changes: object
    ) -> list[tuple[ImageResult, Tensors]]:
        """Results of `images` with every tensor on the way to them; arguments as `work`'s."""
        return list(run_deep(self.phone, self.work(images, **changes)))


def image_results(lines: Iterable[object]) -> list[ImageResult]:
    """The images' results among a run's lines."""
    return [line for line in lines if isinstance(line, ImageResult)]


def attestations(lines: Iterable[object]) -> list[Attestation]:
    """One of each process that took part in a run."""
    return [line for line in lines if isinstance(line, Attestation)]


def slots(lines: Iterable[object]) -> list[tuple[int, int]]:
    """(session, position) of each image that was answered."""
    return [(one.session, one.position) for one in image_results(lines)]


def token_ids(result: ImageResult) -> list[int]:
    """The answer's ids."""
    return [token.id for token in result.tokens]


def answers(lines: Iterable[object]) -> list[tuple[str, list[int], list[int]]]:
    """(case, prompt ids, answer ids) in the order of the sessions."""
    found = sorted(image_results(lines), key=lambda one: (one.session, one.position))
    return [(one.case_id, one.prompt_ids, token_ids(one)) for one in found]
