"""`rehearsal`: a deterministic stand-in for tests. It repeats and fills in, it knows nothing: do not serve answers with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from headwater.embed.fault import Fault
from headwater.errors import ConfigError
from headwater.llm.provider import Prompt, Provider, Reply
from headwater.records.models import Finish

_PIECE = re.compile(r"\s*\S+|\s+")
_WORD = re.compile(r"\w+")
OPENING = "(rehearsal, no model) "


class Rehearsal(Provider):
    """FOR TESTS ONLY. Without a script it repeats what the user said last; where a schema is asked for, it fills that in:
    of an enumeration the value that shares most words with the prompt. One token is one word. Same prompt, same answer.

    `rehearsal:FILE` reads a script: a JSON list of `{"if": REGEX, "say": TEXT}`; the first whose pattern is found in what the
    user said last answers. Instead of `say`: `"fault": STATUS`, or `"cut": TEXT`, a stream that breaks behind that text;
    `"pause_s"` waits before every piece."""

    free = True
    version = "1"
    context_tokens = 8192

    def __init__(self, name: str = "rehearsal") -> None:
        self.name = name
        path = name.partition(":")[2]
        self._script = _read(Path(path).expanduser()) if path else []

    async def complete(self, prompt: Prompt) -> Reply:
        async for part in self.stream(prompt):
            if isinstance(part, Reply):
                return part
        raise Fault("the rehearsal was cut", passes=True)

    async def stream(self, prompt: Prompt) -> AsyncIterator[str | Reply]:
        line = self._line(prompt)
        if "fault" in line:
            raise Fault("the rehearsal fails here", passes=line["fault"] >= 429, status=line["fault"])
        text = line.get("say", line.get("cut", ""))
        pieces = _PIECE.findall(text)
        finish: Finish = "length" if len(pieces) > prompt.max_tokens else "stop"
        pieces = pieces[: prompt.max_tokens]
        for piece in pieces:
            await asyncio.sleep(line.get("pause_s", 0.0))
            yield piece
        if "cut" in line:
            raise Fault("the rehearsal was cut", passes=True)
        words = sum(len(m.text.split()) for m in prompt.messages)
        yield Reply("".join(pieces), words, len(pieces), finish)

    async def check(self) -> None:
        return

    def _line(self, prompt: Prompt) -> Mapping[str, Any]:
        said = next((m.text for m in reversed(prompt.messages) if m.role == "user"), "")
        for line in self._script:
            if re.search(line.get("if", ""), said, re.IGNORECASE | re.DOTALL):
                return line
        if prompt.schema is not None:
            words = frozenset(_WORD.findall(said.casefold()))
            return {"say": orjson.dumps(_filled(prompt.schema, words, prompt.schema, said)).decode()}
        return {"say": OPENING + said}


def _read(path: Path) -> list[Mapping[str, Any]]:
    try:
        script = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"rehearsal:{path} cannot be read: {error}") from error
    if not isinstance(script, list) or not all(isinstance(line, dict) for line in script):
        raise ConfigError(f"rehearsal:{path} must be a JSON list of objects")
    return script


def _filled(schema: Mapping[str, Any], words: frozenset[str], root: Mapping[str, Any], said: str) -> Any:
    """A value that follows a (simple) schema."""
    if "$ref" in schema:
        place: Any = root
        for step in str(schema["$ref"]).lstrip("#/").split("/"):
            place = place[step]
        return _filled(place, words, root, said)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return max(schema["enum"], key=lambda v: len(words & set(_WORD.findall(str(v).casefold()))))
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return _filled(schema[choice][0], words, root, said)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _filled(part, words, root, said) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [_filled(schema.get("items", {"type": "string"}), words, root, said)] * max(1, schema.get("minItems", 0))
    if kind in ("number", "integer"):
        return schema.get("minimum", 0)
    return {"boolean": False, "null": None}.get(kind, " ".join(said.split()[:8])[: schema.get("maxLength", 100)])
