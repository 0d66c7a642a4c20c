"""`headwater anomaly`: what is odd in a topic, within a budget of alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Topics, Url, names_of, session

if TYPE_CHECKING:
    from headwater.records.anomalies import Anomaly, Detecting, DetectorKind, Sensitivity, Severity, Verdict

Topic = Annotated[str, typer.Argument(metavar="TOPIC")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Such as logs-17.")]
group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_CSV = ("id", "topic", "kind", "severity", "start", "end", "by_chance_days", "alerted", "feedback", "what")
_KINDS = ("rate", "new", "drift", "numeric", "silence", "sequence")
_SEVERITIES = ("low", "medium", "high", "critical")
_SENSITIVITIES = ("low", "medium", "high")


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="anomaly")


@group.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None
) -> None:
    """Anomalies: what is odd in a topic, found as it happens and explained, at most so many a day.

    \b
    headwater anomaly enable logs --budget 3/day
    headwater anomaly list logs --since 24h
    headwater anomaly show logs-17
    headwater anomaly feedback logs-17 --not-an-anomaly
    """
    if context.invoked_subcommand is None:
        list_anomalies(None, None, None, None, None, False, False, 50, None, json, jsonl, csv, data, url)


@group.command("enable")
def enable(
    topic: Topic,
    budget: Annotated[str | None, typer.Option("--budget", metavar="N/day", help="The most alerts; 3/day at first.")] = None,
    sensitivity: Annotated[
        str | None, typer.Option("--sensitivity", help="low, medium (at first) or high: how odd it must be.")
    ] = None,
    detectors: Annotated[
        str | None, typer.Option("--detectors", metavar="A,B", help=f"Which of {', '.join(_KINDS)}; all at first.")
    ] = None,
    fields: Annotated[str | None, typer.Option("--fields", metavar="A,B", help="Numeric fields; '' lets it choose.")] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="FIELD", help="The attribute of one request or instance.")
    ] = None,
    alert_topic: Annotated[
        str | None, typer.Option("--alert-topic", metavar="TOPIC", help="Gets each alert as a record; '' for none.")
    ] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Switch detectors on, or change their settings. They learn what is normal from what is stored.

    \b
    headwater anomaly enable logs
    headwater anomaly enable logs --budget 1/week --sensitivity low
    headwater anomaly enable logs --detectors new,rate,silence --alert-topic alerts
    """
    level: Sensitivity | None = _one_of("--sensitivity", sensitivity, _SENSITIVITIES)  # type: ignore[assignment]
    kinds: list[DetectorKind] | None = None
    if detectors is not None:
        kinds = [_one_of("--detectors", kind, _KINDS) for kind in _parts(detectors)]  # type: ignore[misc]
    with session_(data, url) as verbs:
        found = verbs.set_detecting(
            topic, budget=budget, sensitivity=level, detectors=kinds, fields=None if fields is None else _parts(fields),
            session=session, alert_topic=alert_topic,
        )  # fmt: skip
    _told(found, json)


