"""Messages of a broker -> drafts: one set of rules for every broker.

value: UTF-8 text as it is; what is not UTF-8 keeps its bytes beside the text (bad ones become U+FFFD there). With `form`
auto a JSON object is taken apart by the rules of `fields`, anything else is text; with json anything else is a fault; with
text nothing is taken apart. The five bytes that schema registries put before JSON (0 and the schema's number) are cut off.
key: the field named for it; else the message's own, as text or in hexadecimal where it is no text; else the object's.
time: one that the object states, else the message's; with `time="value"` the message's is not used: what the text states
counts, else the time of the append.
headers: attributes `header.NAME`; of repeated ones the last counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from headwater.batches import Fault
from headwater.errors import ConfigError
from headwater.records import Draft, Scalar
from headwater.records.moments import parse_time
from headwater.sources.fields import BadLine, key_field, object_draft, scalar
from headwater.sources.lines import decode

MessageForm = Literal["auto", "text", "json"]
PAYLOAD_CHARS = 2000
_REGISTRY_BYTES = 5


class Message(NamedTuple):
    """One message: `position` in its stream, its time in ms since the epoch (None: none), headers in order, and the
    attributes that say where it came from."""

    value: bytes
    position: int
    key: bytes | None = None
    time_ms: int | None = None
    headers: Sequence[tuple[str, bytes | str | None]] = ()
    attributes: Mapping[str, Scalar] = {}


@dataclass(frozen=True, slots=True)
class Reading:
    """How messages are read. `value_field`, `key_field` and `time_field` name the fields of JSON objects to use instead of
    the usual ones (dots lead into nested objects); `headers` names those that are kept, None for all."""

    form: MessageForm = "auto"
    value_field: str | None = None
    key_field: str | None = None
    time_field: str | None = None
    time: Literal["message", "value"] = "message"
    headers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.form not in ("auto", "text", "json"):
            raise ConfigError(f"form {self.form!r} is none of auto, text, json")
        if self.time not in ("message", "value"):
            raise ConfigError(f"time {self.time!r} is neither message nor value")
        if self.form == "text" and (self.value_field or self.key_field or self.time_field):
            raise ConfigError("fields are named, but form = text takes no object apart; use auto or json")

    def draft(self, message: Message) -> Draft | Fault:
        """The draft of a message, or why it is none."""
        text, raw = decode(message.value, "utf-8")
        if self.form != "text":
            try:
                found = self._object(text, message)
            except BadLine as error:
                return Fault(message.position, str(error), text[:PAYLOAD_CHARS])
            if found is not None:
                return self._complete(found, message)
        key = key_text(message.key) if message.key else None
        time_ms = message.time_ms if self.time == "message" else None
        attributes = self._beside(message) if message.headers else message.attributes
        return Draft(text, key, time_ms, attributes, None, message.position, raw)

    def _object(self, text: str, message: Message) -> Draft | None:
        """The draft of a JSON object; None where the value is something else and may be."""
        if text[:1] == "\0" and text[_REGISTRY_BYTES : _REGISTRY_BYTES + 1] == "{":
            text = message.value[_REGISTRY_BYTES:].decode("utf-8", "replace")
        if text.lstrip()[:1] != "{":
            if self.form == "json":
                raise BadLine("not a JSON object")
            return None
        try:
            tree = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            if self.form == "json":
                raise BadLine(f"not JSON: {str(error).split(': line ')[0]}") from None
            return None
        return self._mapped(tree, text.strip(), message)

    def _mapped(self, tree: dict[str, Any], text: str, message: Message) -> Draft:
        value = _taken(tree, self.value_field)
        key = _taken(tree, self.key_field)
        stated = _taken(tree, self.time_field)
        partition = tree.pop("partition", None)  # it says nothing about where the record is to lie here
        draft = object_draft(tree, text, message.position)
        if message.key and key is None and draft.key is not None:
            beside = key_field(tree, draft.key)
            draft = draft if beside is None else draft._replace(attributes={beside[0]: beside[1], **draft.attributes})
        if value is not None:
            draft = draft._replace(value=value if isinstance(value, str) else orjson.dumps(value).decode())
        if key is not None:
            draft = draft._replace(key=str(scalar(key)))
        if stated is not None:
            draft = draft._replace(time_ms=parse_time(stated))
        if partition is not None:
            draft = draft._replace(attributes={"partition": scalar(partition), **draft.attributes})
        return draft

    def _complete(self, draft: Draft, message: Message) -> Draft:
        """The draft with what the message says beside its value."""
        key, time_ms = draft.key, draft.time_ms
        if message.key and (self.key_field is None or key is None):
            key = key_text(message.key)
        if time_ms is None and self.time == "message":
            time_ms = message.time_ms
        return draft._replace(key=key, time_ms=time_ms, attributes={**draft.attributes, **self._beside(message)})

    def _beside(self, message: Message) -> dict[str, Scalar]:
        """The attributes that are not in the value."""
        found: dict[str, Scalar] = {}
        for name, value in message.headers:
            if value is not None and (self.headers is None or name in self.headers):
                found[f"header.{name}"] = value if isinstance(value, str) else decode(value, "utf-8")[0]
        found.update(message.attributes)
        return found


def key_text(key: bytes) -> str:
    """A key as text: itself where it is printable UTF-8, else in hexadecimal."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return key.hex()
    return text if text.isprintable() else key.hex()


def _taken(tree: dict[str, Any], path: str | None) -> Any:
    """What lies at a path, taken out of the tree; None where nothing does. A field with dots in its own name goes first."""
    if path is None:
        return None
    if path in tree:
        return tree.pop(path)
    head, dot, rest = path.partition(".")
    inner = tree.get(head)
    return _taken(inner, rest) if dot and isinstance(inner, dict) else None
