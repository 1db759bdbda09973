"""Errors of PyYAML, explained for users who do not know how a YAML parser works."""

import re

import yaml

from orchestrator.documents.node import YamlFault

LAST_RESORT = "YAML has another meaning for this"
"""Beginning of the message for an error of PyYAML that has no explanation here; no such error is known."""

_QUOTE = "a text that begins so must be in quotes"

_CONTEXTS = (
    ("directive", "a line that begins with % is an instruction to the reader of YAML; " + _QUOTE),
    ("anchor", "& marks a value for later use and needs a name; " + _QUOTE),
    ("alias", "* takes a value marked before and needs its name; " + _QUOTE),
    ("tag", "! begins a tag, which no key here needs; " + _QUOTE),
    ("block scalar", "| and > begin a text of several lines, which stands below; " + _QUOTE),
)
"""Explanations by a word in the context of PyYAML's error; the first that fits is used."""

_PROBLEMS = (
    ("mapping values are not allowed", "a second colon with a space after it; put the whole value in quotes, or begin "
     "a new line"),
    ("sequence entries are not allowed", "a list cannot begin here; begin it on a new line, each item with `- `"),
    ("mapping keys are not allowed", "`? ` cannot be used here; put the text in quotes"),
    ("could not find expected ':'", "a key has no colon; write `key: value`, with a space after the colon"),
    ("unexpected end of stream", "the quotation mark that begins here is never closed"),
    ("document separator", "a quotation mark is not closed before the line `---` or `...`"),
    ("unknown escape character", "a backslash in double quotes begins an escape, and there is none like this; use "
     "single quotes, or double the backslash"),
    ("escape sequence of", "an escape lacks hexadecimal digits; use single quotes, or double the backslash"),
    ("<block end>", "the indentation does not fit the lines above; keys of one section begin in the same column"),
    ("',' or ']'", "a list in brackets lacks a comma, or its closing `]`"),
    ("',' or '}'", "a mapping in braces lacks a comma, or its closing `}`"),
    ("<document start>", "this does not belong to what stands above; a file is one mapping of `key: value`"),
    ("node content", "something is missing here; put texts with special characters in quotes"),
    ("tag handle", "! begins a tag, which no key here needs; " + _QUOTE),
    ("YAML directive", "the line `%YAML` is not needed; leave it out"),
    ("YAML document", "the line `%YAML` is not needed; leave it out"),
)  # fmt: skip


def in_plain_words(error: yaml.MarkedYAMLError) -> YamlFault:
    """Return an error of PyYAML as a fault with its place."""
    problem, context = error.problem or "", error.context or ""
    # If a quotation mark is never closed, the end of the file is no useful place for the message.
    begins = "end of stream" in problem or "document separator" in problem
    mark = error.context_mark if begins else error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return YamlFault(line, _words(problem, context), column=column, is_yaml=False)


def _words(problem: str, context: str) -> str:
    if found := re.search(r"found character '(.+)' that cannot start any token", problem):
        if found[1] == "\\t":
            return "a tab is here; YAML indents and separates with spaces"
        return f"`{found[1]}` cannot begin a text; put it in quotes"
    for part, words in (*(each for each in _CONTEXTS if each[0] in context), *_PROBLEMS):
        if part in problem or part in context:
            return words
    return f"{LAST_RESORT} ({problem}); put texts with special characters in quotes"
