"""Programs of this host, run to their end, and the one line that says why one failed."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from driftloop.devices.errors import ToolchainMissing

_LOG = logging.getLogger(__name__)

BuildProgress = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, what was just done)."""

_NINJA_STEP = re.compile(r"\s*\[(\d+)/(\d+)\] (.*)")


def run(
    task: str,
    command: Sequence[str],
    limit_s: float,
    *,
    advice: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What `command` prints on stdout; ToolchainMissing when it fails or exceeds `limit_s`.

    `task` names it in errors, such as `downloading x`; `advice` says there what to do about one.
    """
    _LOG.debug("%s: %s", task, shlex.join(command))
    advice = advice and f"; {advice}"
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise ToolchainMissing(f"{task} took longer than {limit_s:.0f} s{advice}") from expired
    if done.returncode != 0:
        raise ToolchainMissing(f"{task} failed: {reason(done.stderr)}{advice}")
    return done.stdout


def build(
    task: str,
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str],
    progress: BuildProgress | None,
) -> None:
    """Run a build; what it prints is appended to `log`, and ninja's steps go to `progress`.

    Raises ToolchainMissing, which names the log, when it fails.
    """
    _LOG.debug("%s: %s", task, shlex.join(command))
    with (
        log.open("a", encoding="utf-8") as record,
        subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                record.write(line)
                if progress and (step := _NINJA_STEP.match(line)):
                    progress(int(step[1]), int(step[2]), step[3])
        except BaseException:
            # When interrupted, nothing must go on writing into the folder of the next build.
            process.terminate()
            raise
    if process.returncode != 0:
        raise ToolchainMissing(f"{task} failed with status {process.returncode}; see {log}")


def reason(stderr: str) -> str:
    """The line that says why a program failed: pip's last ERROR, else the last line of all."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return ([line for line in lines if line.startswith("ERROR")] or lines or ["no message"])[-1]
