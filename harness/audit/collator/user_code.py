"""A collator of the user's own: found by its name, given what it asks for, and run."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from PIL import Image

from driftloop.harness.errors import AuditError, DriftloopError

ADAPTOR: Final = "driftloop_example"
"""What a user calls the function that makes an example for their collator."""

_MODULE_NAME: Final = "driftloop_audited_collator"


@dataclass(frozen=True)
class Collator:
    """A callable that takes examples and gives a batch."""

    spec: str
    call: Callable[[Any], Any]
    example: Callable[[Image.Image, str, str], Any] | None = None
    """The user's adaptor: an example of an image, its prompt and its label."""


def load(spec: str, offered: Mapping[str, Any]) -> Collator:
    """The collator named `module:callable` or `file.py:callable`.

    A function or object that takes examples is taken as it is. A class, or a function that asks
    only for things in `offered` (by name: processor, tokenizer, ...), is called first and gives the
    collator. Further parameters of those names, and global names that nobody set, are given to a
    copy of it; the module stays as it is. Raises AuditError where there is no such callable, or its
    code fails while it is made.
    """
    name, _, attribute = spec.rpartition(":")
    if not name or not attribute:
        raise AuditError(f"collator {spec!r}: write module:callable, or file.py:callable")
    module = _imported(spec, name)
    try:
        found = _with_globals(attrgetter(attribute)(module), offered)
    except AttributeError as error:
        raise AuditError(f"collator {spec}: {name} has no {attribute}") from error
    asked = _asked(found)
    unknown = [item for item, is_required in asked.items() if is_required and item not in offered]
    if inspect.isclass(found) or (any(asked.values()) and not unknown):
        if unknown:
            raise _asks(spec, unknown)
        with running(spec):
            found = found(**{item: offered[item] for item in asked if item in offered})
        found = _with_globals(found, offered)
    if not callable(found):
        raise AuditError(f"collator {spec}: neither it nor what it returns is a callable")
    required = [item for item, is_required in _asked(found).items() if is_required]
    extra = {item: offered[item] for item in required if item in offered}
    examples = [item for item in required if item not in offered]
    if len(examples) > 1:
        raise _asks(spec, examples)

    def call(batch: object) -> object:
        if examples and extra:
            return found(**{examples[0]: batch}, **extra)
        return found(batch, **extra)

    adaptor = getattr(module, ADAPTOR, None)
    return Collator(spec, call, adaptor if callable(adaptor) else None)


@contextlib.contextmanager
def running(spec: str) -> Iterator[None]:
    """The user's code runs; raises AuditError where it fails. A script that parses arguments gets
    none, and what it prints stays off stdout, which may be read by a machine."""
    own = sys.argv
    sys.argv = [spec.rpartition(":")[0]]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except DriftloopError:
        raise
    except (Exception, SystemExit) as error:  # it may raise anything
        raise AuditError(f"collator {spec}: its code failed: {_said(error)}") from error
    finally:
        sys.argv = own


def _said(error: Exception | SystemExit) -> str:
    said = " ".join(str(error).split()) or "no message"
    if isinstance(error, SystemExit):
        said += ", it ends the process; put what a script does under `if __name__ == '__main__'`"
    elif isinstance(error, ModuleNotFoundError):
        said += "; install it, or name a file that holds the collator alone"
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if Path(file).parent != Path(__file__).parent and "site-packages" not in file:
            place = f" ({Path(file).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {said}{place}"


def _asks(spec: str, names: list[str]) -> AuditError:
    said = f"it asks for {', '.join(names)}, and driftloop cannot supply all of that"
    return AuditError(f"collator {spec}: {said}; name a function that takes only the examples")


def _imported(spec: str, name: str) -> ModuleType:
    if not name.endswith(".py"):
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.insert(0, here)
        try:
            with running(spec):
                return importlib.import_module(name)
        except AuditError as error:
            if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == name:
                said = "run it from the folder that holds it, or name the file"
                raise AuditError(f"collator {spec}: no module {name}; {said}") from error
            raise
    found = importlib.util.spec_from_file_location(_MODULE_NAME, Path(name))
    if found is None or found.loader is None or not Path(name).is_file():
        raise AuditError(f"collator {spec}: no file {name}")
    module = importlib.util.module_from_spec(found)
    sys.modules[_MODULE_NAME] = module
    with running(spec):
        found.loader.exec_module(module)
    return module


def _asked(target: Callable[..., Any]) -> dict[str, bool]:
    """The names of the parameters, and whether each has to be given."""
    try:
        found = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # builtins have no signature
        return {}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {item.name: item.default is item.empty for item in found if item.kind in kinds}


def _with_globals(found: Any, offered: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A notebook's function finds its processor there: a copy that takes it from `offered`."""
    if not inspect.isfunction(found):
        return found
    own = found.__globals__
    names = (name for name in found.__code__.co_names if name in offered)
    missing = {name: offered[name] for name in names if own.get(name) is None}
    code, given = found.__code__, (found.__name__, found.__defaults__, found.__closure__)
    copy = FunctionType(code, {**own, **missing}, *given)
    copy.__kwdefaults__ = found.__kwdefaults__
    return copy if missing else found
