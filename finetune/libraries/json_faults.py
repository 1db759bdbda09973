"""Faults of JSON in plain English, where Python's own words name a symptom or its parser."""

import json

_SAID = {
    "Expecting value": "a value is missing here, or a text without quotation marks",
    "Expecting property name enclosed in double quotes": "a name in double quotation marks, or a closing }, is missing",
    "Expecting ':' delimiter": "a colon is missing after a name",
    "Expecting ',' delimiter": "a comma, or a closing } or ], is missing",
    "Illegal trailing comma before end of object": "a comma too many before }",
    "Illegal trailing comma before end of array": "a comma too many before ]",
    "Unterminated string starting at": "the text that begins here is not closed by a quotation mark",
    "Invalid control character at": "a text holds a tab or a line break, which JSON writes \\t or \\n",
    "Invalid \\escape": "a backslash in a text is written \\\\",
    "Invalid \\uXXXX escape": "\\u needs four hexadecimal digits",
    "Extra data": "there is more after the end of what began before",
}


def json_fault(error: json.JSONDecodeError) -> str:
    """Return what is wrong with a JSON text, in plain English; unknown faults in Python's words."""
    return _SAID.get(error.msg.removesuffix(": "), error.msg)
