"""`headwater topics`: the streams, what is in them, and their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Url, Yes, confirmed, pairs_of, session

if TYPE_CHECKING:
    from headwater.records import Topic

Name = Annotated[str, typer.Argument(metavar="TOPIC")]
Partitions = Annotated[int | None, typer.Option(help="Partitions; a record's is a stable hash of its key.")]
Model = Annotated[
    str | None, typer.Option(help="bge-small, minilm, static, onnx:PATH, external, PROVIDER:NAME (ollama:bge-m3).")
]
NoEmbed = Annotated[bool, typer.Option("--no-embed", help="Keyword search only; `headwater index create` adds meaning.")]
Field = Annotated[str | None, typer.Option(help="What is indexed: value, key, or a JSON path such as $.message.")]
Passages = Annotated[str | None, typer.Option(help="How records become passages: auto, template, exact or chunks.")]
Retention = Annotated[str | None, typer.Option(help="Age at which records go: 30d, 12h.")]
Redact = Annotated[
    str | None,
    typer.Option(
        metavar="KINDS", help="Taken out before records are stored: secrets, personal, network, NAME=PATTERN; '' ends it."
    ),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of a topic (see `headwater config show`)."),
]

group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_HEADS = ("TOPIC", "RECORDS", "PASSAGES", "PER PASSAGE", "RATE/S", "SIZE", "LAG", "NEWEST", "KIND")
_CSV = ("name", "partitions", "records", "passages", "collapse", "bytes", "rate", "first", "last", "lag", "dead_letters")


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="topics")


@group.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None
) -> None:
    """Topics with their counts and settings.

    Without a command all of them: records, passages, records per passage, rate, size, and how far the index lags.

    \b
    headwater topics
    headwater topics create logs --partitions 3 --retention 30d
    headwater topics create tickets --passages exact --embedding-model openai:text-embedding-3-small
    headwater topics set logs --retention 7d
    """
    if context.invoked_subcommand is None:
        list_topics(json, jsonl, csv, data, url)


@group.command("list")
def list_topics(json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None) -> None:
    """All topics.

    \b
    headwater topics list --json
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.topics()
    if form is output.Format.TEXT:
        show_topics(found)
        return
    rows = (
        [t.name, t.partitions, t.records, t.passages, t.collapse, t.bytes, t.rate, t.first, t.last, lag(t), t.dead_letters]
        for t in found
    )
    output.show_all(form, found, _CSV, rows)


@group.command()
def create(
    name: Name,
    partitions: Partitions = None,
    embedding_model: Model = None,
    no_embed: NoEmbed = False,
    field: Field = None,
    passages: Passages = None,
    retention: Retention = None,
    redact: Redact = None,
    setting: Setting = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Make a topic. One that is appended to without being made gets the defaults.

    \b
    headwater topics create logs --partitions 3 --passages template --retention 30d
    headwater topics create mails --field '$.body' --set chunk_chars=900
    headwater topics create chat --redact secrets,personal
    """
    plain = {"partitions": partitions, "field": field, "passages": passages, "redact": redact}
    given = _config(embedding_model, no_embed, retention, setting, **plain)
    with session(data, url) as verbs:
        topic = verbs.create_topic(name, **given)
    _show(topic, json)


@group.command("set")
def set_(
    name: Name,
    retention: Retention = None,
    field: Field = None,
    passages: Passages = None,
    redact: Redact = None,
    setting: Setting = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Change settings.

    What shapes passages and partitions is fixed once there are records: make a topic with
    other settings and ingest again.

    \b
    headwater topics set logs --retention 7d --set semantic_weight=0.6
    headwater topics set chat --redact secrets,personal
    """
    given = _config(None, False, retention, setting, field=field, passages=passages, redact=redact)
    if not given:
        raise typer.BadParameter("nothing to change; give for example --retention 7d or --set semantic_weight=0.6")
    with session(data, url) as verbs:
        topic = verbs.set_topic(name, **given)
    _show(topic, json)
    if "redact" in given and topic.records:
        output.say(
            f"it holds for what is stored from now on; {output.plural(topic.records, 'record')} from before stay as they are"
        )


@group.command()
def describe(name: Name, json: Json = False, data: Data = None, url: Url = None) -> None:
    """One topic: counts, times, how far its indexes have come, settings.

    \b
    headwater topics describe logs
    """
    with session(data, url) as verbs:
        topic = verbs.topic(name)
    _show(topic, json)


@group.command()
def delete(name: Name, yes: Yes = False, data: Data = None, url: Url = None) -> None:
    """Delete a topic with its records and indexes.

    \b
    headwater topics delete logs --yes
    """
    with session(data, url) as verbs:
        topic = verbs.topic(name)
        confirmed(f"Delete topic {name} with {output.plural(topic.records, 'record')}?", yes)
        verbs.delete_topic(name)
    output.say(f"deleted {name}")


def lag(topic: Topic) -> int:
    """Records stored and not yet searchable by every index the topic has."""
    mark = topic.watermark
    behind = mark.keyword if topic.config.get("embedding_model") == "none" else min(mark.keyword, mark.semantic)
    return max(mark.stored - behind, 0)


def show_topics(topics: list[Topic]) -> None:
    if not topics:
        output.say(
            "no topics yet; `headwater append TOPIC`, `headwater ingest TOPIC FILE...` or `headwater up FILE...` makes one"
        )
        return
    rows = (
        [
            t.name, output.number(t.records), output.number(t.passages), output.number(t.collapse), output.number(t.rate),
            output.size(t.bytes), output.number(lag(t)), output.when(t.last), str(t.config.get("passages_in_use") or "auto"),
        ]
        for t in topics
    )  # fmt: skip
    output.show_table(_HEADS, rows, right=range(1, 7))
    if dead := sum(t.dead_letters for t in topics):
        output.say(f"{output.plural(dead, 'dead letter')}: `headwater dlq`")


def _show(topic: Topic, json: bool) -> None:
    if json:
        output.show_json(topic)
        return
    mark = topic.watermark
    facts = {
        "topic": topic.name,
        "records": f"{topic.records:,} in {output.plural(topic.partitions, 'partition')}, {output.size(topic.bytes)}",
        "passages": f"{topic.passages:,} ({output.number(topic.collapse)} records each)",
        "times": f"{output.when(topic.first)} .. {output.when(topic.last)}",
        "rate": f"{output.number(topic.rate)} records/s",
        "indexed": f"{mark.keyword:,} by keyword, {mark.semantic:,} by meaning, of {mark.stored:,}",
        "dead letters": f"{topic.dead_letters:,}",
    }
    facts |= {name: output.line_of(_told(value)) for name, value in topic.config.items() if value is not None}
    room = max(map(len, facts))
    for name, value in facts.items():
        output.out(f"{name:<{room}}  {value}")


def _told(value: object) -> str:
    return (", ".join(map(str, value)) or "nothing") if isinstance(value, list | tuple) else str(value)


def _config(
    model: str | None, no_embed: bool, retention: str | None, setting: list[str] | None, **plain: Any
) -> dict[str, Any]:
    """The settings of a topic that the options name."""
    from headwater.config import duration_s

    if no_embed and model:
        raise typer.BadParameter("--no-embed and --embedding-model contradict each other; choose one")
    given: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
    given.update(pairs_of(setting, "--set"))
    if no_embed or model:
        given["embedding_model"] = "none" if no_embed else model
    if retention:
        given["retention_s"] = duration_s(retention)
    return given
