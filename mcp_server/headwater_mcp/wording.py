"""Failures, worded so that a model knows what to try next, without any secret that an argument held."""

from __future__ import annotations

import re

from pydantic import ValidationError

from headwater import errors
from headwater.redaction import Redactor
from headwater.verbs import Verbs
from headwater.visible import visible
from headwater_mcp.budget import clip

_ERROR_TOKENS = 180
_OF_TOPICS = re.compile(r"\b(?:topics?|record|partition)\b")
_COMMAND = re.compile(r"`headwater ([a-z]+)([^`]*)`")
_TOOL_OF = {
    name: f"the tool `{name}`" for name in ("topics", "search", "similar", "patterns", "timeline", "ask", "watch", "status")
}
_NEXT: tuple[tuple[type[errors.HeadwaterError], str], ...] = (
    (errors.QueryError, "Mend the query there, or put the words in double quotes to search for them as they are."),
    (errors.ConflictError, "Use another name or idempotency_key, or send the same records with that key."),
    (errors.ConfigError, "A setting is wrong, which the user must mend: `headwater config validate` says which."),
    (errors.UsageError, "Mend the argument and call again."),
    (errors.NotFoundError, "Call `topics` for the names there are; addresses come from search."),
    (errors.EmbedError, "Search by meaning is unavailable just now: try mode=keyword, or again in a minute."),
    (errors.ModelError, "The chat model fails just now: search, patterns and read need none; or try again in a minute."),
    (errors.UnreachableError, "Try again in a few seconds; if it stays so, the user can run `headwater doctor`."),
    (errors.OwnedError, "The user can stop the other process or use its URL."),
    (errors.AuthError, "The user must give this server a valid key (HEADWATER_SERVER_API_KEY)."),
    (errors.LimitError, "Ask for less (smaller top_k or limit, narrower since) or wait and try again."),
    (errors.WaitTimeout, "It may still happen: call again."),
    (errors.StorageError, "Reading still works. The user must free disk space."),
    (errors.DamageError, "The index is being rebuilt: try mode=keyword meanwhile."),
)


async def explained(error: errors.HeadwaterError, verbs: Verbs) -> str:
    """What went wrong and what to try; for a topic or record that is not there also the topics of `verbs`. A secret in it is
    taken out."""
    whole = _for_agents(without_secrets(str(error)))
    text = clip(visible(whole), _ERROR_TOKENS // 2)
    text += "…" if len(text) < len(whole) else "\n" if "\n" in text else "."
    after = getattr(error, "retry_after_s", None)
    text += f" Retry after {after:.0f} s." if after else ""
    if isinstance(error, errors.NotFoundError) and not _OF_TOPICS.search(whole):
        return text  # of a watch, say: it says itself what lists them
    text += " " + next((hint for kind, hint in _NEXT if isinstance(error, kind)), "Call `status`.")
    if isinstance(error, errors.NotFoundError):
        text += await _names(verbs)
    return text


def without_secrets(text: str) -> str:
    """The text, with marks in place of the secrets in it."""
    return Redactor(("secrets",)).redact(text).text


async def _names(verbs: Verbs) -> str:
    """The topics there are, for a caller that named one there is not."""
    try:
        names = ", ".join(topic.name for topic in await verbs.topics())
    except errors.HeadwaterError:
        return ""
    shown = clip(names, _ERROR_TOKENS // 3)
    return f" Topics: {shown}{'…' if shown != names else ''}" if names else " There are no topics yet."


def _for_agents(text: str) -> str:
    """What an error says, with the tools in place of the commands that people have: those an agent cannot call are the
    user's to run."""
    return _COMMAND.sub(
        lambda found: _TOOL_OF.get(found[1], f"`headwater {found[1]}{found[2]}`, which is the user's to run,"), text
    )


def arguments(name: str, error: ValidationError) -> str:
    """What is wrong with which argument; never its value."""
    said = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:5]:
        place = ".".join(str(part) for part in problem["loc"][:2])
        said.append(f"{visible(place[:40], newlines='mark')}: {problem['msg'].removeprefix('Value error, ')[:100]}")
    return f"{name}: {'; '.join(said)}. Mend it and call again."
