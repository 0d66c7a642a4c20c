"""What the fields of JSON objects and the columns of tables are called: the one vocabulary of everything that reads records
other programs wrote (files, brokers, databases, tables of a notebook).

A name counts as it is spelt here, in any case, in camelCase, with blanks or hyphens for underscores, with a remark in brackets
behind it (`Time (UTC)`), and behind the word for the thing itself: `Ticket Description` is `description`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

VALUE_FIELDS = (
    "value", "text", "message", "body", "msg", "content", "contents", "description", "full_text", "body_text", "text_body",
    "plain_text", "short_message", "comment", "review", "transcript", "utterance", "answer", "post", "tweet", "abstract",
    "desc", "raw", "_raw", "@m", "log", "line", "mensaje", "mensagem", "nachricht", "meldung", "messaggio", "descripción",
    "descripcion", "descrição", "descricao", "descrizione", "beschreibung", "kommentar", "commentaire", "comentario",
)  # fmt: skip
TITLE_FIELDS = (
    "title",
    "subject",
    "summary",
    "headline",
    "short_description",
    "question",
    "resumen",
    "asunto",
    "resumo",
    "assunto",
    "titre",
    "résumé",
    "betreff",
    "titel",
    "zusammenfassung",
    "título",
    "titulo",
    "titolo",
    "oggetto",
)
KEY_FIELDS = ("key", "id", "_id", "uuid", "guid")
TIME_FIELDS = (
    "timestamp", "time", "ts", "@timestamp", "time_stamp", "event_time", "created_at", "created", "datetime", "date_time",
    "timestamp_ms", "_time", "@t", "created_on", "created_date", "created_time", "creation_date", "creation_time",
    "create_time", "date_created", "time_created", "occurred_at", "logged_at", "sent_at", "sent", "received_at", "received",
    "posted_at", "posted", "published_at", "published", "submitted_at", "reported_at", "opened_at", "opened", "started_at",
    "start_time", "epoch", "unix_time", "unixtime", "hora", "heure", "zeit", "uhrzeit", "zeitstempel", "horodatage",
    "fecha_hora", "data_hora", "creado", "creada", "criado", "creato", "erstellt", "erstellt_am", "créé", "créé_le", "date",
    "fecha", "datum", "date_creation", "day", "updated_at", "updated", "last_modified",
)  # fmt: skip
_THINGS = (
    "ticket", "issue", "case", "incident", "message", "comment", "review", "post", "email", "mail", "chat", "note", "article",
    "document", "doc", "record", "event", "log", "entry",
)  # fmt: skip
_NO_KEYS = ("event", "log")  # what stands behind these is the number of a kind more often than of the thing

_REMARK = re.compile(r"\s*[(\[][^)\]]*[)\]]\s*$")
_APART = re.compile(r"[\s\-/]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ZONE = re.compile(r"_(?:utc|gmt)$")
_THING = re.compile(rf"(?:{'|'.join(_THINGS)})_")
_LATER = 1000  # the rank of a name behind the word for a thing
_Rank = tuple[int, int]
_ROLES: Mapping[str, _Rank] = {
    name: (role, rank)
    for role, names in enumerate((VALUE_FIELDS, TITLE_FIELDS, KEY_FIELDS, TIME_FIELDS))
    for rank, name in enumerate(names)
}


class Roles(NamedTuple):
    """The fields that may be the text, the line above it, the key and the time, each in the order to try them."""

    values: Sequence[str]
    titles: Sequence[str]
    keys: Sequence[str]
    times: Sequence[str]


def roles(names: Iterable[str]) -> Roles:
    """Which of some names may be what."""
    found: tuple[list[tuple[int, int, str]], ...] = ([], [], [], [])
    for at, name in enumerate(names):
        known = _ROLES.get(name)
        if known is None and (known := _ranked(name)) is None:
            continue
        role, rank = known
        found[role].append((rank, at, name))
    keys = found[2]
    if len(keys) > 1 and min(keys)[0] >= _LATER:
        keys.clear()  # the key of one thing and that of another: nothing says which is the record's own
    return Roles(*([name for _, _, name in sorted(listed)] for listed in found))


def folded(name: str) -> str:
    """A name as the lists above write it: `Created At` and `createdAt` are `created_at`."""
    plain = _REMARK.sub("", name.strip())
    apart = plain if plain.islower() or plain.isupper() else _HUMP.sub("_", plain)
    return _ZONE.sub("", re.sub(r"_{2,}", "_", _APART.sub("_", apart.strip()).lower()))


@functools.lru_cache(maxsize=4096)  # the same fields come in every record
def _ranked(name: str) -> _Rank | None:
    """The role and rank of a name that is not in the lists as it is."""
    if len(name) > 60:
        return None
    plain = folded(name)
    if (known := _ROLES.get(plain)) is not None or (known := _ROLES.get(plain.replace("_", ""))) is not None:
        return known
    thing = _THING.match(plain)
    if thing is None or (known := _ROLES.get(plain[thing.end() :])) is None:
        return None
    role, rank = known
    if role == 2 and thing[0][:-1] in _NO_KEYS:
        return None
    return role, rank + _LATER
