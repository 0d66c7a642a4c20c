"""`headwater chat`: a conversation at the terminal; `conversations`, `answers` and `summarize` beside it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import output
from headwater.cli.ask import Model, show_events, show_grounds
from headwater.cli.session import Data, Json, Jsonl, Since, Topics, Until, Url, Yes, confirmed, names_of, session
from headwater.cli.words import QueryCommand
from headwater.visible import visible

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.records.answers import Conversation, Message

Id = Annotated[str, typer.Argument(metavar="ID")]
conversations = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
answers = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
_RECALLED = 6  # messages shown of a conversation that is gone on with
_HELP = """\
/topics a,b   ask only these topics; without names all
/since 2h     only records from this time on; without a time any
/until TIME   only records before this time
/model NAME   answer with this chat model from now on; extractive for none
/history      what was said in this conversation
/new          begin another conversation
/help         this
/quit         leave (so does Ctrl+D); Ctrl+C stops an answer"""


def add(app: typer.Typer) -> None:
    app.command()(chat)
    app.add_typer(conversations, name="conversations")
    app.add_typer(answers, name="answers")
    app.command(cls=QueryCommand)(summarize)


@dataclass(slots=True)
class _Scope:
    """What the questions of a chat look at."""

    conversation: str
    topics: list[str] | None = None
    since: str | None = None
    until: str | None = None
    model: str | None = None


def chat(
    conversation: Annotated[
        str | None, typer.Option("--conversation", "-c", metavar="ID", help="Go on in this conversation; a new id begins one.")
    ] = None,
    topics: Topics = None,
    since: Since = None,
    until: Until = None,
    model: Model = None,
    system: Annotated[str, typer.Option("--system", metavar="TEXT", help="Told to the model, in a new conversation.")] = "",
    forget: Annotated[bool, typer.Option("--forget", help="Keep nothing of a new conversation on the disk.")] = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Talk about your records: questions that go on from each other.

    Answers are streamed and cite records. What was said is kept, and any surface can go on with
    it (`headwater conversations`). /help lists what else can be typed.

    \b
    headwater chat
    headwater chat --topics logs,deploys --since 4h
    headwater chat --conversation incident-7 --model ollama:llama3.1
    """
    from headwater.errors import NotFoundError

    with session(data, url) as verbs, _lines() as lines:
        try:
            talk = verbs.conversation(conversation) if conversation else None
        except NotFoundError:
            talk = None
        if talk is None:
            talk = verbs.create_conversation(conversation, system=system, model=model, persist=not forget)
        output.say(f"conversation {talk.id}; /help lists what can be typed, /quit leaves")
        if talk.messages:
            _show_messages(verbs.messages(talk.id, limit=_RECALLED))
        scope = _Scope(talk.id, names_of(topics), since, until, model)
        for line in lines:
            if line.startswith("/"):
                if not _obey(verbs, scope, line):
                    break
            elif line:
                _answer(verbs, scope, line)


@contextlib.contextmanager
def _lines() -> Iterator[Iterator[str]]:
    """Lines as they are typed, with those of earlier chats behind the up key; from a pipe as they come."""
    if not sys.stdin.isatty():
        yield (line.strip() for line in sys.stdin)
        return
    import platformdirs

    history = Path(platformdirs.user_state_dir("headwater")) / "chat_history"
    try:
        import readline
    except ImportError:  # not on this platform: plain lines
        yield _typed()
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(history)
    try:
        yield _typed()
    finally:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            readline.set_history_length(1000)
            readline.write_history_file(history)
            history.chmod(0o600)


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            output.say()
            return


def _answer(verbs: Headwater, scope: _Scope, question: str) -> None:
    """Ask and show; Ctrl+C stops the answer, an error is told, and the chat goes on."""
    from headwater.errors import HeadwaterError

    events = verbs.ask_events(
        question, conversation=scope.conversation, topics=scope.topics, since=scope.since, until=scope.until, model=scope.model
    )
    try:
        show_events(events, output.Format.TEXT)
    except KeyboardInterrupt:
        output.say("\nstopped; nothing of this answer is kept")
    except HeadwaterError as error:
        output.say(f"{error}")
    output.out()


