"""`%load_ext headwater`: searches and questions as cells of a notebook.

%headwater                     which daemon or directory the cells speak to; `%headwater connect URL`, `%headwater open PATH`
%%search --topics logs         the cell is the query; with `--live 30` its table follows what comes for so many seconds
%%ask --since 2h               the cell is the question; the answer appears as it comes
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError, UsageError
from headwater.records.frames import answer_html

if TYPE_CHECKING:
    from headwater.blocking import Headwater
    from headwater.records import Answer, SearchReply

_SEARCH: Mapping[str, Callable[[str], Any]] = {
    "topics": list,
    "top-k": int,
    "mode": str,
    "since": str,
    "until": str,
    "min-score": float,
    "live": float,
}
_LOOK_S = 0.5  # how often a live search looks again
_ASK: Mapping[str, Callable[[str], Any]] = {"topics": list, "since": str, "until": str, "conversation": str, "model": str}


class Cells:
    """The magics of one notebook, and what they speak to: the `hw` of the notebook where there is one, else a daemon."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._own: Headwater | None = None

    def register(self) -> None:
        """Make them known to the notebook."""
        self._shell.register_magic_function(self.headwater, "line", "headwater")
        self._shell.register_magic_function(self.search, "cell", "search")
        self._shell.register_magic_function(self.ask, "cell", "ask")

    def headwater(self, line: str) -> None:
        """`connect [URL]`, `open PATH`, or nothing to see what is spoken to."""
        import headwater

        words = shlex.split(line)
        if words[:1] == ["connect"] and len(words) <= 2:
            self._use(headwater.connect(*words[1:]))
        elif words[:1] == ["open"] and len(words) == 2:
            self._use(headwater.open(words[1]))
        elif words:
            raise UsageError(f"%headwater {line}: write `connect`, `connect URL` or `open PATH`")
        status = self._verbs().status()
        records = sum(t.records for t in status.topics)
        print(f"{status.url or status.data_dir}: {records:,} records in {len(status.topics)} topics")

    def search(self, line: str, cell: str) -> SearchReply:
        """What the cell's query finds. Options as of `headwater search`; with `--live SECONDS` the table is shown at once and
        changes as records come, until the time is up or the cell is interrupted."""
        options = _options("search", line, _SEARCH)
        seconds = options.pop("live", None)
        reply = self._verbs().search(cell.strip(), **options)
        return reply if seconds is None else self._follow(cell.strip(), options, reply, seconds)

    def ask(self, line: str, cell: str) -> Answer:
        """The answer to the cell's question, shown as it comes."""
        from IPython.display import HTML, display

        scope = _options("ask", line, _ASK)
        shown = display(HTML(""), display_id=True)
        text = ""
        for event in self._verbs().ask(cell.strip(), stream=True, **scope):
            if event.event == "token":
                text += str(event.data)
                shown.update(HTML(answer_html(text)))
            elif event.event == "done":
                answer: Any = event.data
                shown.update(HTML(""))
                return answer  # type: ignore[no-any-return]  # the event named done holds the answer
        raise HeadwaterError("the answer broke off")

    def _follow(self, q: str, options: Mapping[str, Any], reply: SearchReply, seconds: float) -> SearchReply:
        """The last reply to a query asked again and again, each shown in the place of the one before where they differ."""
        from IPython.display import HTML, display

        end, shown = time.monotonic() + seconds, display(HTML(reply._repr_html_()), display_id=True)
        try:
            while time.monotonic() < end:
                time.sleep(min(_LOOK_S, max(end - time.monotonic(), 0.0)))
                now = self._verbs().search(q, **options)
                if now.hits != reply.hits:
                    shown.update(HTML(now._repr_html_()))
                reply = now
        except KeyboardInterrupt:
            pass  # that is how people end it
        shown.update(HTML(""))  # what is returned is shown below
        return reply

    def _use(self, verbs: Headwater) -> None:
        if self._own is not None:
            self._own.close()
        self._own = verbs
        self._shell.push({"hw": verbs})

    def _verbs(self) -> Headwater:
        """The notebook's `hw`, else the daemon's, which becomes it."""
        from headwater.blocking import Headwater

        held = self._shell.user_ns.get("hw")
        if isinstance(held, Headwater):
            return held
        import headwater

        self._use(headwater.connect())
        return self._verbs()


def _options(magic: str, line: str, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """`--name value` pairs of a magic's line; UsageError names those there are."""
    given: dict[str, Any] = {}
    words = iter(shlex.split(line))
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        kind = known.get(name) if word.startswith("--") else None
        if kind is None:
            raise UsageError(f"%%{magic}: {word!r} is not one of {', '.join(f'--{n}' for n in known)}; the query goes below")
        value = value or next(words, "")
        try:
            given[name.replace("-", "_")] = value.split(",") if kind is list else kind(value)
        except ValueError as error:
            raise UsageError(f"%%{magic}: --{name} {value!r} is not a number") from error
    return given
