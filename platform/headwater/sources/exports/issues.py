"""Issues of GitHub (REST pages), Jira (CSV, REST JSON) and Zendesk (CSV, JSON) -> a record an issue, another a comment.

They change: an issue that was updated since comes as a new record, which takes the place of the one before.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import IO, Any
from urllib.parse import urlsplit

import orjson

from headwater.records import Draft, Scalar
from headwater.records.moments import parse_time
from headwater.sources import Fault
from headwater.sources.exports import Item, attributes, json_items, place, text_of
from headwater.sources.fields import BadLine
from headwater.sources.lines import LONGEST_LINE_BYTES

_REPOSITORY = re.compile(r"/([^/]+/[^/]+)/(?:issues|pull|pulls)/(\d+)")
_JIRA_NAMES = {  # of columns, as Jira names them in other languages
    "Issue key": "clave de incidencia, vorgangsschlüssel, schlüssel, clé de ticket, clé de demande, chave da item, "
    "chave do item, chave, chiave segnalazione, issue-sleutel",
    "Issue Type": "tipo de incidencia, vorgangstyp, type de ticket, type de demande, tipo de item, tipo segnalazione",
    "Summary": "resumen, zusammenfassung, résumé, resumo, riepilogo, samenvatting",
    "Description": "descripción, beschreibung, descrição, descrizione, omschrijving, beschrijving",
    "Status": "estado, état, stato",
    "Priority": "prioridad, priorität, priorité, prioridade, priorità, prioriteit",
    "Resolution": "resolución, lösung, résolution, resolução, risoluzione, oplossing",
    "Assignee": "persona asignada, responsable, zugewiesene person, bearbeiter, personne assignée, responsável, assegnatario",
    "Reporter": "informador, autor, rapporteur, relator, segnalatore, melder",
    "Created": "creada, creado, erstellt, création, créée, créé, criado, creato, aangemaakt",
    "Updated": "actualizada, actualizado, aktualisiert, mise à jour, mis à jour, atualizado, aggiornato, bijgewerkt",
    "Resolved": "resuelta, erledigt, résolue, résolu, resolvido, risolto, opgelost",
    "Labels": "etiquetas, stichwörter, étiquettes, categorias, etichette",
    "Comment": "comentario, comentar, kommentar, commentaire, comentário, commento, opmerking",
    "Project key": "clave del proyecto, projektschlüssel, clé du projet, clé de projet, chave do projeto",
}
_JIRA_COLUMNS = {name: known for known, names in _JIRA_NAMES.items() for name in names.split(", ")}


def _item(
    stream: str,
    value: str,
    key: str,
    created: object,
    updated: object,
    found: Mapping[str, Scalar],
    fault: str = "",
    at: int = 0,
) -> Item:
    """The record of one version of something that may change."""
    time_ms = parse_time(created)
    version = orjson.dumps([value, dict(found)], option=orjson.OPT_SORT_KEYS).decode()
    position = place(parse_time(updated) or time_ms, f"{key}\n{version}")
    return Item(stream, Draft(value, key, time_ms, found, position=position), replaces=True)


def _each(text: str, *under: str) -> Iterator[tuple[dict[str, Any] | Fault, int]]:
    """Each object of the pages; a fault for what is none, and where the text breaks off."""
    try:
        for value, at in json_items(text, under=under):
            for part in value if isinstance(value, list) else [value]:  # `gh api --slurp` makes a list of its pages
                if isinstance(part, dict):
                    yield part, at
                else:
                    yield Fault(at, "no JSON object", str(part)[:2000]), at
    except BadLine as error:
        yield Fault(len(text), str(error)), len(text)


def _titled(title: str, body: str) -> str:
    return f"{title}\n\n{body}".replace("\r\n", "\n").strip()


# ---------------------------------------------------------------------- GitHub


def is_github(first: str) -> bool:
    link = re.search(r'"(?:html_)?url"\s*:\s*"[^"\s]*/(?:issues|pull)/\d', first)
    return link is not None and re.search(r'"(?:user|author)"\s*:\s*(?:\{|null)', first) is not None


def github(text: str) -> Iterator[Item]:
    """Issues, pull requests and their comments, told apart by their fields; those that `gh issue list --json` writes too."""
    for found, at in _each(text, "items"):
        if isinstance(found, Fault):
            yield Item("", found)
            continue
        link = _REPOSITORY.search(_github_url(found))
        if link is None:
            yield Item("", Fault(at, "neither an issue nor a comment: no html_url of one", orjson.dumps(found).decode()[:2000]))
            continue
        repository, number = link.groups()
        if "title" not in found:
            yield _github_comment(found, repository, int(number), at)
            continue
        thread, url = f"{repository}#{number}", _github_url(found)
        is_pull = "pull_request" in found or "merged_at" in found or "/pull/" in url
        held = found.get("comments")
        more = attributes(
            repository=repository, number=int(number), author=_login(found), url=url, kind="pull" if is_pull else "issue",
            thread=thread, state=text_of(found, "state").lower(), labels=_names(found.get("labels"), "name"),
            assignees=_names(found.get("assignees"), "login"), milestone=text_of(found, "milestone", "title"),
            closed=text_of(found, "closed_at") or text_of(found, "closedAt"),
            comments=len(held) if isinstance(held, list) else held,
        )  # fmt: skip
        value = _titled(text_of(found, "title"), text_of(found, "body").replace("\r\n", "\n"))
        yield _item(repository, value, thread, *_github_times(found), more)
        for comment in held if isinstance(held, list) else ():
            if isinstance(comment, dict):
                yield _github_comment(comment, repository, int(number), at)


def _github_comment(found: Mapping[str, Any], repository: str, number: int, at: int) -> Item:
    thread = f"{repository}#{number}"
    more = attributes(
        repository=repository, number=number, author=_login(found), url=_github_url(found), kind="comment", thread=thread,
        path=text_of(found, "path"),
    )  # fmt: skip
    body = text_of(found, "body").replace("\r\n", "\n")
    return _item(repository, body, f"{thread}/{found.get('id', at)}", *_github_times(found), more)


def _github_url(found: Mapping[str, Any]) -> str:
    return text_of(found, "html_url") or text_of(found, "url")


def _login(found: Mapping[str, Any]) -> str:
    return text_of(found, "user", "login") or text_of(found, "author", "login")


def _github_times(found: Mapping[str, Any]) -> tuple[Any, Any]:
    """When it was made (of a review: submitted) and last changed."""
    created = next(
        (found[name] for name in ("created_at", "createdAt", "submitted_at", "submittedAt") if found.get(name)), None
    )
    return created, found.get("updated_at") or found.get("updatedAt")


def _names(listed: object, field: str) -> list[str]:
    if not isinstance(listed, list):
        return []
    return [part if isinstance(part, str) else text_of(part, field) for part in listed if isinstance(part, str | dict)]


# ---------------------------------------------------------------------- Jira


def is_jira(first: str) -> bool:
    head = first.lstrip("\ufeff").split("\n", 1)[0]
    columns = {_column(name.strip('" \r')) for name in head.split(_delimiter(head))}
    as_table = {"Issue key", "Summary"} <= columns
    return as_table or ('"fields"' in first and '"summary"' in first and '"key"' in first and first.lstrip()[:1] in "[{")


def _delimiter(head: str) -> str:
    """What stands between the columns of a table that begins with that line."""
    return max(",;\t", key=head.count)


def _column(name: str) -> str:
    """A column's name as Jira writes it in English."""
    return _JIRA_COLUMNS.get(name.lower(), name)


