"""YAML that others wrote: each key once, as JSON and TOML are read too."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml


class _EachKeyOnce(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML takes the last of two keys of one name, a trainer perhaps the first."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node] | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((name for name, count in names.items() if count > 1 and name != "<<"), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"the key {twice} stands twice in the table from line {line} on")
        return node


def loads(text: str) -> list[Any]:
    """The documents in `text`. Raises ValueError where it is no YAML or nested too deeply."""
    try:
        return list(yaml.load_all(text, _EachKeyOnce))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
