"""What a role's arms run under: contract, bundle, and the images with the pixels it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from devices.paths import cache_dir
from harness import cases
from harness.arms.base import Prepared, Side
from harness.bundle import Bundle
from harness.cases import Session
from harness.contract import Contract
from harness.errors import CaseError
from harness.ladder import Role
from harness.progress import Advance
from harness.running import canary_sessions
from harness.running.prepared import PreparedSet, place, prepare_cases

Track = Callable[[str], Advance]
"""Names a piece of work and gives the callback `(done, total)` for it."""


@dataclass(frozen=True)
class Under:
    """A side before its images are prepared."""

    contract: Contract
    bundle: Bundle


@dataclass(frozen=True)
class Sides:
    """Every role that takes part. All hold the same cases in the same places."""

    by_role: dict[Role, Side]
    sessions: list[Session]
    refused: tuple[CaseError, ...]
    """Images that one of the sides could not prepare."""

    def of(self, role: Role) -> Side:
        """That role's side; the run's own where phones were given nothing else."""
        return self.by_role.get(role) or self.by_role["app"]

    @property
    def every(self) -> Iterable[Side]:
        """Each side once."""
        return self.by_role.values()

    def pixels_sha256(self, role: Role, session: int, position: int) -> str | None:
        """Of the pixels at that place; None where the role has no side of its own."""
        side = self.by_role.get(role)
        return None if side is None else side.images[session, position].pixels_sha256


def prepare(
    images: str,
    under: Mapping[Role, Under],
    seed: int,
    most: int | None,
    track: Track,
    *,
    skip_bad: bool,
) -> Sides:
    """Every case in its place with the pixels of each side, and the canaries after the last.

    `under` holds at least the role `app`. `most`: so many cases at most, drawn by `seed`.

    Raises:
        CaseError: as `cases.load_cases` and `prepare_cases` do.
    """
    contract = under["app"].contract
    found = cases.load_cases(images, contract.answer.labels, skip_bad=skip_bad)
    taken, refused = found.cases, found.refused
    size = contract.limits.images_per_session
    taken = cases.drawn(taken, most, seed)
    prepared: dict[Role, PreparedSet] = {}
    for role, side in under.items():
        prepared[role] = prepare_cases(
            taken,
            side.contract.pixels,
            cache_dir("pixels"),
            track(f"preparing {'' if role == 'app' else f'{role} '}pixels"),
            skip_bad=skip_bad,
        )
        taken = tuple(ready.case for ready in prepared[role].cases)
        refused = (*refused, *prepared[role].refused)
    sessions = cases.sessions(taken, size, seed)
    return Sides(
        {
            role: Side(side.contract, side.bundle, _by_place(sessions, prepared[role], side))
            for role, side in under.items()
        },
        sessions,
        refused,
    )


def _by_place(
    sessions: Sequence[Session], ready: PreparedSet, side: Under
) -> dict[tuple[int, int], Prepared]:
    placed = [one.image for one in place(sessions, ready)]
    first = [image for image in placed if image.session == 0]
    canaries = canary_sessions.canaries(
        first, len(sessions), side.contract.pixels.size, cache_dir("pixels")
    )
    return {(image.session, image.position): image for image in (*placed, *canaries)}
