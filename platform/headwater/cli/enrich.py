"""`headwater classify` and `headwater extract`: labels and values for texts; `headwater enrich`: pipelines."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output, pipelines
from headwater.cli.session import Csv, Data, Json, Jsonl, Since, Topics, Until, Url, names_of, session

if TYPE_CHECKING:
    from headwater.records.labels import ClassifyReply, ExtractReply

_METHODS = ("auto", "zero-shot", "examples", "neighbours", "llm", "cascade")
_BYS = ("regex", "llm", "both")
Texts = Annotated[
    list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; without any, one a line of standard input.")
]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Chat model that is asked, such as ollama:qwen3.")]
About = Annotated[str, typer.Option("--about", metavar="TEXT", help="What a chat model is told of the task.")]


def add(app: typer.Typer) -> None:
    app.command("classify")(classify)
    app.command("extract")(extract)
    pipelines.add(app)


def classify(
    texts: Texts = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", "-l", metavar="NAME[=DESCRIPTION]", help="A label, and what it means; give at least two."),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option("--examples", metavar="FILE", help="Examples to learn from: CSV, JSON or JSON lines with text and label."),
    ] = None,
    topics: Topics = None,
    q: Annotated[str, typer.Option("--query", "-q", metavar="QUERY", help="Of topics, only records that match.")] = "",
    since: Since = None,
    until: Until = None,
    method: Annotated[str, typer.Option("--method", help=f"{', '.join(_METHODS)}.")] = "auto",
    model: Model = None,
    margin: Annotated[float, typer.Option("--margin", min=0, max=1, help="Below this lead a chat model is asked.")] = 0.2,
    min_confidence: Annotated[
        float, typer.Option("--min-confidence", min=0, max=1, help="Below this there is no label.")
    ] = 0.0,
    about: About = "",
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Label texts, or all records of topics: each distinct passage is judged once.

    \b
    headwater classify "my card was declined" -l billing -l "login=cannot get in"
    headwater classify --topics logs -l "network trouble" -l "disk failure" -l "routine"
    headwater classify --examples labelled.csv < tickets.txt --jsonl
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    if method not in _METHODS:
        raise typer.BadParameter(f"--method is one of {', '.join(_METHODS)}")
    named: dict[str, str] = {}
    for label in labels or ():
        name, _, description = label.partition("=")
        named[name.strip()] = description.strip()
    scope = names_of(topics)
    given = None if scope is not None else _texts(texts)
    shots = None if examples is None else read_examples(examples)
    with session(data, url) as verbs, pipelines.waiting("labelling"):
        reply = verbs.classify(
            given, labels=named or None, examples=shots, topics=scope, q=q, since=since, until=until,
            method=method, model=model, margin=margin, min_confidence=min_confidence, about=about,  # type: ignore[arg-type]
        )  # fmt: skip
    _show_labels(reply, given, form)


def extract(
    texts: Texts = None,
    schema: Annotated[Path | None, typer.Option("--schema", metavar="FILE", help="JSON schema of an object.")] = None,
    patterns: Annotated[
        list[str] | None,
        typer.Option("--pattern", "-p", metavar="NAME=REGEX", help="What a member looks like; its first group counts."),
    ] = None,
    by: Annotated[str, typer.Option("--by", help=f"{', '.join(_BYS)}.")] = "both",
    model: Model = None,
    about: About = "",
    json: Json = False,
    jsonl: Jsonl = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Take values out of texts, as a JSON schema asks for them.

    \b
    headwater extract "order 4711 over 12.50 EUR" -p 'order=order (\\d+)' -p 'amount=([\\d.]+) EUR'
    headwater extract --schema invoice.json --model ollama:qwen3 < mails.txt --jsonl
    """
    form = output.chosen(json=json, jsonl=jsonl)
    if by not in _BYS:
        raise typer.BadParameter(f"--by is one of {', '.join(_BYS)}")
    found = dict(_pair(text) for text in patterns or ())
    wanted = (
        {"type": "object", "properties": {name: {"type": "string"} for name in found}} if schema is None else _json_of(schema)
    )
    if schema is None and not found:
        raise typer.BadParameter("say what to look for: --schema FILE or --pattern NAME=REGEX")
    given = _texts(texts)
    chosen = "regex" if schema is None and model is None else by
    with session(data, url) as verbs, pipelines.waiting("looking for values"):
        reply = verbs.extract(given, schema=wanted, by=chosen, patterns=found or None, model=model, about=about)  # type: ignore[arg-type]
    _show_values(reply, form)


