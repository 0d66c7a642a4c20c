"""`headwater ask`: an answer whose every sentence cites records."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output
from headwater.cli.session import Data, Json, Jsonl, Since, Topics, Until, Url, names_of, session
from headwater.cli.words import QueryCommand
from headwater.visible import visible

if TYPE_CHECKING:
    from headwater.composed import AskEvent
    from headwater.records import Answer

Conversation = Annotated[
    str | None, typer.Option("--conversation", "-c", metavar="ID", help="Go on in this conversation; a new id begins one.")
]
Model = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="Chat model (PROVIDER:MODEL), or extractive for none.")
]


def add(app: typer.Typer) -> None:
    app.command(cls=QueryCommand)(ask)


def ask(
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    topics: Topics = None,
    since: Since = None,
    until: Until = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, max=100, help="Passages to read for the answer.")] = 12,
    conversation: Conversation = None,
    model: Model = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="From the records stored before this time only.")
    ] = None,
    rerank: Annotated[
        bool | None, typer.Option("--rerank/--no-rerank", help="Read the best hits again with the local cross-encoder.")
    ] = None,
    recency: Annotated[
        str | None, typer.Option("--recency", metavar="TIME", help="Prefer newer records; one that old counts three quarters.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is made.")] = False,
    json: Json = False,
    jsonl: Jsonl = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Ask a question; the answer cites records.

    It is made of what records say, in the words of a chat model where one is configured; each
    citation is checked against its record, and where support is weak there is no answer.
    --jsonl prints the events of the answer as they come.

    \b
    headwater ask "what broke after the deploy?"
    headwater ask "why were customers charged twice?" --topics logs,chat --since 4h
    headwater ask "which version was rolled back?" --json
    headwater ask "and when was that?" --conversation incident-7 --stream
    headwater ask "what was failing?" --as-of 2026-11-21T14:00
    """
    form = output.chosen(json=json, jsonl=jsonl)
    names = names_of(topics)
    with session(data, url) as verbs:
        scope: dict[str, Any] = {
            "topics": names, "since": since, "until": until, "top_k": top_k, "conversation": conversation, "model": model,
            "as_of": as_of, "rerank": rerank, "recency": recency,
        }  # fmt: skip
        if form is output.Format.JSONL or (stream and form is output.Format.TEXT):
            show_events(verbs.ask_events(question, **scope), form)
            return
        answer = verbs.ask(question, **scope)
    if form is output.Format.JSON:
        output.show_json(answer)
        return
    output.out(visible(answer.text))
    show_grounds(answer)


def show_grounds(answer: Answer) -> None:
    """The citations of an answer, what in it has none, and its coverage."""
    if answer.citations:
        output.out()
    for citation in answer.citations:
        state = "" if citation.verified else output.style("  NOT FOUND IN THE RECORD", "red")
        page = "" if citation.page is None else f"  {citation.page_kind} {citation.page}"
        place = f"{output.style(citation.address, 'cyan')}{page}  {output.when(citation.timestamp)}"
        output.out(f"[{citation.n}] {place}  “{output.line_of(citation.quote)}”{state}")
    for sentence in answer.unsupported:
        output.out(f"no record supports: {output.line_of(sentence)}")
    if answer.citations:
        verified = sum(c.verified for c in answer.citations)
        output.note(
            f"verified {verified} of {output.plural(len(answer.citations), 'citation')} against the records; "
            f"confidence {answer.confidence:.2f}; {answer.model}"
        )
    output.note(output.coverage_line(answer.coverage, pages=False))


def show_events(events: Iterable[AskEvent], form: output.Format) -> Answer | None:
    """The pieces of an answer as they come, what they rest on behind them; the answer, None where the events broke off."""
    from headwater.records import Answer

    shown = ""
    for event in events:
        if form is output.Format.JSONL:
            output.show_json({"event": event.event, "data": event.data})
        elif isinstance(event.data, str):
            shown += event.data
            sys.stdout.write(visible(event.data))
        elif isinstance(event.data, Answer):
            output.out()
            if event.data.text.strip() != shown.strip():
                output.note("checked to its end, the answer reads:")
                output.out(visible(event.data.text))
            show_grounds(event.data)
        sys.stdout.flush()
        if isinstance(event.data, Answer):
            return event.data
    return None