def _obey(verbs: Headwater, scope: _Scope, line: str) -> bool:
    """What a line that begins with a slash asks for; False to leave."""
    name, _, rest = line[1:].partition(" ")
    rest = rest.strip()
    if name in ("quit", "exit", "q"):
        return False
    if name == "topics":
        _look_at(verbs, scope, replace(scope, topics=names_of([rest]) if rest else None))
    elif name == "since":
        _look_at(verbs, scope, replace(scope, since=rest or None))
    elif name == "until":
        _look_at(verbs, scope, replace(scope, until=rest or None))
    elif name == "model":
        scope.model = rest or None
        output.say(f"model: {scope.model or verbs.conversation(scope.conversation).model or 'that of the settings'}")
    elif name == "history":
        _show_messages(verbs.messages(scope.conversation))
    elif name == "new":
        scope.conversation = verbs.create_conversation(model=scope.model).id
        output.say(f"conversation {scope.conversation}")
    else:
        output.say(_HELP if name == "help" else f"/{name} is not known\n{_HELP}")
    return True


def _look_at(verbs: Headwater, scope: _Scope, wanted: _Scope) -> None:
    """Let questions look at what is wanted from now on, and say how much that is; where it cannot be, all stays as it was."""
    from headwater.errors import HeadwaterError

    try:
        reply = verbs.search("", topics=wanted.topics, since=wanted.since, until=wanted.until, top_k=1)
    except HeadwaterError as error:
        output.say(f"{error}; nothing is changed")
        return
    scope.topics, scope.since, scope.until = wanted.topics, wanted.since, wanted.until
    bounds = "; ".join(f"{name}: {value}" for name, value in (("since", scope.since), ("until", scope.until)) if value)
    where = f"topics: {', '.join(scope.topics) if scope.topics else 'all'}; {bounds or 'any time'}"
    output.say(f"{where}; {output.plural(reply.coverage.searched, 'record')}")


def _show_messages(found: list[Message]) -> None:
    for message in found:
        mark = "> " if message.role == "user" else ""
        output.out(output.style(mark, "cyan") + visible(message.text))


# --------------------------------------------------------------------------------------------------- conversations
@conversations.callback()
def _list_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, data: Data = None, url: Url = None
) -> None:
    """Conversations: listed, read, removed.

    \b
    headwater conversations
    headwater conversations show incident-7
    headwater conversations rm incident-7
    """
    if context.invoked_subcommand is None:
        list_conversations(json, jsonl, data, url)


@conversations.command("list")
def list_conversations(json: Json = False, jsonl: Jsonl = False, data: Data = None, url: Url = None) -> None:
    """Every conversation, the one spoken in last first.

    \b
    headwater conversations list --json
    """
    form = output.chosen(json=json, jsonl=jsonl)
    with session(data, url) as verbs:
        found = verbs.conversations()
    if form is not output.Format.TEXT:
        output.show_all(form, found, (), ())
    elif not found:
        output.say("no conversations; `headwater chat` begins one")
    else:
        output.show_table(("ID", "MESSAGES", "LAST", "ENDS", "MODEL", "TITLE"), map(_row, found), right=(1,))


def _row(talk: Conversation) -> tuple[str, ...]:
    ends = "-" if talk.expires is None else output.when(talk.expires)
    return (talk.id, f"{talk.messages:,}", output.when(talk.updated), ends, talk.model or "-", output.line_of(talk.title))


@conversations.command("show")
def show_conversation(id: Id, json: Json = False, data: Data = None, url: Url = None) -> None:
    """What was said in a conversation.

    \b
    headwater conversations show incident-7
    """
    with session(data, url) as verbs:
        found = verbs.messages(id, limit=1000)
    if json:
        output.show_json(found)
    else:
        _show_messages(found)