def read_examples(path: Path) -> list[dict[str, str]]:
    """Examples of a file: rows with a text and a label, whatever of `category`, `class` or `intent` the label is called."""
    text = _read(path)
    if path.suffix.lower() == ".csv":
        import csv as csv_module

        rows: list[Any] = list(csv_module.DictReader(text.splitlines()))
    elif path.suffix.lower() == ".jsonl":
        rows = [_parsed(line, path) for line in text.splitlines() if line.strip()]
    else:
        rows = _parsed(text, path)
    if isinstance(rows, dict):
        return [{"text": one, "label": name} for name, many in rows.items() for one in many]
    found = []
    for row in rows:
        label = next((row[name] for name in ("label", "category", "class", "intent") if row.get(name)), None)
        if label is None or not row.get("text"):
            raise typer.BadParameter(f"{path}: each example has a text and a label, not {str(row)[:80]}")
        found.append({"text": str(row["text"]), "label": str(label)})
    return found


def _texts(given: list[str] | None) -> list[str]:
    texts = list(given or ())
    if not texts:
        if sys.stdin.isatty():
            raise typer.BadParameter("give texts, or pipe them in, one a line")
        texts = [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    return texts


def _pair(text: str) -> tuple[str, str]:
    name, equals, pattern = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"--pattern {text!r} is not NAME=REGEX")
    return name.strip(), pattern


def _json_of(path: Path) -> Any:
    return _parsed(_read(path), path)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error


def _parsed(text: str, path: Path) -> Any:
    try:
        return json_module.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{path} is not JSON: {error}") from error


def _show_labels(reply: ClassifyReply, texts: list[str] | None, form: output.Format) -> None:
    if form is output.Format.JSON:
        output.show_json(reply)
    elif texts is None:
        rows = [(c.label or "(unsure)", c.records, c.passages, c.example) for c in reply.labels]
        if form is output.Format.TEXT:
            lines = [(n, f"{r:,}", f"{p:,}", e or "-") for n, r, p, e in rows]
            output.show_table(("LABEL", "RECORDS", "PASSAGES", "EXAMPLE"), lines, right=(1, 2))
        else:
            output.show_all(form, reply.labels, ("label", "records", "passages", "example"), rows)
    elif form is output.Format.TEXT:
        lines = [
            (one.label or "(unsure)", f"{one.confidence:.2f}", one.by, output.line_of(text))
            for one, text in zip(reply.results, texts, strict=True)
        ]
        output.show_table(("LABEL", "SURE", "BY", "TEXT"), lines, right=(1,))
    else:
        shown = [
            {"text": t, "label": r.label, "confidence": r.confidence, "by": r.by}
            for r, t in zip(reply.results, texts, strict=True)
        ]
        output.show_all(form, shown, ("text", "label", "confidence", "by"), [tuple(row.values()) for row in shown])
    if form is not output.Format.JSON:
        asked = f"; {reply.llm} was asked {reply.llm_calls:,} times" if reply.llm_calls else ""
        output.say(f"{reply.records:,} records by {output.plural(reply.passages, 'decision')}, {reply.method}{asked}")
        for text in reply.notes:
            output.say(text)


def _show_values(reply: ExtractReply, form: output.Format) -> None:
    if form is output.Format.JSON:
        output.show_json(reply)
        return
    for one in reply.results:
        output.show_json(one.value)
        if one.problem:
            output.say(f"  not as the schema asks: {one.problem}")