def jira_table(file: IO[str]) -> Iterator[Item]:
    """Rows of a CSV export; columns of one name (Comment, Labels) belong together."""
    return _table(file, _jira_row, _column)


def _table(
    file: IO[str], read: Callable[[Mapping[str, Sequence[str]], int], Iterator[Item]], named: Callable[[str], str] = str
) -> Iterator[Item]:
    """What `read(cells, line)` makes of each row, whose cells are listed by the names of their columns, blank ones left out."""
    csv.field_size_limit(LONGEST_LINE_BYTES)  # one for the process
    head = file.readline()
    rows = csv.reader(chain([head], file), delimiter=_delimiter(head))
    try:
        header = [named(name.strip().lstrip("\ufeff")) for name in next(rows, [])]
        for row in rows:
            if not any(row):
                continue
            if len(row) > len(header):
                said = f"{len(row)} cells, but the header has {len(header)}"
                yield Item("", Fault(rows.line_num, said, ",".join(row)[:2000]))
                continue
            cells: dict[str, list[str]] = {}
            for name, cell in zip(header, row, strict=False):
                if cell.strip():
                    cells.setdefault(name, []).append(cell.strip())
            yield from read(cells, rows.line_num)
    except csv.Error as error:
        yield Item("", Fault(rows.line_num, f"not a table from line {rows.line_num} on: {error}"))


