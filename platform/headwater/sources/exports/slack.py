"""Slack export (zip or unpacked folder) -> a record a message, users and channels by their names, threads as an attribute."""

from __future__ import annotations

import html
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headwater.errors import LimitError, UsageError
from headwater.records import Draft
from headwater.sources import Fault
from headwater.sources.exports import MOST_BYTES, Item, attributes, text_of

_LISTS = ("channels.json", "groups.json", "dms.json", "mpims.json")
_MARK = re.compile(r"<([@#!]?)([^<>|\s]+)(?:\|([^<>]*))?>")
_DAY = re.compile(r"(?:.*/)?([^/]+)/(\d{4}-\d\d-\d\d)\.json")
_MOST_RATIO = 200


class Archive:
    """The JSON files of an export, by path; those of a zip with limits. UsageError, LimitError."""

    def __init__(self, path: Path) -> None:
        self._zip: zipfile.ZipFile | None = None
        self._root = path
        if path.is_dir():
            files = (p for p in path.rglob("*.json") if p.is_file() and p.resolve().is_relative_to(path.resolve()))
            self.names = sorted(p.relative_to(path).as_posix() for p in files)
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise UsageError(f"{path} is a damaged zip; export it anew") from error
        entries = [entry for entry in self._zip.infolist() if entry.filename.endswith(".json")]
        size = sum(entry.file_size for entry in entries)
        if size > 32 << 20 and size > _MOST_RATIO * path.stat().st_size:
            raise LimitError(f"{path} unpacks to {size:,} bytes; refused as a bomb")
        self.names = sorted(entry.filename for entry in entries)

    def read(self, name: str) -> Any:
        """The JSON value of a file. Raises ValueError that says why there is none."""
        try:
            if self._zip is None:
                path = self._root / name
                if path.stat().st_size > MOST_BYTES:
                    raise ValueError("larger than a day of messages may be")
                data = path.read_bytes()
            else:
                if self._zip.getinfo(name).file_size > MOST_BYTES:
                    raise ValueError("larger than a day of messages may be")
                data = self._zip.read(name)
            return json.loads(data)
        except (RecursionError, zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError) as error:
            raise ValueError(f"cannot be read ({error})") from error

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()


def is_export(names: list[str]) -> bool:
    """Whether these paths are those of a Slack export."""
    plain = {name.rpartition("/")[2] for name in names}
    return bool(plain & {"users.json", "org_users.json"}) and bool(plain & set(_LISTS)) and any(map(_DAY.fullmatch, names))


def source_of(archive: Archive) -> str:
    """What names the workspace: its id, which every user of it carries."""
    for user in _listed(archive, "users.json"):
        if team := text_of(user, "team_id"):
            return team
    return ""


def read(archive: Archive) -> Iterator[Item]:
    """All messages, channel by channel, day by day."""
    people = {text_of(u, "id"): _name(u) for name in ("users.json", "org_users.json") for u in _listed(archive, name)}
    channels: dict[str, tuple[str, str]] = {}  # folder -> id, name
    for name in _LISTS:
        for channel in _listed(archive, name):
            id, called = text_of(channel, "id"), text_of(channel, "name")
            members = [people.get(str(m), str(m)) for m in channel.get("members") or ()]
            channels[called or id] = (id, called or ", ".join(members))
    names = dict(channels.values())
    for file in archive.names:
        day = _DAY.fullmatch(file)
        if day is None:
            continue
        id, called = channels.get(day[1], (day[1], day[1]))
        try:
            messages = archive.read(file)
            if not isinstance(messages, list):
                raise ValueError("no list of messages")
        except ValueError as error:
            yield Item(id, Fault(0, f"{file}: {error}"))
            continue
        for n, message in enumerate(messages):
            found = _message(message, called, people, names)
            yield Item(id, found if isinstance(found, Draft) else Fault(n, f"{file}: {found}", json.dumps(message)[:2000]))


