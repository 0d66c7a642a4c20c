"""Discord channels as DiscordChatExporter writes them (JSON) -> a record a message, replies as threads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from headwater.records import Draft
from headwater.sources import Fault
from headwater.sources.exports import Item, attributes, text_of
from headwater.sources.fields import parse_time

_EPOCH_MS = 1_420_070_400_000  # of Discord's ids
_MARK = re.compile(r"<a?:(\w+):\d+>")  # an emoji of the server's own


def is_export(first: str) -> bool:
    return re.match(r'\s*\{\s*"guild"\s*:\s*\{', first) is not None and '"channel"' in first


def read(text: str) -> Iterator[Item]:
    """All messages of a channel."""
    try:
        tree = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        yield Item("", Fault(0, f"not JSON: {str(error)[:200]}"))
        return
    guild, channel = text_of(tree, "guild", "name"), text_of(tree, "channel", "name")
    stream = text_of(tree, "channel", "id")
    messages = tree.get("messages")
    listed = messages if isinstance(messages, list) else []
    answered = {text_of(m, "id"): text_of(m, "reference", "messageId") for m in listed if isinstance(m, Mapping)}
    for message in listed:
        yield Item(stream, _message(message, guild, channel, answered))


def _root(id: str, answered: Mapping[str, str]) -> str:
    """The message at the beginning of the replies that `id` is in, as far back as the export reaches."""
    seen = {id}
    while (above := answered.get(id)) and above not in seen:
        seen.add(above)
        id = above
    return id


def _message(message: Any, guild: str, channel: str, answered: Mapping[str, str]) -> Draft | Fault:
    id = text_of(message, "id") if isinstance(message, Mapping) else ""
    if not id.isdigit() or len(id) > 18 + 1 or int(id) >= 1 << 63:
        return Fault(0, "a message without an id", json.dumps(message)[:2000])
    texts = [_MARK.sub(r":\1:", text_of(message, "content"))]
    for part in message.get("embeds") or ():
        if isinstance(part, Mapping):
            texts += [text_of(part, "title"), text_of(part, "description")]
            fields = (field for field in part.get("fields") or () if isinstance(field, Mapping))
            texts += [": ".join(filter(None, (text_of(f, "name"), text_of(f, "value")))) for f in fields]
    files = [text_of(part, "fileName") for part in message.get("attachments") or () if isinstance(part, Mapping)]
    texts += [f"[file] {name}" for name in files if name]
    kind, reply = text_of(message, "type"), text_of(message, "reference", "messageId")
    thread = f"{channel}/{_root(id, answered)}" if reply else None
    found = attributes(
        guild=guild, channel=channel, user=text_of(message, "author", "nickname") or text_of(message, "author", "name"),
        user_id=text_of(message, "author", "id"), thread=thread, reply=bool(reply) or None,
        subtype=kind if kind not in ("Default", "Reply") else None, pinned=message.get("isPinned") or None,
        reactions=sum(r.get("count", 0) for r in message.get("reactions") or () if isinstance(r, Mapping)) or None,
    )  # fmt: skip
    time_ms = parse_time(message.get("timestamp")) or (int(id) >> 22) + _EPOCH_MS
    return Draft("\n".join(filter(None, texts)), f"{channel}/{id}", time_ms, found, position=int(id))
