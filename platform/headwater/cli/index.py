"""`headwater index`: the meaning index of each topic: its model, its size, its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Url, Yes, confirmed, session

if TYPE_CHECKING:
    from headwater.records import IndexInfo

Name = Annotated[str, typer.Argument(metavar="TOPIC")]
group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_HEADS = ("TOPIC", "STATE", "MODEL", "DIM", "METRIC", "KIND", "PASSAGES", "VECTORS", "TAIL", "SEGMENTS")
_CSV = (
    "topic", "state", "model", "dimension", "metric", "passages", "count_passages", "count_vectors", "tail", "segments",
    "error",
)  # fmt: skip


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="index")


@group.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None
) -> None:
    """The index of each topic: model, size, state.

    Without a command, all of them.

    \b
    headwater index
    headwater index create logs --embedding-model bge-small
    headwater index rebuild logs
    """
    if context.invoked_subcommand is None:
        list_indexes(json, jsonl, csv, data, url)


@group.command("list")
def list_indexes(json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None) -> None:
    """The index of every topic."""
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.indexes()
    if form is not output.Format.TEXT:
        rows = (
            [i.topic, i.state, i.model, i.dimension, i.metric, i.passages, i.count_passages, i.count_vectors, i.tail,
             len(i.segments), i.error]
            for i in found
        )  # fmt: skip
        output.show_all(form, found, _CSV, rows)
        return
    if not found:
        output.say("no topics yet")
        return
    lines = (
        [i.topic, i.state, i.model or "-", str(i.dimension or "-"), i.metric, i.passages, output.number(i.count_passages),
         output.number(i.count_vectors), output.number(i.tail), str(len(i.segments))]
        for i in found
    )  # fmt: skip
    output.show_table(_HEADS, lines, right=(3, 6, 7, 8, 9))
    for info in found:
        if info.error:
            output.say(f"{info.topic}: {output.line_of(info.error)}")


@group.command()
def describe(name: Name, json: Json = False, data: Data = None, url: Url = None) -> None:
    """One index: model, dimension, metric, HNSW parameters, segments."""
    with session(data, url) as verbs:
        info = verbs.index(name)
    _show(info, json)


@group.command()
def create(
    name: Name,
    embedding_model: Annotated[
        str | None, typer.Option("--embedding-model", "--model", help="The model; the default one when not given.")
    ] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Switch meaning search on for a keyword-only topic; what is stored already is embedded in the background."""
    with session(data, url) as verbs:
        info = verbs.create_index(name, embedding_model)
    _show(info, json)


@group.command()
def rebuild(name: Name, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Build the keyword and meaning index anew from the log. Stored vectors are used again."""
    with session(data, url) as verbs:
        info = verbs.rebuild_index(name)
    _show(info, json)


@group.command()
def delete(name: Name, yes: Yes = False, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Switch meaning search off and drop the topic's vectors; records and keyword search stay."""
    with session(data, url) as verbs:
        count = verbs.index(name).count_vectors
        confirmed(f"Drop {output.plural(count, 'vector')} of {name}?", yes)
        info = verbs.delete_index(name)
    _show(info, json)


def _show(info: IndexInfo, json: bool) -> None:
    if json:
        output.show_json(info)
        return
    hnsw = ", ".join(f"{name} {value}" for name, value in info.hnsw.items())
    facts = {
        "topic": info.topic,
        "state": info.state if info.error is None else f"{info.state}: {output.line_of(info.error)}",
        "model": info.model or "none: keyword search only",
        "dimension": str(info.dimension or "-"),
        "metric": info.metric,
        "passages": f"{info.count_passages:,} ({info.passages})",
        "vectors": f"{info.count_vectors:,}, {info.tail:,} of them in the tail",
        "hnsw": hnsw,
    }
    for name, value in facts.items():
        output.out(f"{name:<9}  {value}")
    for segment in info.segments:
        count, held = segment.get("count", 0), segment.get("bytes", 0)
        output.out(f"segment    {segment.get('name')}: {count:,} passages, {output.size(held)}")