def _first(cells: Mapping[str, Sequence[str]], *names: str) -> str:
    return next((cells[name][0] for name in names if name in cells), "")


def _jira_row(cells: Mapping[str, Sequence[str]], line: int) -> Iterator[Item]:
    first = partial(_first, cells)
    key = first("Issue key", "Key")
    if not key:
        yield Item("", Fault(line, "a row without an issue key", str(dict(cells))[:2000]))
        return
    known = attributes(
        kind=first("Issue Type").lower(), thread=key, state=first("Status"), priority=first("Priority"),
        author=first("Reporter", "Creator"), assignee=first("Assignee"), labels=list(cells.get("Labels", ())),
        components=list(cells.get("Component/s", cells.get("Components", ()))), project=first("Project key", "Project name"),
        resolution=first("Resolution"), parent=first("Parent key", "Parent id", "Parent"), closed=first("Resolved"),
    )  # fmt: skip
    project = key.rpartition("-")[0]
    value = _titled(first("Summary"), first("Description"))
    yield _item(project, value, key, first("Created"), first("Updated"), known)
    for n, comment in enumerate(cells.get("Comment", ()), 1):
        date, author, text = _comment(comment)
        yield _item(project, text, f"{key}/{n}", date, date, attributes(kind="comment", thread=key, author=author))


def _comment(cell: str) -> tuple[str, str, str]:
    """`(date, author, text)` of a comment's cell, which is written `date;author;text`."""
    parts = cell.split(";", 2)
    if len(parts) == 3 and parse_time(parts[0]) is not None:
        return parts[0], parts[1], parts[2]
    return "", "", cell


def jira(text: str) -> Iterator[Item]:
    """Issues of the REST interface, with the comments they carry. Rich text is read as plain."""
    for found, at in _each(text, "issues"):
        fields = found.get("fields") if isinstance(found, dict) else None
        if isinstance(found, Fault) or not isinstance(fields, dict) or not text_of(found, "key"):
            yield Item("", found if isinstance(found, Fault) else Fault(at, "no issue: no key or fields", str(found)[:2000]))
            continue
        key = text_of(found, "key")
        project = key.rpartition("-")[0]
        known = attributes(
            kind=text_of(fields, "issuetype", "name").lower(), thread=key, state=text_of(fields, "status", "name"),
            priority=text_of(fields, "priority", "name"), author=_person(fields.get("reporter") or fields.get("creator")),
            assignee=_person(fields.get("assignee")), labels=fields.get("labels"), project=text_of(fields, "project", "key"),
            components=_names(fields.get("components"), "name"), resolution=text_of(fields, "resolution", "name"),
            parent=text_of(fields, "parent", "key"), closed=text_of(fields, "resolutiondate"), url=text_of(found, "self"),
        )  # fmt: skip
        value = _titled(text_of(fields, "summary"), _rich(fields.get("description")))
        yield _item(project, value, key, fields.get("created"), fields.get("updated"), known)
        held = fields.get("comment")
        for comment in held.get("comments") or () if isinstance(held, dict) else ():
            if isinstance(comment, dict):
                about = attributes(kind="comment", thread=key, author=_person(comment.get("author")))
                name = f"{key}/{text_of(comment, 'id')}"
                yield _item(project, _rich(comment.get("body")), name, comment.get("created"), comment.get("updated"), about)


def _person(value: object) -> str:
    return (text_of(value, "displayName") or text_of(value, "name")) if isinstance(value, dict) else ""


