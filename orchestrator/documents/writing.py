"""Writing YAML that readers of YAML 1.1 and of 1.2 read back unchanged."""

import re
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, which quotes texts that YAML 1.1 would not read as texts, and here those of YAML 1.2 too."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$|0o[0-7]+$"), list("-+0123456789"))


def to_yaml(value: Any, *, on_one_line: bool = False) -> str:
    """Return a value as YAML, keys in their own order.

    Args:
        value: texts, numbers, true, false, None, and lists and mappings of those.
        on_one_line: whether lists and mappings are written in brackets.
    """
    width = 10_000 if on_one_line else 80
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=on_one_line, sort_keys=False, allow_unicode=True, width=width
    )
    return str(text)