def _message(message: Any, channel: str, people: Mapping[str, str], channels: Mapping[str, str]) -> Draft | str:
    """The draft of a message, or why it is none."""
    stamp = text_of(message, "ts") if isinstance(message, dict) else ""
    if not re.fullmatch(r"\d{1,12}\.\d{1,6}", stamp):
        return "a message without a time"
    seconds, _, rest = stamp.partition(".")
    position = int(seconds) * 1_000_000 + int(rest.ljust(6, "0"))
    texts = [_plain(text, people, channels) for text in _texts(message)]
    files = [text_of(f, "title") or text_of(f, "name") for f in message.get("files") or () if isinstance(f, dict)]
    texts += [f"[file] {name}" for name in files if name]
    user = text_of(message, "user") or text_of(message, "bot_id")
    own = message.get("user_profile") if isinstance(message.get("user_profile"), dict) else {}
    name = people.get(user) or _name({"profile": own}) or text_of(message, "username") or user
    thread = text_of(message, "thread_ts")
    found = attributes(
        channel=channel, user=name, user_id=user, thread=f"{channel}/{thread}" if thread else None,
        reply=(bool(thread) and thread != stamp) or None, replies=message.get("reply_count"),
        subtype=text_of(message, "subtype"),
        reactions=sum(r.get("count", 0) for r in message.get("reactions") or () if isinstance(r, dict)) or None,
    )  # fmt: skip
    value = "\n".join(filter(None, texts))
    return Draft(value, f"{channel}/{stamp}", position // 1000, found, position=position)


def _texts(message: Mapping[str, Any]) -> list[str]:
    """The texts of a message in Slack's marks: its own, or that of its blocks, then those of what is attached."""
    texts = [text_of(message, "text") or _blocks(message.get("blocks"))]
    for part in message.get("attachments") or ():
        if not isinstance(part, dict):
            continue
        said = [text_of(part, name) for name in ("pretext", "title", "text")]
        for field in part.get("fields") or ():
            said.append(
                ": ".join(filter(None, (text_of(field, "title"), text_of(field, "value")))) if isinstance(field, dict) else ""
            )
        said.append(_blocks(part.get("blocks")))
        texts += said if any(said) else [text_of(part, "fallback")]
    return list(filter(None, texts))


def _blocks(blocks: object) -> str:
    """The text of blocks: of rich text its leaves, a line for each of its parts; of others the texts they show."""
    lines: list[str] = []
    stack: list[tuple[object, bool]] = [(blocks, False)]
    while stack:
        node, goes_on = stack.pop()
        if isinstance(node, list):
            stack += [(part, goes_on) for part in reversed(node)]
            continue
        if not isinstance(node, dict):
            continue
        text = node.get("text")
        kind = text_of(node, "type")
        leaf = {"user": f"<@{text_of(node, 'user_id')}>", "channel": f"<#{text_of(node, 'channel_id')}>",
                "broadcast": f"@{text_of(node, 'range')}", "emoji": f":{text_of(node, 'name')}:",
                "link": f"<{text_of(node, 'url')}|{text_of(node, 'text')}>"}.get(kind)  # fmt: skip
        leaf = leaf if leaf is not None else text if isinstance(text, str) else None
        if leaf is not None and goes_on and lines:
            lines[-1] += leaf
        elif leaf is not None:
            lines.append(leaf)
        if kind in ("rich_text_section", "rich_text_quote", "rich_text_preformatted"):
            lines.append("")
            goes_on = True
        stack += [(node.get(name), goes_on) for name in ("elements", "fields") if isinstance(node.get(name), list)]
        if isinstance(text, dict):
            stack.append((text, goes_on))
    return "\n".join(filter(None, lines))


def _plain(text: str, people: Mapping[str, str], channels: Mapping[str, str]) -> str:
    """Slack's marks as people read them: names of users and channels, labels with their links."""

    def mark(match: re.Match[str]) -> str:
        kind, target, label = match.groups()
        if kind == "@":
            return "@" + (label or people.get(target, target))
        if kind == "#":
            return "#" + (label or channels.get(target, target))
        if kind == "!":
            return "@" + (label or target.partition("^")[0]).removeprefix("@")
        return f"{label} ({target})" if label and label not in target else target

    return html.unescape(_MARK.sub(mark, text))


def _name(user: Mapping[str, Any]) -> str:
    profile = user.get("profile")
    profile = profile if isinstance(profile, dict) else {}
    names = (text_of(profile, "display_name"), text_of(profile, "real_name"), text_of(user, "real_name"), text_of(user, "name"))
    return next(filter(None, names), "")


def _listed(archive: Archive, name: str) -> list[dict[str, Any]]:
    file = next((n for n in archive.names if n.rpartition("/")[2] == name), None)
    if file is None:
        return []
    try:
        found = archive.read(file)
    except ValueError:
        return []
    return [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []
