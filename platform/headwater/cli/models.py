"""`headwater models` and `headwater complete`: chat models, and what one answers without retrieval."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Url, session
from headwater.visible import visible

if TYPE_CHECKING:
    from headwater.records.models import ModelInfo

_CSV = (
    "name", "provider", "model", "standing", "url", "key", "reachable", "streaming", "schema", "embeddings", "problem", "mend",
    "calls",
)  # fmt: skip
Model = Annotated[str | None, typer.Option("--model", "-m", metavar="NAME", help="PROVIDER:MODEL; the configured one else.")]


def add(app: typer.Typer) -> None:
    app.command()(models)
    app.command()(complete)


def models(
    check: Annotated[bool, typer.Option("--check", help="Ask each whether it is there.")] = False,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Chat models: the configured one, its fallbacks, and what else there could be.

    \b
    headwater models
    headwater models --check
    HEADWATER_LLM_PROVIDER=ollama HEADWATER_LLM_MODEL=llama3.1 headwater up
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.models(check=check)
    if form is not output.Format.TEXT:
        output.show_all(form, found, _CSV, ([getattr(m, name) for name in _CSV] for m in found))
        return
    rows = [(m.name, m.standing, _state(m), _key(m), _can(m), _used(m), m.url or "") for m in found]
    output.show_table(("MODEL", "STANDING", "STATE", "KEY", "CAN", "USED TODAY", "URL"), rows)
    for model in (m for m in found if m.standing != "known" and m.problem):
        output.say(f"{model.name}: {output.line_of(model.problem or '')}")
    for model in (m for m in found if m.mend):
        output.note(f"{model.name}: {model.mend}")


def _state(model: ModelInfo) -> str:
    if model.reachable is None:
        return output.style("trouble", "red") if model.problem and model.standing != "known" else "not checked"
    return output.style("ready", "green") if model.reachable else output.style("not reachable", "red")


def _key(model: ModelInfo) -> str:
    return "-" if model.key is None else "set" if model.key else "not set"


def _can(model: ModelInfo) -> str:
    able = (("stream", model.streaming), ("schema", model.schema), ("embed", model.embeddings))
    return " ".join(name for name, can in able if can)


def _used(model: ModelInfo) -> str:
    if not model.calls:
        return "-"
    cost = "" if model.used.cost is None else f", ${model.used.cost:.4f}"
    return f"{output.plural(model.calls, 'call')}, {output.plural(model.used.tokens, 'token')}{cost}"


def complete(
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What to say; standard input without it.")] = "",
    model: Model = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="Put before it as instructions.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0, max=2)] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=1, metavar="N", help="Longest answer.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask anew, whatever was kept of an equal prompt.")] = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """What a chat model answers, without retrieval; printed as it is made.

    \b
    headwater complete "Write a regular expression for an IPv4 address."
    tail -50 app.log | headwater complete --system "Explain this log." --model ollama:llama3.1
    """
    from headwater.records.models import Piece

    text = prompt or sys.stdin.read()
    if not text.strip():
        raise typer.BadParameter("nothing to say: give PROMPT, or write to standard input")
    with session(data, url) as verbs:
        if json:
            whole = verbs.complete(
                text, system=system, model=model, temperature=temperature, max_tokens=max_tokens, cache=not fresh
            )
            output.show_json(whole)
            return
        parts = verbs.complete_stream(
            text, system=system, model=model, temperature=temperature, max_tokens=max_tokens, cache=not fresh
        )
        for part in parts:
            if isinstance(part, Piece):
                sys.stdout.write(visible(part.text))
                sys.stdout.flush()
                continue
            output.out()
            cut = "; cut at the most tokens, --max-tokens allows more" if part.finish == "length" else ""
            kept = ", kept from before" if part.cached else ""
            output.say(f"{part.model}: {output.plural(part.usage.tokens, 'token')}{kept}{cut}")