@group.command("disable")
def disable(topic: Topic, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Switch detectors off; what they found and learned stays.

    \b
    headwater anomaly disable logs
    """
    with session_(data, url) as verbs:
        found = verbs.set_detecting(topic, enabled=False)
    _told(found, json)


@group.command("status")
def status(
    topic: Annotated[str | None, typer.Argument(metavar="[TOPIC]")] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """How detectors stand: of one topic, or wherever they are on.

    \b
    headwater anomaly status --json
    """
    with session_(data, url) as verbs:
        found = verbs.detecting(topic)
    if json:
        output.show_json(found[0] if topic is not None else found)
    elif not found:
        output.say("no detectors are on; `headwater anomaly enable TOPIC` switches them on")
    for one in found if not json else ():
        _show(one)


@group.command("list")
def list_anomalies(
    topic: Annotated[str | None, typer.Argument(metavar="[TOPIC]")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="An age (2h) or a time.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help=f"One of {', '.join(_KINDS)}.")] = None,
    severity: Annotated[str | None, typer.Option("--severity", help="The least: low, medium, high or critical.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Also what did not alert: found in history, over the budget.")] = False,
    dismissed: Annotated[bool, typer.Option("--dismissed", help="Also what people called no anomaly.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 50,
    topics: Topics = None,
    json: Json = False,
    jsonl: Jsonl = False,
    csv: Csv = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """What was found odd, newest first.

    \b
    headwater anomaly list logs --since 24h
    headwater anomaly list --severity high --json
    headwater anomaly list logs --quiet --dismissed
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    chosen: DetectorKind | None = _one_of("--kind", kind, _KINDS)  # type: ignore[assignment]
    least: Severity | None = _one_of("--severity", severity, _SEVERITIES)  # type: ignore[assignment]
    names = [topic] if topic is not None else names_of(topics)
    with session_(data, url) as verbs:
        found = verbs.anomalies(
            names, since=since, until=until, kind=chosen, severity=least, quiet=quiet, dismissed=dismissed, limit=limit
        )
    if form is not output.Format.TEXT:
        output.show_all(form, found.anomalies, _CSV, ([getattr(a, name) for name in _CSV] for a in found))
    else:
        for one in found:
            output.out(f"{output.style(one.id, 'bold')}  {output.when(one.start)}  {one.severity} {one.kind}{_marks(one)}")
            output.out("  " + output.line_of(one.what))
        if not found:
            output.say(
                "nothing odd was found" if found.coverage.topics else "no detectors are on; `headwater anomaly enable TOPIC`"
            )
    for note in found.coverage.notes:
        output.say(note)
    if found.coverage.truncated:
        output.say(f"older ones are left out; --limit shows more than {limit:,}")


@group.command("show")
def show(id: Id, json: Json = False, data: Data = None, url: Url = None) -> None:
    """One anomaly: what was seen, how unlikely, and what is normal.

    \b
    headwater anomaly show logs-17
    """
    with session_(data, url) as verbs:
        found = verbs.anomaly(id)
    if json:
        output.show_json(found)
        return
    output.out(f"{output.style(found.id, 'bold')}  {output.when(found.start)} to {output.when(found.end)}  "
               f"{found.severity} {found.kind}{_marks(found)}")  # fmt: skip
    output.out("  " + output.line_of(found.what))
    for signal in found.signals:
        output.out(
            f"  {output.when(signal.at)}  {output.line_of(signal.what)}" + (f"  {signal.address}" if signal.address else "")
        )
    for normal in found.normal:
        like = "" if normal.similarity is None else f"  {normal.similarity:.2f} similar"
        output.out(
            f"  normal: {output.line_of(normal.text)}{like}  {normal.count:,}x"
            + (f"  {normal.address}" if normal.address else "")
        )
    if found.note:
        output.out(f"  note: {output.line_of(found.note)}")


@group.command("feedback")
def feedback(
    id: Id,
    not_an_anomaly: Annotated[
        bool, typer.Option("--not-an-anomaly", help="It was none: hide it, and let what is like it not alert again.")
    ] = False,
    an_anomaly: Annotated[bool, typer.Option("--anomaly", help="It was one.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take an earlier verdict back.")] = False,
    note: Annotated[str | None, typer.Option("--note", help="Why, for others.")] = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Say what an anomaly was. One that was none is hidden, and what is like it does not alert again.

    \b
    headwater anomaly feedback logs-17 --not-an-anomaly --note "the nightly batch"
    headwater anomaly feedback logs-17 --undo
    """
    if not_an_anomaly + an_anomaly + undo != 1:
        raise typer.BadParameter("say one of --not-an-anomaly, --anomaly and --undo")
    verdict: Verdict | None = "not an anomaly" if not_an_anomaly else "anomaly" if an_anomaly else None
    with session_(data, url) as verbs:
        found = verbs.judge_anomaly(id, verdict, note=note)
    if json:
        output.show_json(found)
    else:
        output.say(f"{found.id}: {found.feedback or 'no verdict'}")


session_ = session  # the option of that name hides it


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _one_of(option: str, given: str | None, known: tuple[str, ...]) -> str | None:
    if given is not None and given not in known:
        raise typer.BadParameter(f"{option} is one of {', '.join(known)}")
    return given


def _marks(anomaly: Anomaly) -> str:
    marks = [] if anomaly.alerted else [f"no alert: {anomaly.why_quiet}"]
    marks += [anomaly.feedback] if anomaly.feedback else []
    return f"  ({'; '.join(marks)})" if marks else ""


def _told(found: Detecting, json: bool) -> None:
    if json:
        output.show_json(found)
    else:
        _show(found)


def _show(one: Detecting) -> None:
    budget = f"at most {one.budget_per_day:g} alerts a day, {one.sensitivity} sensitivity"
    output.out(f"{output.style(one.topic, 'bold')}  {one.state}  {budget}")
    if one.state == "off":
        return
    spent = f"{one.alerts_24h} alerts in the last 24 hours, {one.alerted} of {one.found} found alerted"
    output.out(f"  {spent}, {one.dismissed} dismissed; {one.behind:,} records behind")
    output.out(
        f"  knows {one.history_days * 24:.1f} hours; alerts at what chance brings once in {one.line_days:g} days or less"
    )
    if one.error:
        output.out("  " + output.line_of(one.error))