@conversations.command("rm")
def remove_conversation(id: Id, yes: Yes = False, data: Data = None, url: Url = None) -> None:
    """Forget a conversation with its messages and answers.

    \b
    headwater conversations rm incident-7
    """
    with session(data, url) as verbs:
        talk = verbs.conversation(id)
        confirmed(f"Forget conversation {talk.id} with its {output.plural(talk.messages, 'message')}?", yes)
        verbs.remove_conversation(id)
    output.say(f"forgot conversation {id}")


# --------------------------------------------------------------------------------------------------------- answers
@answers.callback()
def _answers_by_default(
    context: typer.Context, json: Json = False, jsonl: Jsonl = False, data: Data = None, url: Url = None
) -> None:
    """Answers that were given: looked up, or asked for again.

    \b
    headwater answers
    headwater answers show 4f0c...
    headwater answers rerun 4f0c...    what changed since I last asked?
    """
    if context.invoked_subcommand is None:
        list_answers(None, 50, json, jsonl, data, url)


@answers.command("list")
def list_answers(
    conversation: Annotated[str | None, typer.Option("--conversation", "-c", metavar="ID", help="Only of this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
    json: Json = False,
    jsonl: Jsonl = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """The answers that are kept, newest first.

    \b
    headwater answers list --limit 5
    """
    form = output.chosen(json=json, jsonl=jsonl)
    with session(data, url) as verbs:
        found = verbs.answers(conversation=conversation, limit=limit)
    if form is not output.Format.TEXT:
        output.show_all(form, found, (), ())
    elif not found:
        output.say('no answers are kept; `headwater ask "QUESTION"` gives one')
    else:
        rows = (
            (a.answer.id, output.when(a.created), "-" if a.answer.abstained else f"{len(a.answer.citations)}", a.answer.model,
             output.line_of(a.answer.question))
            for a in found
        )  # fmt: skip
        output.show_table(("ID", "GIVEN", "CITED", "MODEL", "QUESTION"), rows, right=(2,))


@answers.command("show")
def show_answer(id: Id, json: Json = False, data: Data = None, url: Url = None) -> None:
    """An answer with what it was made of.

    \b
    headwater answers show 4f0c...
    """
    with session(data, url) as verbs:
        found = verbs.answer(id)
    if json:
        output.show_json(found)
        return
    output.out(f"> {visible(found.answer.question)}")
    output.out(visible(found.answer.text))
    show_grounds(found.answer)
    read = ", ".join(r.address for r in found.read)
    if found.standalone != found.answer.question:
        output.note(f"read as: {output.line_of(found.standalone)}")
    output.note(f"given {output.when(found.created)}; made from {read or 'no record'}")


@answers.command("rerun")
def rerun_answer(id: Id, model: Model = None, json: Json = False, data: Data = None, url: Url = None) -> None:
    """Ask the same question again, and show what changed.

    \b
    headwater answers rerun 4f0c...    what changed since I last asked?
    """
    with session(data, url) as verbs:
        again = verbs.rerun(id, model=model)
    if json:
        output.show_json(again)
        return
    for change in again.changes:
        sign, colour = {"added": ("+", "green"), "removed": ("-", "red"), "kept": (" ", "dim")}[change.kind]
        output.out(output.style(f"{sign} {visible(change.text, newlines='mark')}", colour))
    output.note(again.summary)
    show_grounds(again.after)


# ------------------------------------------------------------------------------------------------------- summaries
def summarize(
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="Only records that match.")] = "",
    topics: Topics = None,
    since: Since = None,
    until: Until = None,
    thread: Annotated[
        str | None, typer.Option("--thread", metavar="ADDRESS", help="The thread that the record at this address belongs to.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=20, max=8000, help="About how long it may be.")] = 400,
    model: Model = None,
    json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """What records say, in short, with the records it rests on.

    \b
    headwater summarize --topics logs --since 2h
    headwater summarize "payment" --since yesterday --until today
    headwater summarize --thread tickets/0/42
    """
    with session(data, url) as verbs:
        answer = verbs.summarize(
            topics=names_of(topics), since=since, until=until, q=query, thread=thread, max_tokens=max_tokens, model=model
        )
    if json:
        output.show_json(answer)
        return
    output.out(visible(answer.text))
    show_grounds(answer)
