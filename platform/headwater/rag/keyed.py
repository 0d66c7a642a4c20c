"""Records that a question names by their key: a ticket by its number, what somebody said by who said it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from headwater.llm.extractive import named_things

if TYPE_CHECKING:
    from headwater.rag.place import Scope

_SAYING = (
    r"(?:say|said|tell|told|write|wrote|written|ask|asked|answer|answered|reply|replied|mention|mentioned|think|thought|suggest"
    r"|suggested|propose|proposed|report|reported|post|posted|note|noted|find|found|promise|promised)"
)
_BY = re.compile(rf"\b(?:did|does|do|has|had)\s+@?(?P<who>\w[\w.@-]*)\s+(?:(?:also|ever|just)\s+)?{_SAYING}\b", re.IGNORECASE)


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
    for name, phrase in named if written else ():
        for key in dict.fromkeys((name, name.upper(), name.lower(), name.capitalize())):
            inside = replace(scope, key=key)
            if having := [t for t in written if (await replace(inside, topics=[t]).covered()).searched]:
                return " ".join(text.replace(phrase, " ").split()), replace(inside, topics=having)
    return text, scope
