"""The summary of a sweep as HTML, for notebooks; every text of users and data is escaped."""

import html
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.api.plots import measured
from orchestrator.errors import SweepError
from orchestrator.literal import printable
from orchestrator.results.loading import Results
from orchestrator.results.report.summary import Summary, Table, summarize

MOST_FAILURES = 5
"""Failures that are shown."""


def summary_html(results: Results, said: str = "", failures: Sequence[tuple[str, str]] = ()) -> str:
    """Return the summary of a sweep: what it was, its best layer sets, and what to beware of.

    Args:
        results: its results.
        said: how a run of it ended, in a few words.
        failures: stages that were given up, each with its message.
    """
    try:
        found = summarize(measured(results))
    except SweepError as error:  # a notebook would show a traceback
        return f"<div><code>{_text(repr(results))}</code><br>{_text(str(error))}</div>"
    overrides = results.folder.existing().spec.overrides
    return "".join(_parts(found, results, said, failures, overrides))


def _parts(
    found: Summary, results: Results, said: str, failures: Sequence[tuple[str, str]], overrides: Sequence[str]
) -> Iterator[str]:
    yield f"<div><h4>{_text(found.name)}</h4><p>{_text(found.lead)}</p>"
    facts = [*((name, value) for name, value in found.facts), *([("run", said)] if said else [])]
    facts += [("given beside the spec", " ".join(overrides))] if overrides else []
    yield "<p>" + " · ".join(f"{_text(name)}: <b>{_text(value)}</b>" for name, value in facts) + "</p>"
    yield from _failed(failures)
    yield f"<p>{_text(found.answer)}</p>"
    for table in found.best:
        yield _table(table)
    if found.cautions:
        yield "<details><summary>What to beware of</summary><ul>"
        yield from (f"<li>{_text(caution)}</li>" for caution in found.cautions)
        yield "</ul></details>"
    yield f"<p>Results: <code>{_text(str(results.folder.root))}</code></p></div>"


def _failed(failures: Sequence[tuple[str, str]]) -> Iterator[str]:
    for stage, message in failures[:MOST_FAILURES]:
        yield f"<p><b>failed: {_text(stage)}</b></p><pre>{_text(message.strip())}</pre>"
    if len(failures) > MOST_FAILURES:
        yield f"<p>and {len(failures) - MOST_FAILURES} more; <code>run.failures</code> has all of them</p>"


def _table(table: Table) -> str:
    heading = _row("th", table.headings)
    return (
        f"<table><caption>{_text(table.title)}</caption><thead>{heading}</thead><tbody>"
        + "".join(_row("td", row) for row in table.rows)
        + "</tbody></table>"
    )


def _row(tag: str, texts: Iterable[str]) -> str:
    cells = (
        f"<{tag} style='text-align:{'right' if column else 'left'}'>{_text(text)}</{tag}>"
        for column, text in enumerate(texts)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _text(text: str) -> str:
    return html.escape(printable(str(text)))
