"""`http:NAME`: any server that takes JSON and answers JSON, by a template of the request and a path into the reply.

The template is JSON in which these texts, standing alone as a value, are replaced: `$texts` (the list), `$text` (one text: a
request for each), `$model` (NAME), `$kind` (query or passage) and `$dimension`. The path is names joined by dots, a number for
an element and `[]` for every element of a list: `data[].embedding`, `embeddings.float`, `result.0.values`; empty for the whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from headwater.embed.embedder import Kind
from headwater.embed.remote import RemoteEmbedder, Request
from headwater.errors import ConfigError

REQUEST = '{"model": "$model", "input": "$texts"}'
REPLY = "data[].embedding"
KEY_HEADER = "Authorization: Bearer $key"


class HttpEmbedder(RemoteEmbedder):
    """The request goes to `base_url` as it is. ConfigError for a template, path or header that cannot work."""

    provider = "http"
    example_url = "https://HOST/PATH"

    def __init__(
        self, model: str, *, request: str = REQUEST, reply: str = REPLY, key_header: str = KEY_HEADER, **options: Any
    ) -> None:
        self._template, self._steps = _template(request), _steps(reply)
        self.one_by_one = "$texts" not in _words(self._template)
        self._shape = (request, reply)
        self._header = _header(key_header)
        super().__init__(model, **options)

    def _mark(self, *more: str) -> str:
        return super()._mark(*self._shape, *more)

    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        values = {"$texts": list(texts), "$text": texts[0], "$model": self.model, "$kind": kind}
        return Request("", _filled(self._template, values | {"$dimension": self.asked_dimension}))

    def vectors(self, answer: Any, count: int) -> Sequence[Any]:
        found = _at(answer, self._steps)
        if self.one_by_one:
            found = [found]
        if not isinstance(found, list):
            raise ValueError("what embedding.http_reply leads to is not a list")
        return found

    def authorization(self, key: str) -> Mapping[str, str]:
        name, value = self._header
        return {name: value.replace("$key", key)}


def _template(text: str) -> Any:
    try:
        template = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"embedding.http_request is not JSON: {error}") from None
    if not {"$texts", "$text"} & _words(template):
        raise ConfigError(f'embedding.http_request must hold "$texts" or "$text" as a value, as in {REQUEST}')
    return template


def _words(template: Any) -> set[str]:
    """Every text that stands as a value."""
    if isinstance(template, dict):
        return set().union(*map(_words, template.values()))
    if isinstance(template, list):
        return set().union(*map(_words, template))
    return {template} if isinstance(template, str) else set()


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, dict):
        return {name: _filled(value, values) for name, value in template.items()}
    if isinstance(template, list):
        return [_filled(value, values) for value in template]
    return values.get(template, template) if isinstance(template, str) else template


def _steps(path: str) -> list[str]:
    steps = re.findall(r"\[\]|[^.\[\]]+", path)
    if "".join(steps) != path.replace(".", ""):
        raise ConfigError(f"embedding.http_reply is not a path like {REPLY}: {path!r}")
    return steps


def _at(value: Any, steps: Sequence[str]) -> Any:
    """What lies at a path. ValueError where it leads nowhere."""
    for place, step in enumerate(steps):
        if step == "[]":
            if not isinstance(value, list):
                raise ValueError("what stands before [] in embedding.http_reply is not a list")
            return [_at(element, steps[place + 1 :]) for element in value]
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise ValueError(f"nothing at {step!r} of embedding.http_reply in it")
    return value


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name.strip()) or "$key" not in value or not value.isprintable():
        raise ConfigError(f"embedding.http_key_header must look like '{KEY_HEADER}' or 'x-api-key: $key'")
    return name.strip(), value.strip()
