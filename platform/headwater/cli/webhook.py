"""`headwater webhook`: addresses that are called for alerts and for what watches fire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.session import Csv, Data, Json, Jsonl, Url, session

if TYPE_CHECKING:
    from headwater.records.webhooks import Webhook

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id or its name.")]
group = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_CSV = ("id", "name", "url", "alerts", "watches", "state", "error", "sent", "waiting", "given_up", "dropped", "last_sent")


def add(app: typer.Typer) -> None:
    app.add_typer(group, name="webhook")


@group.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None
) -> None:
    """Webhooks: addresses that are called, signed and at least once, for alerts and for what watches fire.

    The signing secret is in an environment variable of the daemon, WEBHOOK_SECRET unless --secret names another.

    \b
    export WEBHOOK_SECRET=$(headwater webhook secret)
    headwater webhook add https://example.com/hook --alerts logs --name pager
    headwater webhook add http://127.0.0.1:9000/ --watch declined --allow-private
    headwater webhook test pager
    """
    if context.invoked_subcommand is None:
        list_webhooks(json, jsonl, csv, data, url)


@group.command("secret")
def secret() -> None:
    """Print a new signing secret, for WEBHOOK_SECRET. Nothing keeps it but you.

    \b
    headwater webhook secret
    """
    import secrets

    from headwater.webhooks.signing import secret_of

    output.out(secret_of(secrets.token_bytes(32)))


@group.command("add")
def add_webhook(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="What to call: https://...")],
    alerts: Annotated[
        str | None, typer.Option("--alerts", metavar="A,B", help="Topics whose alerts it gets; '*' for all.")
    ] = None,
    watch: Annotated[
        list[str] | None, typer.Option("--watch", metavar="ID", help="A watch whose hits it gets; again for more, '*' for all.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="To speak of it by.")] = None,
    secret: Annotated[
        str, typer.Option("--secret", metavar="VARIABLE", help="Environment variable of the daemon: WEBHOOK_...")
    ] = "WEBHOOK_SECRET",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="It is meant to be this machine or in a private network.")
    ] = False,
    tries: Annotated[int, typer.Option("--tries", min=1, help="After so many a call is given up.")] = 30,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Call an address from now on.

    \b
    headwater webhook add https://example.com/hook --alerts logs --name pager
    headwater webhook add http://127.0.0.1:9000/ --watch declined --allow-private
    """
    topics = [part.strip() for part in (alerts or "").split(",") if part.strip()]
    with session(data, url) as verbs:
        made = verbs.add_webhook(
            address, name=name, alerts=topics, watches=watch or [], secret=secret, allow_private=allow_private, tries=tries
        )
    if json:
        output.show_json(made)
        return
    output.out(made.name)
    output.say(f"it will be called for {_meant(made)}; `headwater webhook test {made.name}` calls it now")


@group.command("list")
def list_webhooks(json: Json = False, jsonl: Jsonl = False, csv: Csv = False, data: Data = None, url: Url = None) -> None:
    """Every webhook, oldest first.

    \b
    headwater webhook list
    """
    form = output.chosen(json=json, jsonl=jsonl, csv=csv)
    with session(data, url) as verbs:
        found = verbs.webhooks()
    if form is not output.Format.TEXT:
        output.show_all(form, found, _CSV, ([getattr(w, name) for name in _CSV] for w in found))
    elif not found:
        output.say("no webhooks; `headwater webhook add ADDRESS --alerts TOPIC` makes one")
    else:
        lines = (
            (str(w.id), w.name, w.state, f"{w.sent:,}", f"{w.waiting:,}", f"{w.given_up:,}", output.when(w.last_sent),
             output.line_of(_meant(w)), output.line_of(w.url))
            for w in found
        )  # fmt: skip
        headings = ("ID", "NAME", "STATE", "SENT", "WAITING", "GIVEN UP", "LAST SENT", "FOR", "ADDRESS")
        output.show_table(headings, lines, right=(0, 3, 4, 5))


@group.command("show")
def show(id: Id, json: Json = False, data: Data = None, url: Url = None) -> None:
    """One webhook: how its calls went, and those that have not succeeded.

    \b
    headwater webhook show pager
    """
    with session(data, url) as verbs:
        found = verbs.webhook(id)
    if json:
        output.show_json(found)
    else:
        _show(found)


@group.command("test")
def call_once(id: Id, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Call it once now, signed; exit code 1 when that fails.

    \b
    headwater webhook test pager
    """
    with session(data, url) as verbs:
        done = verbs.test_webhook(id)
    if json:
        output.show_json(done)
    elif done.ok:
        output.say(f"it answered {done.status} in {done.seconds:.2f} s")
    else:
        output.say(f"the call failed: {output.line_of(done.error or 'no answer')}")
    if not done.ok:
        raise typer.Exit(1)


@group.command("pause")
def pause(id: Id, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Call it no more until it is resumed; what it is to be sent waits.

    \b
    headwater webhook pause pager
    """
    with session(data, url) as verbs:
        found = verbs.pause_webhook(id)
    _told(found, json)


@group.command("resume")
def resume(id: Id, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Let it go on; what waits and what was given up is tried anew, at once.

    \b
    headwater webhook resume pager
    """
    with session(data, url) as verbs:
        found = verbs.resume_webhook(id)
    _told(found, json)


@group.command("rm")
def remove(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids or names.")], data: Data = None, url: Url = None
) -> None:
    """Forget webhooks, with what they were to be sent.

    \b
    headwater webhook rm pager
    """
    with session(data, url) as verbs:
        for id in ids:
            verbs.remove_webhook(id)
    output.say(f"removed {output.plural(len(ids), 'webhook')}")


def _told(found: Webhook, json: bool) -> None:
    if json:
        output.show_json(found)
    else:
        output.say(f"{found.name}: {found.state}, {output.plural(found.waiting, 'call')} waiting")


def _meant(webhook: Webhook) -> str:
    """What it is called for, in one line."""
    alerts = [f"alerts of {'every topic' if '*' in webhook.alerts else ', '.join(webhook.alerts)}"] if webhook.alerts else []
    if webhook.watches:
        alerts.append("every watch" if "*" in webhook.watches else f"watch {', '.join(webhook.watches)}")
    return " and ".join(alerts) or "nothing: what it was for is gone"


def _show(one: Webhook) -> None:
    output.out(f"{output.style(one.name, 'bold')}  {one.state}  {output.line_of(one.url)}")
    output.out(f"  for {output.line_of(_meant(one))}; signed with {one.secret}")
    dropped = f", {one.dropped:,} dropped" if one.dropped else ""
    output.out(f"  {one.sent:,} sent, {one.waiting:,} waiting, {one.given_up:,} given up{dropped}")
    if one.last_sent is not None:
        output.out(f"  last sent {output.when(one.last_sent)}")
    if one.error is not None:
        failed = "" if one.last_failed is None else f" ({output.when(one.last_failed)})"
        output.out(f"  {output.line_of(one.error)}{failed}")
    for call in one.calls:
        again = "" if call.next_try is None else f", again {output.when(call.next_try)}"
        why = f": {output.line_of(call.error)}" if call.error else ""
        output.out(f"  {call.kind} {call.about}  {call.state}, tried {call.tries}x{again}{why}")
