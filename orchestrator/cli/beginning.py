"""The command that writes a file to start from: init."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.arguments import possible_path
from orchestrator.cli.terminal import say
from orchestrator.errors import SpecError

NOBODY = "and there is no terminal here to ask on"


def init(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="File to write; by default sweep.yaml, or cluster.yaml with --profile, or the name of the example.",
            callback=possible_path,
        ),
    ] = None,
    *,
    data: Annotated[
        str | None,
        typer.Option(help="A CSV, TSV, JSONL or Parquet file, a folder of them, or the id of a data set on the hub."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder of the model, or its id on the hub.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Column of the texts, if ntksweep cannot find it.", metavar="COLUMN")
    ] = None,
    text_pair: Annotated[
        str | None, typer.Option(help="Column of the second texts of pairs.", metavar="COLUMN")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels, if ntksweep cannot find it.", metavar="COLUMN")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a data set on the hub.", metavar="NAME")] = None,
    full: Annotated[bool, typer.Option("--full", help="Write every key with its meaning and default.")] = False,
    example: Annotated[
        str | None, typer.Option(help="Write one of the examples that come with ntksweep.", metavar="NAME")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Write a cluster profile instead of a spec.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Look into your data and model, and write a short spec for them; asks for what is not given.

    Example: ntksweep init my-sweep.yaml --data reviews.csv --model FacebookAI/roberta-base
    """
    columns = {"--text": text, "--text-pair": text_pair, "--label": label}
    looked = {"--data": data, "--model": model, "--config": config, **columns}
    _refuse_two_kinds({"--full": full, "--example": example, "--profile": profile, **looked})
    if example is not None:
        _write_example(example, path, force=force)
    elif profile:
        _write_profile(path or Path("cluster.yaml"), force=force)
    else:
        path = path or Path("sweep.yaml")
        _refuse_data(path)
        _refuse_existing(path, force=force)
        text, doubts = (_full(path), ()) if full else _short(path, looked)
        _write_spec(path, text)
        for doubt in doubts:
            say(doubt)


def _refuse_two_kinds(options: dict[str, object]) -> None:
    """Raise an error if options of different kinds of files are given together."""
    alone = [name for name in ("--full", "--example", "--profile") if options[name]]
    others = [name for name, value in options.items() if value and name not in alone]
    if alone and (len(alone) > 1 or others):
        raise SpecError(f"{alone[0]} writes a file by itself; leave {', '.join([*alone[1:], *others])} out")


def _refuse_data(path: Path) -> None:
    """Raise an error if the file to write is there and is one of data: the option `--data` was left out."""
    from finetune.data.data_folder import is_data

    if is_data(path) and path.is_file():
        raise SpecError(
            f"{path} is a file of data by its ending, and the spec would replace it; name the spec first: "
            f"ntksweep init sweep.yaml --data {path}"
        )


def _refuse_existing(path: Path, *, force: bool) -> None:
    from orchestrator.store.files import make_folder

    make_folder(path.parent)
    if os.path.lexists(path) and not force:
        raise SpecError(f"{path} exists; name another file, or replace it with --force")


def _write(path: Path, text: str) -> None:
    from orchestrator.store.files import explained_output

    with explained_output(path):
        path.write_text(text, encoding="utf-8")


def _write_profile(path: Path, *, force: bool) -> None:
    from orchestrator.cluster.profiles import starting_profile

    _refuse_existing(path, force=force)
    _write(path, starting_profile())
    say(f"{path} is a cluster profile to start from; then: ntksweep submit SPEC --profile {path} --dry-run")


def _write_example(name: str, path: Path | None, *, force: bool) -> None:
    from orchestrator.spec.examples import example_text, is_profile, missing_sources

    text = example_text(name)
    path = path or Path(f"{name}.yaml")
    _refuse_existing(path, force=force)
    _write(path, text)
    if is_profile(name):
        say(f"{path} is the cluster profile {name}; then: ntksweep submit SPEC --profile {path} --dry-run")
        return
    say(f"{path} is the example {name}; then: ntksweep plan {path}")
    for key, place in missing_sources(text, path):
        say(f"{key}: {place} does not exist; set the key to the path of yours")


def _write_spec(path: Path, text: str) -> None:
    from orchestrator.spec.schema import FILE_NAME, is_schema, json_schema

    _write(path, text)
    schema = path.with_name(FILE_NAME)
    if os.path.lexists(schema) and not is_schema(schema):
        say(f"{path} is a spec to start from")
        say(f"{schema} exists and is not of ntksweep: it is kept; `ntksweep schema` prints the schema for editors")
    else:
        _write(schema, json_schema())
        say(f"{path} is a spec to start from; with {schema} beside it, editors complete its keys")
    say(
        f"next: `ntksweep plan {path}` says what it computes and how long that takes; `ntksweep run {path}` computes it"
    )


def _full(path: Path) -> str:
    from orchestrator.cli.starting import sweep_name
    from orchestrator.spec.describe import starting_spec

    return starting_spec(sweep_name(path))


def _short(path: Path, options: Mapping[str, str | None]) -> tuple[str, tuple[str, ...]]:
    """Return a spec for data and a model, and what is to be said beside it."""
    from orchestrator.cli.starting import Given, start_from, sweep_name
    from orchestrator.spec import parse_spec
    from orchestrator.spec.starting import short_spec

    missing = [option for option in ("--data", "--model") if not options[option]]
    if missing and not _can_ask():
        raise SpecError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing, {NOBODY}: ntksweep init --data "
            "FILE --model FOLDER looks into both; --example quickstart writes an example, --full a spec with every key"
        )
    data = options["--data"] or _asked("your data (a CSV, TSV, JSONL or Parquet file, a folder, or an id on the hub)")
    model = options["--model"] or _asked("the model (its folder, or its id on the hub)")
    given = Given(
        data=os.path.expanduser(data),  # noqa: PTH111 - it may be an id on the hub
        model=os.path.expanduser(model),  # noqa: PTH111
        config=options["--config"],
        text=options["--text"],
        text_pair=options["--text-pair"],
        label=options["--label"],
    )
    start = start_from(given, path, sweep_name(path), _choose)
    written = short_spec(start)
    parse_spec(written, name=str(path))
    return written, start.doubts


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _choose(question: str, answers: Sequence[str]) -> str:
    """Return one of several answers; only a terminal can be asked.

    Raises:
        SpecError: there is no terminal.
    """
    if not _can_ask():
        raise SpecError(f"{question}? {', '.join(answers)}? Give the option, for there is no terminal here to ask on")
    return _asked(question, answers)


def _asked(question: str, answers: Sequence[str] = ()) -> str:
    if answers:
        say(f"{question}? {', '.join(answers)}")
    else:
        say(f"{question}?")
    while True:
        try:
            answer = input("> ").strip()
        except EOFError:
            raise SpecError("no answer was given, so that no file is written") from None
        if answer and (not answers or answer in answers):
            return answer
        if answer:
            say(f"{answer} is none of {', '.join(answers)}")
