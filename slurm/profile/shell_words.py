"""Checks of names and commands of a profile: those are refused that a shell would take for more than plain words."""

import re
import shlex

_WORD = re.compile(r"[^\s'\"\\;$`]+")
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/@:=,~-]*", re.ASCII)
_OPERATOR = re.compile(r"&&?|\|\|?|\d?[<>]{1,2}.*|.*([`$].*|;)", re.DOTALL)
"""A word with a meaning to a shell: an operator, or an expansion."""


def checked_word(word: str) -> str:
    """Return a name as Slurm has them, such as that of a partition.

    Raises:
        ValueError: it holds spaces, quotation marks, or what a shell would carry out.
    """
    if not _WORD.fullmatch(word) or not word.isprintable():
        raise ValueError(f"`{word[:60]}` is no name as Slurm has them: it holds no spaces, quotation marks, ; $ or `")
    return word


def checked_module(name: str) -> str:
    """Return the name of an environment module.

    Raises:
        ValueError: it is none, but may be several or a piece of shell.
    """
    if not _MODULE.fullmatch(name):
        raise ValueError(
            f"`{name[:60]}` is not the name of one module, such as cuda/12.4: list several as [a, b], and write lines "
            "of shell into `setup`"
        )
    return name


def checked_command(command: str) -> str:
    """Return a command that is put before Python.

    Raises:
        ValueError: a quotation mark is not closed, the command is empty, or a shell would be needed.
    """
    checked_program(command)
    try:
        words = shlex.split(command)
    except ValueError:
        raise ValueError(f"a quotation mark is not closed, or nothing follows a backslash: `{command[:60]}`") from None
    if not words:
        raise ValueError("the command is empty; leave the key out where there is no container")
    if operator := next((word for word in words if _OPERATOR.fullmatch(word)), None):
        raise ValueError(
            f"no shell reads this command, so that `{operator[:60]}` would reach it as it stands: write values out, "
            "and put lines of shell into `setup`"
        )
    return command


def checked_program(text: str) -> str:
    """Return a text that stands in one line of a script.

    Raises:
        ValueError: it is empty, or holds characters that cannot be seen.
    """
    if not text.strip() or not text.isprintable():
        raise ValueError("this must be one line of characters that can be seen, and not empty")
    return text
