"""The command described from its own help: the reference page of every command and option."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from orchestrator.cli.app import app


def commands_page() -> str:
    """Return the reference of the command in Markdown: every command with its arguments and options."""
    command: Any = typer.main.get_command(app)
    parts = [
        "# The command",
        "",
        "`ntksweep COMMAND --help` says the same in the terminal. This page is written from the code by",
        "`python docs/write_reference.py`.",
        "",
        "Options of every command:",
        "",
        *_table(command.params),
        "",
        _prose(command.epilog),
        "",
    ]
    for name, each in command.commands.items():
        parts += _section((name,), each)
    return "\n".join(parts).rstrip() + "\n"


def _section(path: tuple[str, ...], command: Any) -> Iterator[str]:
    yield from (f"{'#' * (len(path) + 1)} `ntksweep {' '.join(path)}`", "", _prose(command.help), "")
    if command.epilog:
        yield from (_prose(command.epilog), "")
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if shown:
        yield from (*_table(shown), "")
    for name, each in getattr(command, "commands", {}).items():
        yield from _section((*path, name), each)


def _table(parameters: list[Any]) -> Iterator[str]:
    yield from ("| | |", "| --- | --- |")
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.metavar or parameter.name.upper()}`"
        else:
            names = ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))
            name = names if parameter.is_flag or not parameter.metavar else f"{names} `{parameter.metavar}`"
        name = name.replace("|", chr(92) + "|")
        yield f"| {name} | {_prose(parameter.help).replace('|', chr(92) + '|')} |"


def _prose(text: str | None) -> str:
    """Return help as Markdown: its paragraphs, without the marks that only the terminal knows."""
    paragraphs = (" ".join(part.split()) for part in (text or "").replace("\b", "").split("\n\n"))
    return "\n\n".join(re.sub(r"^Example: (.*)$", r"Example: `\1`", part) for part in paragraphs if part)