def _rich(value: object) -> str:
    """The text of a description: plain, or the leaves of Atlassian's document format, block by block."""
    if isinstance(value, str):
        return value.replace("\r\n", "\n")
    parts: list[str] = []
    stack: list[object] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            parts.append(node)
        elif isinstance(node, list):
            stack.extend(reversed(node))
        elif isinstance(node, dict):
            if node.get("type") in ("text", "mention", "emoji"):
                parts.append(text_of(node, "text") or text_of(node, "attrs", "text"))
                continue
            if node.get("type") in ("paragraph", "heading", "codeBlock", "listItem", "tableRow", "hardBreak", "blockquote"):
                stack.append("\n")
            stack.append(node.get("content") or [])
    return re.sub(r"\n{2,}", "\n", "".join(parts)).strip()


# ---------------------------------------------------------------------- Zendesk


def is_zendesk(first: str) -> bool:
    if first[:1] not in ("[", "{"):
        line = first.split("\n", 1)[0]
        head = {name.strip('" \r').casefold() for name in line.split(_delimiter(line))}
        return {"id", "subject", "requester", "status"} <= head and not head.isdisjoint({"created at", "requested"})
    return '"requester_id"' in first and '"subject"' in first and ('"submitter_id"' in first or '"raw_subject"' in first)


def zendesk(text: str) -> Iterator[Item]:
    """Tickets, with the comments they carry."""
    for found, at in _each(text, "tickets", "results"):
        if isinstance(found, dict) and isinstance(found.get("ticket"), dict):  # asked for by its id
            found = found["ticket"]
        if isinstance(found, Fault) or not text_of(found, "id"):
            yield Item("", found if isinstance(found, Fault) else Fault(at, "no ticket: it has no id", str(found)[:2000]))
            continue
        id = text_of(found, "id")
        host = urlsplit(text_of(found, "url")).netloc
        known = attributes(
            kind=text_of(found, "type") or "ticket", thread=id, state=text_of(found, "status"),
            priority=text_of(found, "priority"), author=_party(found, "requester"), assignee=_party(found, "assignee"),
            labels=found.get("tags"), channel=text_of(found, "via", "channel"), organization=_party(found, "organization"),
        )  # fmt: skip
        value = _titled(text_of(found, "subject") or text_of(found, "raw_subject"), text_of(found, "description"))
        yield _item(host, value, id, found.get("created_at"), found.get("updated_at"), known)
        for comment in found.get("comments") or ():
            if isinstance(comment, dict) and text_of(comment, "body").strip() != text_of(found, "description").strip():
                about = attributes(
                    kind="comment", thread=id, author=text_of(comment, "author_id"), public=comment.get("public")
                )
                name = f"{id}/{text_of(comment, 'id')}"
                body = text_of(comment, "plain_body") or text_of(comment, "body")
                yield _item(host, body, name, comment.get("created_at"), None, about)


def zendesk_table(file: IO[str]) -> Iterator[Item]:
    """Rows of a CSV export, of the account or of a view; it has no comments."""
    return _table(file, _zendesk_row)


def _zendesk_row(named: Mapping[str, Sequence[str]], line: int) -> Iterator[Item]:
    cells = {name.casefold(): listed for name, listed in named.items()}
    first = partial(_first, cells)
    id = first("id").lstrip("#")
    if not id:
        yield Item("", Fault(line, "a row without the id of a ticket", str(dict(cells))[:2000]))
        return
    known = attributes(
        kind=first("ticket type", "type").lower() or "ticket", thread=id, state=first("status"), priority=first("priority"),
        author=first("requester"), assignee=first("assignee"), labels=first("tags").split(), channel=first("via"),
        group=first("group"), organization=first("organization"), closed=first("solved at", "solved"),
    )  # fmt: skip
    created, updated = first("created at", "requested"), first("updated at", "updated")
    yield _item("", _titled(first("subject"), first("description")), id, created, updated, known)


def _party(ticket: Mapping[str, Any], name: str) -> str:
    held = ticket.get(name)
    return text_of(held, "name") or text_of(held, "email") if isinstance(held, dict) else text_of(ticket, f"{name}_id")
