"""Records that a question names: a ticket by its number, what somebody said by who said it, records by what they are called."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from headwater.llm.extractive import content_words, named_things

if TYPE_CHECKING:
    from headwater.rag.place import Scope

_MOST_NAMED = 4  # names of a question that are looked for
_SAYING = (
    r"(?:say|said|tell|told|write|wrote|written|ask|asked|answer|answered|reply|replied|mention|mentioned|think|thought|suggest"
    r"|suggested|propose|proposed|report|reported|post|posted|note|noted|find|found|promise|promised)"
)
_BY = re.compile(rf"\b(?:did|does|do|has|had)\s+@?(?P<who>\w[\w.@-]*)\s+(?:(?:also|ever|just)\s+)?{_SAYING}\b", re.IGNORECASE)
_OF_KIND = re.compile(
    r"\b(?:show|list|find|give|which|what|any|are there|were there)\s+(?:(?:me|us|the|all|any|some|open|new|other)\s+)*"
    r"(?P<kind>(?:\w+[\s-])?\w+s)\s+(?:there\s+)?(?:(?:that|which)\s+)?(?:(?:are|were|do|did)\s+)?"
    r"(?:about|mention\w*|concern\w*|regard\w*|say\w*|said|tell\w*|contain\w*|with|on)\b",
    re.IGNORECASE,
)


def numbered(key: str) -> bool:
    """Whether a key is that of one thing, such as a ticket, rather than of a person: it has a digit."""
    return any(map(str.isdigit, key))


async def keyed(text: str, scope: Scope) -> tuple[str, Scope]:
    """The text without what names a key, and the scope of the records with that key; both as they are where none has it. Keys
    of log lines are those of services and hosts, of which other topics tell as well: they choose nothing."""
    named = [(name, name) for name in named_things(text)]
    named += [(m["who"], m.group()) for m in _BY.finditer(text)]
    if not named:
        return text, scope
    written = [t for t in scope.events((await scope.covered()).topics) if scope.kind_of(t) != "template"]
    for name, phrase in named[:_MOST_NAMED] if written else ():
        for key in dict.fromkeys((name, name.upper(), name.lower(), name.capitalize())):
            inside = replace(scope, topics=written, key=key)
            if (await inside.covered()).searched:
                having = [t for t in written if (await replace(inside, topics=[t]).covered()).searched]
                return " ".join(text.replace(phrase, " ").split()), replace(inside, topics=having)
    return text, scope


async def of_kind(text: str, scope: Scope) -> tuple[str, Scope]:
    """The text without what its records are called, and the scope of the topics that hold such: "which tickets mention the
    pool?" asks for those of `support-tickets`. Both as they are where nothing is called so, or nothing else is asked."""
    if (match := _OF_KIND.search(text)) is None:
        return text, scope
    rest = " ".join(f"{text[: match.start()]} {text[match.end() :]}".split())
    topics = named_topics(re.split(r"[\s-]", match["kind"]), scope.events((await scope.covered()).topics))
    if not topics or not content_words(rest):
        return text, scope
    return rest, replace(scope, topics=topics, listed=True)


def named_topics(words: Collection[str], topics: Sequence[str]) -> list[str]:
    """The topics whose names are among some words, whatever their endings (`deployed` names `deploys`); where there are none,
    those that a word names by what their records are (`tickets` names `support-tickets`)."""
    said = {stem for w in words for stem in content_words(w)}
    named = [t for t in topics if (stems := set(content_words(t))) and stems <= said]
    many = {w.casefold() for w in words if w.casefold().endswith("s")}
    return named or [t for t in topics if re.split(r"[._-]", t.casefold())[-1] in many]


def besides(words: Collection[str], topics: Sequence[str]) -> list[str]:
    """The words that do not name these topics."""
    known = {stem for t in topics for stem in content_words(t)}
    return [w for w in words if not set(content_words(w)) <= known]
