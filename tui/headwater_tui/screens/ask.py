"""Ask: questions and their answers as they come, each citation one key away from its record."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, cast

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Markdown, OptionList, Static
from textual.widgets.markdown import MarkdownStream
from textual.widgets.option_list import Option

from headwater.composed import AskEvent
from headwater.errors import HeadwaterError
from headwater.records import Answer, Citation, Coverage
from headwater.visible import visible
from headwater_tui import export
from headwater_tui.lines import clock, flat
from headwater_tui.messages import Asked, Failed, Opened, Resumed, Said
from headwater_tui.screens.asking_for import Choose
from headwater_tui.screens.view import View
from headwater_tui.widgets.query_bar import QueryBar

_MOST_ANSWERS = 500  # of a conversation that are exported
_ACTIVE = re.compile(r"(!?)\[([^\]\n]*)\]\(([^)\s]*)[^)]*\)")


def inert(markdown: str) -> str:
    """Markdown whose links and images are text: an answer shows what records say, and leads nowhere."""
    return _ACTIVE.sub(lambda found: f"{found[2]} ({found[3]})", markdown).replace("<", "\\<")


class Ask(View):
    NAME = "Ask"
    AUTO_FOCUS = "QueryBar"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "citations", "Citations", id="ask.citations"),
        Binding("slash", "question", "Question", id="ask.question"),
        Binding("ctrl+x", "stop", "Stop", id="ask.stop"),
        Binding("r", "again", "Again", id="ask.again"),
        Binding("o", "topics", "Topics", id="ask.topics"),
        Binding("y", "copy", "Copy answer", id="ask.copy"),
        Binding("x", "export", "Export", show=False, id="ask.export"),
        Binding("n", "new", "New conversation", show=False, id="ask.new"),
        Binding("c", "conversations", "Conversations", id="ask.conversations"),
        Binding("M", "model", "Model", show=False, id="ask.model"),
        Binding("j", "scroll(3)", "Down", show=False, id="ask.down"),
        Binding("k", "scroll(-3)", "Up", show=False, id="ask.up"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []
        self.conversation, self.title, self.model = "", "", ""
        self.question = ""
        self.answer: Answer | None = None
        self._cited: list[Citation] = []
        self._stream: MarkdownStream | None = None
        self._proposed = ""

    def body(self) -> ComposeResult:
        with Horizontal():
            with Vertical(id="talk"):
                yield VerticalScroll(id="answers")
                yield Static(id="state", markup=False)
                yield QueryBar(
                    placeholder="What is new since the last deploy, and has anyone seen it before? (Enter)", id="question"
                )
            with Vertical(id="sources"):
                yield Static("Citations (Enter opens)", classes="title")
                yield OptionList(id="citations")

    def on_mount(self) -> None:
        self.query_one(QueryBar).remember([])
        self._state("")
        if self._proposed:
            self._write()

    def ask(self, question: str) -> None:
        """Ask this, above all what is being answered."""
        if question:
            self.question = question
            self.conversation = self.conversation or f"tui-{uuid.uuid4().hex[:12]}"
            self._begin(question)

    def propose(self, question: str) -> None:
        """A question to be changed or sent."""
        self._proposed = " ".join(question.split())
        if self.is_mounted:
            self._write()

    def _write(self) -> None:
        bar = self.query_one(QueryBar)
        bar.value, self._proposed = self._proposed, ""
        bar.cursor_position = len(bar.value)
        bar.focus()

    @work(group="answer", exclusive=True)
    async def _begin(self, question: str) -> None:
        answers = self.query_one("#answers", VerticalScroll)
        self._cited, self.answer = [], None
        self.query_one("#citations", OptionList).clear_options()
        await answers.mount(Static(Text(question, "bold"), classes="question"))
        place = Markdown(open_links=False)
        await answers.mount(place)
        answers.anchor()
        self._stream = Markdown.get_stream(place)
        self._state("searching")
        try:
            async with aclosing(cast("Any", self._events(question))) as events:
                async for step in events:
                    self.post_message(Said(step.event, step.data))
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            self._state("failed")
        finally:
            stream, self._stream = self._stream, None
            if stream is not None:
                await stream.stop()

    def _events(self, question: str) -> AsyncIterator[AskEvent]:
        topics, model = self.topics or None, self.model or None
        return self.verbs.ask_events(question, topics=topics, conversation=self.conversation, model=model)

    async def on_said(self, message: Said) -> None:
        data = message.data
        if isinstance(data, Coverage):
            self._state(f"{data.searched:,} records searched; answering")
        elif isinstance(data, str) and self._stream is not None:
            await self._stream.write(inert(data))
        elif isinstance(data, Citation):
            self._cite(data)
        elif isinstance(data, Answer):
            await self._whole(data)

    async def _whole(self, answer: Answer) -> None:
        """The answer as it was checked takes the place of what was streamed."""
        self.answer = answer
        last = self.query("#answers Markdown").last(Markdown)
        await last.update(inert(answer.text))
        self.query_one("#citations", OptionList).clear_options()
        self._cited = []
        for citation in answer.citations:
            self._cite(citation)
        said = [answer.model, f"{answer.timings.get('total_ms', 0) / 1000:.1f} s", f"confidence {answer.confidence:.2f}"]
        said += [f"{len(answer.unsupported)} sentences without support"] if answer.unsupported else []
        said += answer.coverage.notes
        self._state("  ·  ".join(said))

    def _cite(self, citation: Citation) -> None:
        if any(c.n == citation.n for c in self._cited):
            return
        self._cited.append(citation)
        at = f" {clock(citation.timestamp).strip()}" if citation.timestamp else ""
        mark = "" if citation.verified and citation.supported else " (not supported)"
        text = Text(f"[{citation.n}] {citation.address}{at}{mark}\n", "bold").append(flat(citation.quote)[:300], "not bold dim")
        self.query_one("#citations", OptionList).add_option(Option(text))

    def _state(self, doing: str) -> None:
        where = ", ".join(filter(None, (self.title, ", ".join(self.topics) or "all topics", self.model)))
        self.query_one("#state", Static).update("  ·  ".join(filter(None, (where, doing))))

    def on_asked(self, message: Asked) -> None:
        message.stop()
        bar = self.query_one(QueryBar)
        bar.remember([*bar.completion.history, message.q])
        bar.value = ""
        self.ask(message.q)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(Opened(self._cited[event.option_index].address))

    # ------------------------------------------------------------------ what can be done

    def action_question(self) -> None:
        self.query_one(QueryBar).focus()

    def action_stop(self) -> None:
        """Stop the answer that is being made; a model that makes it is stopped too."""
        self.workers.cancel_group(self, "answer")
        self._state("stopped")

    def action_again(self) -> None:
        self.ask(self.question)

    def action_copy(self) -> None:
        if self.answer is not None:
            entry = export.of_answer(self.answer)
            self.hw.copy(f"{entry.head}\n\n{entry.text}")

    @work(group="dialog")
    async def action_export(self) -> None:
        """Write the answers of the conversation, with what they cite, to a file."""
        if not self.conversation:
            self.notify("nothing was answered yet", timeout=2)
            return
        if (stored := await self.calling(self.verbs.answers(conversation=self.conversation, limit=_MOST_ANSWERS))) is None:
            return
        entries = [export.of_answer(one.answer) for one in sorted(stored, key=lambda s: s.created)]
        await self.exporting(entries, "answers", "answers.md")

    def action_citations(self) -> None:
        self.query_one("#citations", OptionList).focus()

    def action_scroll(self, by: int) -> None:
        self.query_one("#answers", VerticalScroll).scroll_relative(y=by, animate=False)

    async def action_new(self) -> None:
        """Begin a conversation that knows nothing of what was said before."""
        self.workers.cancel_group(self, "answer")
        self.conversation, self.title, self.question, self.answer = "", "", "", None
        await self.query_one("#answers", VerticalScroll).remove_children()
        self.query_one("#citations", OptionList).clear_options()
        self._state("a new conversation")
        self.action_question()

    @work(group="dialog")
    async def action_conversations(self) -> None:
        """Go on with an earlier conversation."""
        try:
            held = await self.verbs.conversations()
            if not held:
                self.notify("there are no conversations yet", timeout=2)
                return
            names = {f"{clock(c.updated)} {flat(c.title)[:60] or c.id}": c for c in held}
            chosen = await self.app.push_screen_wait(Choose("Conversations", list(names)))
            if chosen:
                conversation = names[chosen[0]]
                said = await self.verbs.messages(conversation.id)
                self.post_message(Resumed(conversation.id, conversation.title, said))
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))

    async def on_resumed(self, message: Resumed) -> None:
        await self.action_new()
        self.conversation, self.title = message.id, flat(message.title)[:60]
        answers = self.query_one("#answers", VerticalScroll)
        for turn in message.said:
            if turn.role == "user":
                await answers.mount(Static(Text(visible(turn.text), "bold"), classes="question"))
                self.question = turn.text
            else:
                await answers.mount(Markdown(inert(turn.text), open_links=False))
        answers.anchor()
        self._state(f"{len(message.said):,} messages")

    @work(group="dialog")
    async def action_model(self) -> None:
        """Choose the model that answers from now on; `extractive` is none."""
        try:
            models = await self.verbs.models()
        except HeadwaterError as error:
            self.post_message(Failed(str(error)))
            return
        names = ["extractive", *(m.name for m in models if m.model and m.name != "extractive")]
        if chosen := await self.app.push_screen_wait(Choose("Model", names, [self.model] if self.model else ())):
            self.model = chosen[0]
            self._state("")

    @work(group="dialog")
    async def action_topics(self) -> None:
        """Choose what is asked."""
        names = [t.name for t in self.hw.seen.topics] if self.hw.seen else []
        chosen = await self.app.push_screen_wait(
            Choose("Ask which topics (all ticked: everything)", names, self.topics or names)
        )
        if chosen is not None:
            self.topics = [] if len(chosen) == len(names) else chosen
            self._state("")
