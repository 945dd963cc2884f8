"""The run folder: `run.json` and `observations.jsonl`, safe against SIGKILL at any moment.

A `RunFolder` reads a folder as it is, whether its run goes on, ended or was killed. A `Journal`
is the only writer: it holds the folder's lock, drops the torn last line of a killed writer, and
refuses a second observation for the same slot.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from driftloop.devices.disturbances import Disturbances
from driftloop.devices.errors import DeviceError
from driftloop.harness import atomic, jsonl
from driftloop.harness.errors import ArmUnavailable, RunFolderError
from driftloop.harness.jsonl import Appender
from driftloop.harness.ladder import Who
from driftloop.harness.records.inquiry import INQUIRY_FILE, Inquiry
from driftloop.harness.records.observation import ArmAttestation, Observation, Slot
from driftloop.harness.records.record import (
    ArmFailure,
    CaseRecord,
    DisturbancesRecord,
    Outlook,
    RunRecord,
    Stop,
)

RUN_FILE = "run.json"
OBSERVATIONS_FILE = "observations.jsonl"
VERDICT_FILE = "verdict.json"
PIXELS_FOLDER = "pixels"
"""`<pixels_sha256>.png` for every picture: exactly what the models saw."""
_LOCK_FILE = ".lock"


class RunFolder:
    """A run folder, for reading. Takes no lock and changes nothing."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def run_path(self) -> Path:
        return self.path / RUN_FILE

    @property
    def observations_path(self) -> Path:
        return self.path / OBSERVATIONS_FILE

    def record(self) -> RunRecord:
        """What `run.json` says.

        Raises:
            RunFolderError: no run folder, damaged, or of another version of driftloop.
        """
        record = jsonl.document(self.run_path, RunRecord, RunFolderError)
        if record is None:
            raise RunFolderError(f"{self.path}: no run folder, it holds no {RUN_FILE}")
        return record

    def inquiry(self) -> Inquiry:
        """What `inquiry.json` says; empty where the run did not get that far.

        Raises:
            RunFolderError: damaged, or of another version of driftloop.
        """
        return jsonl.document(self.path / INQUIRY_FILE, Inquiry, RunFolderError) or Inquiry()

    def read(self) -> Iterator[Observation]:
        """The observations in the order in which they were written, without a torn last line.

        Raises:
            RunFolderError: the file cannot be read, a whole line is no observation, or one that
                the run never asked for or that has been made before.
        """
        return self._checked(self.record())

    def _checked(self, record: RunRecord) -> Iterator[Observation]:
        """What `read` gives of a folder whose `run.json` is `record`."""
        cases = {case.place: case for case in (*record.cases, *record.canaries)}
        parties = set(record.deliveries)
        lines: dict[Slot, str] = {}
        for where, line in jsonl.lines_of(self.observations_path, RunFolderError):
            seen = jsonl.parsed(Observation, line, where, RunFolderError)
            case, first = cases.get(seen.place), lines.setdefault(seen.slot, where)
            if (
                case is None
                or seen.who not in parties
                or (case.id, case.canary) != (seen.case_id, seen.canary)
            ):
                raise RunFolderError(f"{where}: {_named(seen)} was never asked for by this run")
            if first != where:
                raise RunFolderError(f"{where}: {_named(seen)} is there already, at {first}")
            yield seen


