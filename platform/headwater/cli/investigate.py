"""`headwater investigate`: a question looked into step by step, with a cited report at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output
from headwater.cli.ask import Model, show_grounds
from headwater.cli.session import Data, Json, Jsonl, Since, Topics, Until, Url, names_of, session
from headwater.cli.words import QueryCommand
from headwater.visible import visible

if TYPE_CHECKING:
    from headwater.records.investigations import Investigation, Step


def add(app: typer.Typer) -> None:
    app.command(cls=QueryCommand)(investigate)


def investigate(
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    topics: Topics = None,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", metavar="NAME", help="The same as --topics, for one; may be given again.")
    ] = None,
    since: Since = None,
    until: Until = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=100, metavar="N", help="Most looks at the records.")
    ] = None,
    model: Model = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=0, metavar="N", help="Most tokens of the chat model.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", min=0, metavar="DOLLARS", help="Most US dollars of the chat model.")
    ] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=1, metavar="SECONDS", help="Most seconds.")] = None,
    json: Json = False,
    jsonl: Jsonl = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Find out why something happens; the report cites records.

    The chat model that is configured chooses what to look at, with the tools that agents have; without
    one a fixed plan does: what is new, what is odd, what changed just before, what is like it from
    before. Each step is shown as it is taken, and every citation is checked against its record.
    --jsonl prints the steps as JSON as they come.

    \b
    headwater investigate "why is checkout failing since 14:05?"
    headwater investigate "why are payments slow?" --since 2h --topic logs --topic deploys
    headwater investigate "what broke after the deploy?" --steps 6 --json
    headwater investigate "who is affected?" --model openai:gpt-5-mini --max-cost 0.20
    """
    from headwater.records.investigations import Investigation

    form = output.chosen(json=json, jsonl=jsonl)
    scope: dict[str, Any] = {
        "topics": names_of([*(topics or ()), *(topic or ())]), "since": since, "until": until, "steps": steps, "model": model,
        "max_tokens": max_tokens, "max_cost": max_cost, "timeout_s": timeout,
    }  # fmt: skip
    found: Investigation | None = None
    with session(data, url) as verbs:
        for event in verbs.investigate_events(question, **scope):
            if form is output.Format.JSONL:
                output.show_json({"event": event.event, "data": event.data})
            elif isinstance(event.data, Investigation):
                found = event.data
            else:
                _show_step(event.data)
    if found is None:
        return
    if form is output.Format.JSON:
        output.show_json(found)
        return
    output.out(visible(found.report.text))
    show_grounds(found.report)
    output.note(_ended(found))


def _show_step(step: Step) -> None:
    arguments = ", ".join(f"{name}={output.line_of(str(value))}" for name, value in step.arguments.items() if value)
    came = f"failed: {output.line_of(step.error)}" if step.error else output.line_of(step.found)
    why = f" ({output.line_of(step.why)})" if step.why else ""
    size = f", {step.tokens:,} tokens" if step.tokens else ""
    output.say(f"{step.n}. {step.tool}({arguments}){why}: {came}{size}")


def _ended(found: Investigation) -> str:
    said = [output.plural(len(found.steps), "step")]
    if found.usage.tokens:
        cost = "" if found.usage.cost is None else f", ${found.usage.cost:.4f}"
        said.append(f"{found.usage.tokens:,} tokens{cost}")
    return "; ".join([*said, *([] if found.ended == "done" else [f"ended by: {found.ended}"])])
