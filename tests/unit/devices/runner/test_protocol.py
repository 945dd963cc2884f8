"""What the two sides agree on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from driftloop.devices import runner
from driftloop.devices.runner.protocol import LINE, PROTOCOL_VERSION, Finished


def test_the_runner_speaks_the_hosts_protocol_version() -> None:
    source = (Path(runner.__file__).parent / "request.h").read_text()
    assert re.findall(r"kProtocol = (\d+)", source) == [str(PROTOCOL_VERSION)]


def test_a_line_is_told_by_its_record() -> None:
    assert LINE.validate_json('{"record":"finished","images":3,"error":null}') == Finished(images=3)


def test_a_field_the_host_does_not_know_is_an_error() -> None:
    with pytest.raises(ValidationError):
        LINE.validate_json('{"record":"finished","images":3,"error":null,"more":1}')
