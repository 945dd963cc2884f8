"""Work for the runner on a virtual phone, and what is read of its answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from devices.phone import Phone
from devices.runner import variants
from devices.runner.build import runner_binary
from devices.runner.protocol import Decoding, ImageResult, RuntimeSettings
from devices.runner.work import Settings, Work, WorkImage
from harness import contract
from harness.arms import deployment
from harness.bundle import Bundle

ONE_THREAD = {"threads": 1, "vision_threads": 1}
"""For runs of many images: no thread waits for another, however busy this machine is."""


def settings(decoding: Decoding, **changes: object) -> Settings:
    """The default contract's, its runtime changed."""
    fixed = contract.load("default")
    own = deployment.settings(fixed, fixed.runtime)
    runtime = RuntimeSettings.model_validate(own.runtime.model_dump() | changes)
    return replace(own, runtime=runtime, decoding=decoding)


def work(
    tiny: Bundle,
    phone: Phone,
    images: Sequence[WorkImage],
    run_id: str = "test",
    decoding: Decoding | None = None,
    **changes: object,
) -> Work:
    """A run of `images` with the q8_0 files; `changes` are the runtime's."""
    text, mmproj = tiny.text_model("q8_0"), tiny.mmproj("q8_0")
    return Work(
        run_id=run_id,
        runner=runner_binary(variants.choose(phone.identity())),
        text_model=text,
        text_model_sha256=tiny.file_sha256(text),
        mmproj=mmproj,
        mmproj_sha256=tiny.file_sha256(mmproj),
        settings=settings(decoding or Decoding(), **changes),
        images=tuple(images),
    )


def many(pictures: Sequence[WorkImage], sessions: int) -> list[WorkImage]:
    """Enough sessions that something can happen in the middle of them."""
    return [
        replace(one, session=session, position=position)
        for session in range(sessions)
        for position, one in enumerate(pictures[:3])
    ]


def image_results(lines: Iterable[object]) -> list[ImageResult]:
    """The images' results among a run's lines."""
    return [line for line in lines if isinstance(line, ImageResult)]


def places(lines: Iterable[object]) -> list[tuple[int, int]]:
    """(session, position) of each image that was answered."""
    return [(one.session, one.position) for one in image_results(lines)]


def token_ids(result: ImageResult) -> list[int]:
    """The answer's ids."""
    return [token.id for token in result.tokens]


def answers(lines: Iterable[object]) -> list[tuple[str, list[int], list[int]]]:
    """(case, prompt ids, answer ids) in the order of the sessions."""
    found = sorted(image_results(lines), key=lambda one: (one.session, one.position))
    return [(one.case_id, one.prompt_ids, token_ids(one)) for one in found]
