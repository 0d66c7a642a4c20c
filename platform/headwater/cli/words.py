"""Queries on the command line, where a word may begin with a dash, and what of them a long text shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from typer.core import TyperCommand

_SHORT = re.compile(r"-[A-Za-z]\d+")  # such as -k5
_TERM = re.compile(r"\w[\w.-]*\w|\w")


class QueryCommand(TyperCommand):
    """A command whose last argument is a query: `-word` is part of it unless it is an option, and words that were not
    put in quotes are one query."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        params = self.get_params(ctx)
        options: dict[str, bool] = {}  # whether a value follows
        for param in params:
            if param.param_type_name == "option":
                takes = not (getattr(param, "is_flag", False) or getattr(param, "count", False))
                options.update(dict.fromkeys((*param.opts, *param.secondary_opts), takes))
        given, words = parted(args, options)
        room = sum(param.param_type_name == "argument" for param in params)
        if len(words) > room:
            words = [*words[: room - 1], " ".join(words[room - 1 :])]
        return super().parse_args(ctx, [*given, "--", *words])


def parted(args: Sequence[str], options: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """The options among `args` with their values, and the words. An unknown `--name` is wrong usage, `-word` a word."""
    given: list[str] = []
    words: list[str] = []
    waiting = list(reversed(args))
    while waiting:
        arg = waiting.pop()
        name, equals, _ = arg.partition("=")
        if arg == "--":
            words += reversed(waiting)
            break
        if name in options:
            given.append(arg)
            if options[name] and not equals and waiting:
                given.append(waiting.pop())
        elif _SHORT.fullmatch(arg) and options.get(arg[:2]):
            given.append(arg)
        elif arg.startswith("--") and len(arg) > 2 and " " not in arg:
            given.append(arg)  # the error names the nearest option there is
        else:
            words.append(arg)
    return given, words


def terms_of(query: str) -> tuple[str, ...]:
    """The words a query looks for, without what it excludes and its filters; none for a query that does not parse."""
    from headwater.errors import QueryError
    from headwater.query import parse

    try:
        found = parse(query, now_ms=0)
    except QueryError:
        return ()
    return tuple(dict.fromkeys(word.casefold() for word in _TERM.findall(found.text) if len(word) > 2 or word.isdigit()))


def pattern_of(terms: Iterable[str]) -> re.Pattern[str] | None:
    """What matches the terms in a text, their endings aside; None for no terms."""
    stems = sorted({re.escape(term[: max(4, len(term) - 2)]) + r"\w{0,4}" for term in terms}, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(stems)})\b", re.IGNORECASE) if stems else None


def excerpt(text: str, matching: re.Pattern[str] | None, room: int) -> str:
    """`text` where it is no longer than `room`, else the stretch of that length with the most different words that match,
    an ellipsis where something is left out."""
    if len(text) <= room:
        return text
    found = [(m.start(), m.end(), m.group().casefold()[:6]) for m in matching.finditer(text)] if matching else []
    best, start = 0, 0
    for i, (begin, _, _) in enumerate(found):
        within = {word for at, end, word in found[i : i + 50] if end <= begin + room * 3 // 4}
        if len(within) > best:
            best, start = len(within), begin
    start = max(0, min(start - room // 8, len(text) - room + 1))
    if start:
        space = text.find(" ", start, start + 20)
        start = space + 1 if space >= 0 else start
    end = min(len(text), start + room - 2)
    if end < len(text):
        space = text.rfind(" ", end - 20, end)
        end = space if space > start else end
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