class Journal(RunFolder):
    """The one writer of a run folder; a context manager. Safe to use from several threads."""

    def __init__(self, path: Path | str, wanted: RunRecord) -> None:
        """Open `path` for `wanted`: a new run, or an earlier one that this one goes on with.

        An earlier run must not differ (`RunRecord.differences`). Its id and start are kept, and
        phones add up.

        Raises:
            RunFolderError: another run's folder (says what differs), damaged, not writable, or
                another driftloop process is writing to it.
        """
        super().__init__(path)
        self._guard = threading.Lock()
        self._lock = FileLock(self.path / _LOCK_FILE, timeout=0, thread_local=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise RunFolderError(
                f"{self.path}: another driftloop process is writing to this run folder; "
                "wait for it or choose another --out"
            ) from None
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be used as a run folder: {error}") from error
        try:
            self._record = self._resumed(wanted)
            self._disturbed = {one.serial: one for one in self._record.disturbances}
            """By earlier commands of the run."""
            self._save()
            self._seen = {seen.slot: seen for seen in self._checked(self._record)}
            self._inquiry = super().inquiry()
            self._file = Appender(self.observations_path, RunFolderError)
        except OSError as error:
            self._lock.release()
            raise RunFolderError(f"{self.path} cannot be written: {error}") from error
        except RunFolderError:
            self._lock.release()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder; what was written stays."""
        self._file.close()
        self._lock.release()

    @property
    def current(self) -> RunRecord:
        """The record as this writer holds it."""
        return self._record

    def inquiry(self) -> Inquiry:
        """As this writer holds it."""
        return self._inquiry

    def read(self) -> Iterator[Observation]:
        """The observations so far, those of an earlier start among them, parsed once."""
        with self._guard:
            return iter(tuple(self._seen.values()))

    def missing(self, arm: str, phone: str | None) -> list[CaseRecord]:
        """The cases and canaries for which this arm has no observation yet, in order.

        An arm that was stopped on this phone needs no more cases.
        """
        with self._guard:
            record = self._record
            who: Who = (arm, phone)
            wanted = () if who in {stop.who for stop in record.stops} else record.cases
            canaries = record.canaries if record.carries_canaries(arm) else ()
            return [case for case in (*wanted, *canaries) if (*who, *case.place) not in self._seen]

    def append(self, observation: Observation) -> None:
        """Write one observation; on return it survives the end of this process.

        Raises:
            RunFolderError: its slot is already filled, or the disk refuses it.
        """
        with self._guard:
            if observation.slot in self._seen:
                raise RunFolderError(
                    f"{self.observations_path} already holds {_named(observation)}"
                )
            self._file.append([observation])
            self._seen[observation.slot] = observation

    def attest(self, attestation: ArmAttestation) -> None:
        """Record what runs for an arm: once per build, machine and settings, not per process."""
        with self._guard:
            known = [_identity(item) for item in self._record.attestations]
            if _identity(attestation) not in known:
                self._update(attestations=(*self._record.attestations, attestation))

    def fail(self, failure: ArmFailure) -> None:
        """Record why an arm could not deliver; dropped when the run is resumed."""
        with self._guard:
            self._update(failures=(*self._record.failures, failure))

    @contextmanager
    def failures_kept(self, arm: str, phone: str | None) -> Iterator[None]:
        """Record a device or an arm that fails in this block; nothing else is caught."""
        try:
            yield
        except (DeviceError, ArmUnavailable) as error:
            kind = type(error).__name__
            self.fail(ArmFailure(arm=arm, phone=phone, kind=kind, detail=str(error)))

    def stop(self, stop: Stop) -> None:
        """Record that a phone needs no more cases."""
        with self._guard:
            self._update(stops=(*self._record.stops, stop))

    def disturbed(self, serial: str, by: Disturbances) -> None:
        """Record what this command saw of a phone so far; what earlier ones saw is added."""
        with self._guard:
            before = self._disturbed.get(serial)
            now = DisturbancesRecord(
                serial=serial,
                link_breaks=by.link_breaks + (before.link_breaks if before else 0),
                waited_s=by.waited_s + (before.waited_s if before else 0.0),
                starts=by.starts + (before.starts if before else 0),
                remarks=tuple(dict.fromkeys([*(before.remarks if before else ()), *by.remarks])),
            )
            known = {one.serial: one for one in self._record.disturbances}
            if now != known.get(serial):
                self._update(disturbances=tuple((known | {serial: now}).values()))

    def foresee(self, outlook: Outlook) -> None:
        """Record how long the run is expected to take."""
        with self._guard:
            self._update(outlook=outlook)

    def finish(self, at: datetime) -> None:
        """Mark the run as finished at this time of day."""
        with self._guard:
            self._update(status="finished", finished_at=at)

    def learn(self, **more: object) -> None:
        """Record new values of fields of `Inquiry`."""
        with self._guard:
            self._inquiry = self._inquiry.model_copy(update=more)
            write_file(self.path / INQUIRY_FILE, self._inquiry.model_dump_json() + "\n")

    def _update(self, **changed: object) -> None:
        self._record = self._record.model_copy(update=changed)
        self._save()

    def _save(self) -> None:
        write_file(self.run_path, self._record.model_dump_json(indent=2) + "\n")

    def _resumed(self, wanted: RunRecord) -> RunRecord:
        if not self.run_path.exists():
            if self.observations_path.exists():
                raise RunFolderError(
                    f"{self.path} holds observations but no {RUN_FILE}; choose another --out"
                )
            return wanted
        earlier = self.record()
        if differences := earlier.differences(wanted):
            raise RunFolderError(
                f"{self.path} belongs to another run: {'; '.join(differences)}; "
                "choose another --out, or repeat the first command"
            )
        phones = {phone.serial: phone for phone in (*earlier.phones, *wanted.phones)}
        return wanted.model_copy(
            update={
                "run_id": earlier.run_id,
                "started_at": earlier.started_at,
                "phones": tuple(phones.values()),
                "left_out": tuple(one for one in wanted.left_out if one.phone not in phones),
                "attestations": earlier.attestations,
                "stops": earlier.stops,
                "disturbances": earlier.disturbances,
            }
        )


def write_file(path: Path, text: str) -> Path:
    """Replace a file of a run folder in one step.

    Raises:
        RunFolderError: it is not writable.
    """
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error}") from error
    return path


def _named(seen: Observation) -> str:
    where = f"{seen.arm} on {seen.phone or 'this host'}"
    return f"{where}, session {seen.session}, position {seen.position}, case {seen.case_id!r}"


def _identity(item: ArmAttestation) -> ArmAttestation:
    # A resumed run has another pid and load time, yet the same build on the same machine.
    same = item.attestation.model_copy(update={"pid": 0, "load_ms": 0.0, "placement": []})
    return item.model_copy(update={"attestation": same})
