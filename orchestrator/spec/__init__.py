"""The spec: one YAML file, checked by one pydantic model."""

from orchestrator.spec.model import Spec
from orchestrator.spec.reading import change_spec, make_spec, parse_spec, read_spec

__all__ = ["Spec", "change_spec", "make_spec", "parse_spec", "read_spec"]
