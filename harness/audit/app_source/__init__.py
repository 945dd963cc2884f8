"""An Android app's own account of the contract: its Kotlin, Java and JNI C++, read and not run.

Every file is parsed with its grammar into one small tree (`language`); constants, parameters and
JNI calls are followed through it (`program`); one module for each group of aspects (`picture` and
those beside it) then says what the code does, where, and what could not be read and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from harness.audit.app_source import answers, files, gpu, limit, runtime, sampling, session, sources
from harness.audit.app_source.picture import image, pixel_loop
from harness.audit.app_source.program import handed
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Resolver
from harness.audit.app_source.prompt import Prompt
from harness.audit.findings import Finding
from harness.contract import Contract

__all__ = ["read"]


def read(folder: Path, contract: Contract) -> list[Finding]:
    """What the app's source under `folder` says about the contract's aspects.

    `contract` decides nothing that is found but which of several prompts is the classification's
    and which words are labels.

    Raises:
        BadInput: no such folder, or no Kotlin, Java or C++ in it.
        ArmUnavailable: the packages of the extra `audit` are not installed.
    """
    loaded = sources.load(folder)
    program = Program(loaded)
    prompt = Prompt(program, contract)
    resolver = Resolver(program, prompt.pins)
    found = [
        *image.read(program, resolver),
        *pixel_loop.read(program, resolver),
        *prompt.findings(resolver),
        sampling.read(program, resolver),
        *limit.read(program, resolver),
        *answers.read(program, resolver, contract),
        *session.read(program, resolver),
        *runtime.read(program, resolver),
        *gpu.read(program, resolver),
        *files.read(program, resolver),
    ]
    found = list(_completed(found, handed.read(program, resolver)))
    if not loaded.unread:
        return found
    missing = f"; nested too deeply to be read: {', '.join(loaded.unread)}"
    return [replace(f, note=f.note + missing) if f.value is None else f for f in found]


def _completed(found: list[Finding], handed_on: Iterable[Finding]) -> Iterator[Finding]:
    """`found`, with what was handed to code that is not here where nothing else is known."""
    by_aspect: dict[str, list[Finding]] = {}
    for finding in handed_on:
        by_aspect.setdefault(finding.aspect, []).append(finding)
    for finding in found:
        others = by_aspect.get(finding.aspect, [])
        alone = len({other.value for other in others}) == 1
        yield others[0] if finding.value is None and alone else finding
