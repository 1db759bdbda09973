"""What all sections of a spec are made of."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the spec: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Adds:
    """Marks a key that adds numbers to a sweep and changes no others: a finished sweep can gain or lose it."""


def adding_keys(section: Section) -> list[str]:
    """Return the keys of a section that are marked by `Adds`."""
    fields = type(section).model_fields
    return [name for name, field in fields.items() if any(isinstance(each, Adds) for each in field.metadata)]
