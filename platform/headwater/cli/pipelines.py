"""`headwater enrich`: pipelines that give records labels, values and routes as they are stored."""

from __future__ import annotations

import contextlib
import json as json_module
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.cli import output, progress
from headwater.cli.session import Data, Json, Url, Yes, confirmed, session

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.records.labels import Backtest, Pipeline, Ran, StepTrace

Name = Annotated[str, typer.Argument(metavar="NAME")]
File = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The pipeline (YAML or JSON).")]
_LOOK_S = 0.25  # between two looks at how far a pipeline is
group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="enrich")


@group.callback()
def _about() -> None:
    """Pipelines: labels, values and routes for records as they are stored, decided once for each passage.

    \b
    headwater enrich backtest triage --config pipeline.yaml
    headwater enrich create triage --config pipeline.yaml
    headwater enrich status
    headwater enrich trace triage logs/0/4711
    """


@group.command("create")
def create(
    name: Name,
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The pipeline (YAML or JSON).")],
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it at once.")] = True,
    rerun: Annotated[bool, typer.Option("--rerun", help="One that is changed begins anew, with all records.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show how far it is until it has caught up.")] = False,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Make a pipeline, or change the one of that name: steps that are as they were decide nothing anew.

    \b
    headwater enrich create triage --config pipeline.yaml
    """
    text = _read(config)
    with session(data, url) as verbs:
        made = verbs.create_pipeline(name, text, start=start, rerun=rerun)
        if wait and start:
            made = _caught_up(verbs, name)
    if json:
        output.show_json(made)
        return
    output.out(made.name)
    output.say(f"version {made.version}, {made.state}; `headwater enrich status {name}` shows how far it is")


@group.command("start")
def start(name: Name, data: Data = None, url: Url = None) -> None:
    """Let a pipeline go on where it stopped.

    \b
    headwater enrich start triage
    """
    with session(data, url) as verbs:
        found = verbs.start_pipeline(name)
    output.say(f"{found.name} is {found.state}; {output.plural(found.behind, 'record')} behind")


@group.command("stop")
def stop(name: Name, data: Data = None, url: Url = None) -> None:
    """Stop a pipeline until it is started, also over restarts.

    \b
    headwater enrich stop triage
    """
    with session(data, url) as verbs:
        found = verbs.stop_pipeline(name)
    output.say(f"{found.name} is {found.state}")


@group.command("delete")
def delete(name: Name, yes: Yes = False, data: Data = None, url: Url = None) -> None:
    """Forget a pipeline. What it wrote stays.

    \b
    headwater enrich delete triage --yes
    """
    confirmed(f"Delete the pipeline {name!r}?", yes)
    with session(data, url) as verbs:
        verbs.delete_pipeline(name)
    output.say(f"deleted {name}")


@group.command("status")
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One, with its steps.")] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """How far pipelines are, at what rate, what they decided, knew already and cost.

    \b
    headwater enrich status
    """
    with session(data, url) as verbs:
        found = verbs.pipelines() if name is None else [verbs.pipeline(name)]
    if json:
        output.show_json(found if name is None else found[0])
    elif not found:
        output.say("no pipelines; `headwater enrich create NAME --config FILE` makes one")
    else:
        lines = [_line(one) for one in found]
        heads = ("NAME", "STATE", "VERSION", "RECORDS", "WRITTEN", "BEHIND", "RATE/S", "FAILED", "TOKENS", "COST", "TOPICS")
        output.show_table(heads, lines, right=(2, 3, 4, 5, 6, 7, 8, 9))
        for one in found:
            if one.error:
                output.say(f"{one.name}: {output.line_of(one.error)}")
        if name is not None:
            _steps(found[0])


@group.command("backtest")
def backtest(
    name: Name,
    config: File = None,
    records: Annotated[int, typer.Option("--records", min=1, max=100_000, help="Last records to try it on.")] = 1000,
    samples: Annotated[int, typer.Option("--samples", min=0, max=100, help="Results shown.")] = 5,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=0, help="Most tokens models may take.")] = None,
    max_cost: Annotated[float | None, typer.Option("--max-cost", min=0, help="Most US dollars models may cost.")] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Try a pipeline on the last records: results, their distribution, what differs from the version at work, time and cost.

    \b
    headwater enrich backtest triage --config pipeline.yaml
    """
    text = None if config is None else _read(config)
    with session(data, url) as verbs, waiting(f"trying {name} on {output.plural(records, 'record')}"):
        done = verbs.backtest_pipeline(name, text, records=records, samples=samples, max_tokens=max_tokens, max_cost=max_cost)
    output.show_json(done) if json else _show_backtest(done)


@group.command("run")
def run(
    name: Name,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Without any, one a line of standard input.")
    ] = None,
    config: File = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Run texts through a pipeline (or a file with one), showing every step; nothing is written.

    \b
    headwater enrich run triage "card payments declined"
    """
    given = list(texts or ()) or [line.rstrip("\r\n") for line in sys.stdin if line.strip()]
    if not given:
        raise typer.BadParameter("give texts, or pipe them in, one a line")
    text = None if config is None else _read(config)
    with session(data, url) as verbs:
        for event in verbs.run_pipeline(name, given, spec=text):
            if json:
                output.show_json(event)
            elif event.event == "part" and event.step is not None:
                output.out(f"{output.style(event.step.step, 'bold')}  ... {output.line_of(_values(event.step.output))}")
            elif event.step is not None:
                output.out(_step_line(event.step))
            elif event.ran is not None:
                _show_ran(event.ran)


@group.command("trace")
def trace(
    name: Name,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="topic/partition/offset")],
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """What each step makes of a stored record: its result, whether that was known already, time and cost.

    \b
    headwater enrich trace triage logs/0/4711
    """
    with session(data, url) as verbs:
        found = verbs.trace_pipeline(name, address)
    if json:
        output.show_json(found)
        return
    for step in found.steps:
        output.out(_step_line(step))
    _show_ran(found)


@group.command("schema")
def schema() -> None:
    """Print the JSON schema of pipelines, for editors that check YAML by it.

    \b
    headwater enrich schema > pipeline.schema.json
    """
    from headwater.enrich.spec import schema as made

    output.out(json_module.dumps(made(), indent=2))


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal what takes a while."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True, no_color=not output.coloured(sys.stderr)).status(what):
        yield


def _caught_up(verbs: Headwater, name: str) -> Pipeline:
    """The pipeline once it has done all that is stored, its progress shown meanwhile; UnreachableError where it is held up."""
    from headwater.errors import UnreachableError

    seen = verbs.pipeline(name)
    begun = seen.records
    with progress.bar(max(seen.behind, 1), name, unit_bytes=False) as step:
        while seen.behind:
            if seen.state != "running":
                raise UnreachableError(f"{name} is {seen.state}: {seen.error or 'somebody stopped it'}")
            step(seen.records - begun, seen.records - begun, name)
            time.sleep(_LOOK_S)
            seen = verbs.pipeline(name)
    return seen


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error


def _line(one: Pipeline) -> tuple[str, ...]:
    topics = f"{', '.join(one.topics) if one.topics else 'all'} -> {one.output or 'routes'}"
    return (
        one.name, one.state, str(one.version), f"{one.records:,}", f"{one.written:,}", f"{one.behind:,}",
        output.number(one.rate), f"{one.dead_letters:,}", f"{one.usage.tokens:,}", _money(one.usage.cost), topics,
    )  # fmt: skip


def _steps(one: Pipeline) -> None:
    output.out()
    rows = [
        (
            step.name, step.kind, step.cost, f"{step.decided:,}", f"{step.hits:,}", f"{step.failed:,}", f"{step.seconds:.2f}",
            f"{step.usage.tokens:,}", _money(step.usage.cost),
        )
        for step in one.steps
    ]  # fmt: skip
    heads = ("STEP", "KIND", "TAKES", "DECIDED", "KNOWN", "FAILED", "SECONDS", "TOKENS", "COST")
    output.show_table(heads, rows, right=(3, 4, 5, 6, 7, 8))


def _money(cost: float | None) -> str:
    """US dollars, where they are known."""
    return "?" if cost is None else f"${cost:.4f}" if cost else "-"


def _step_line(step: StepTrace) -> str:
    how = (
        f"skipped: {step.skipped}"
        if step.skipped
        else f"failed: {step.error}"
        if step.error
        else _values(step.output) or "nothing"
    )
    sure = "" if step.confidence is None else f"  {step.confidence:.2f}"
    cost = f"  {step.usage.tokens:,} tokens" if step.usage.tokens else ""
    took = "known" if step.cached else f"{step.ms:.1f} ms"
    return f"{output.style(step.step, 'bold')}  {output.line_of(how)}{sure}  {took}{cost}"


def _show_ran(found: Ran) -> None:
    if found.error:
        output.out(f"failed: {output.line_of(found.error)}")
    output.out(f"=> {_values(found.fields) or 'no fields'}")
    if found.topics:
        output.out(f"=> to {', '.join(found.topics)}")
    output.out(f"   {output.line_of(found.text)}")


def _values(fields: Any) -> str:
    return ", ".join(f"{name}={value if isinstance(value, str) else output.json_text(value)}" for name, value in fields.items())


def _show_backtest(done: Backtest) -> None:
    for sample in done.samples:
        _show_ran(sample)
    for name, values in done.fields.items():
        output.out()
        rows = [(output.line_of(value), f"{count:,}", f"{count / max(done.records, 1):.0%}") for value, count in values.items()]
        output.show_table((name.upper(), "RECORDS", "SHARE"), rows[:20], right=(1, 2), wide=0)
    if done.routed:
        output.out()
        output.show_table(("TOPIC", "RECORDS"), [(t, f"{n:,}") for t, n in done.routed.items()], right=(1,))
    if done.disagree is not None:
        output.out(f"\n{done.disagree:.1%} of the records would be otherwise than now")
        for change in done.changes:
            output.out(f"  {change['address']}: {_values(change['before']['fields'])} -> {_values(change['after']['fields'])}")
    cost = "" if done.usage.cost is None else f", {done.usage.cost:.4f} US dollars"
    output.say(
        f"{output.plural(done.records, 'record')} by {output.plural(done.passages, 'passage')} in {done.seconds:.1f} s; models"
        f" were asked {done.llm_calls:,} times for {done.usage.tokens:,} tokens{cost}; {done.failed:,} failed"
    )
    told = done.forecast
    if told:
        output.say(
            f"all {told['records']:,} records: {told['passages']:,} passages, about {output.duration(told['seconds'])},"
            f" {told['llm_calls']:,} calls, {told['tokens']:,} tokens"
        )
    if done.stopped:
        output.say(f"it ended early: {done.stopped}")
