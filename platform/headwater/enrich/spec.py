"""What a pipeline is made of: its steps as a tree, checked before anything runs.

A step is a mapping with one key that names its kind and says what it does, beside keys that every step has (`COMMON`).
`KINDS` and `COMMON` are the whole grammar: the reader, the JSON schema and the documentation are made of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from headwater.config import duration_s
from headwater.enrich.reading import Path, Source, plain, read
from headwater.errors import ConfigError, QueryError, UsageError
from headwater.query import Query, parse
from headwater.records import TOPIC_NAME

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
MOST_STEPS = 200
_LABELS = {"type": ["array", "object"], "description": "Names, {name: description}, or objects with examples."}
_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
_TEXTS = {"type": "array", "items": _TEXT}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_STEPS = {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1}

LEAVES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "classify": {
        "labels": _LABELS,
        "examples": {"type": ["array", "object"], "description": "{label: [texts]} or objects with text and label."},
        "method": {"enum": ["auto", "zero-shot", "examples", "neighbours", "llm", "cascade"]},
        "model": {**_TEXT, "description": "A chat model; cascade asks it where the best two labels are close."},
        "margin": {**_SHARE, "description": "How close the best two labels are, before the model is asked (0.2)."},
        "about": {**_TEXT, "description": "What a model is told of the task."},
    },
    "extract": {
        "schema": {"type": "object", "description": "A JSON schema of an object; its properties become fields."},
        "by": {"enum": ["regex", "llm", "both"]},
        "patterns": {"type": "object", "additionalProperties": _TEXT, "description": "{property: regular expression}."},
        "model": _TEXT,
        "about": _TEXT,
    },
    "summarize": {"model": _TEXT, "max_tokens": {"type": "integer", "minimum": 1}, "about": _TEXT},
    "score": {
        "like": {"type": ["string", "array"], "description": "Texts: the score is the likeness in meaning to the nearest."},
        "ask": {**_TEXT, "description": "What a chat model is to judge, from 0 to 1."},
        "model": _TEXT,
    },
    "route": {
        "to": {
            "type": "array",
            "minItems": 1,
            "description": "Where to: each with a topic, and `like` (texts, with min_score), `when` (a query) or `label`.",
            "items": {
                "type": "object",
                "properties": {
                    "topic": _TEXT,
                    "like": {"type": ["string", "array"]},
                    "min_score": _SHARE,
                    "when": _TEXT,
                    "label": {"type": ["string", "array"]},
                },
                "required": ["topic"],
                "additionalProperties": False,
            },
        },
        "most": {"type": "integer", "minimum": 1, "description": "Topics a record goes to at most, the likest first."},
        "otherwise": {**_TEXT, "description": "The topic for records that no route takes."},
        "of": {**_TEXT, "description": "The field that `label` compares (label)."},
    },
    "redact": {
        "kinds": {**_TEXTS, "description": "Names or families of redaction (secrets, personal)."},
        "patterns": {"type": "object", "additionalProperties": _TEXT, "description": "{name: regular expression} of your own."},
    },
    "http": {
        "url": _TEXT,
        "method": {"enum": ["POST", "GET"]},
        "headers": {
            "type": "object",
            "additionalProperties": _TEXT,
            "description": "Values may name ${PIPELINE_...} variables.",
        },
        "allow_private": {**_FLAG, "description": "Allow link-local addresses."},
    },
    "python": {
        "call": {**_TEXT, "description": "The name of an entry point of the group headwater.steps."},
        "with": {"type": "object", "description": "Arguments for it."},
    },
    "stop": {"when": {**_TEXT, "description": "Records that match get no further steps."}},
    "drop": {"when": {**_TEXT, "description": "Records that match are not written, nor given further steps."}},
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "extract": ("schema",), "route": ("to",), "http": ("url",), "python": ("call",), "stop": ("when",), "drop": ("when",),
}  # fmt: skip
AT_ONCE = {"python": 1}  # calls under way at once; 8 for the others. A function need not be made for several threads
FIELDS = {"classify": "label", "summarize": "summary", "score": "score", "route": "route", "http": "http", "python": "python"}
GROUPS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "parallel": {"steps": _STEPS},
    "fallback": {"steps": _STEPS},
    "ensemble": {
        "steps": _STEPS,
        "by": {"enum": ["vote", "mean", "weighted"]},
        "weights": {"type": "array", "items": _NUMBER},
    },
    "if": {"when": _TEXT, "then": _STEPS, "else": _STEPS},
}
COMMON: Mapping[str, Mapping[str, Any]] = {
    "name": {**_TEXT, "description": "What it is called in traces; its kind by default."},
    "field": {**_TEXT, "description": "The field its result becomes."},
    "when": {**_TEXT, "description": "Only for what matches this query; fields of earlier steps can be asked for."},
    "min_confidence": {**_SHARE, "description": "Below it there is no result."},
    "timeout": {"type": ["string", "number"], "description": "For one call (60s)."},
    "concurrency": {"type": "integer", "minimum": 1, "maximum": 64, "description": "Calls under way at once (8; python 1)."},
    "cache": {**_FLAG, "description": "Keep decisions, so that the same is never decided twice (true)."},
    "reads": {
        "enum": ["passage", "record"],
        "description": "What is judged: the passage, once for all its records, or each record.",
    },
    "on_error": {"enum": ["dead-letter", "skip"], "description": "What becomes of records a step fails on (dead-letter)."},
}
TOP: Mapping[str, Mapping[str, Any]] = {
    "name": _TEXT,
    "description": _TEXT,
    "topics": {"type": ["string", "array"], "description": "Topics it reads; all without it."},
    "output": {
        **_TEXT,
        "description": "The topic that every record is written to with its fields; without it only routes write.",
    },
    "since": {**_TEXT, "description": "all (the default), now, or a time: which records that are stored already it reads."},
    "embedding": {
        **_TEXT,
        "description": "The model that texts are compared by where a topic has no vectors; the configured one.",
    },
    "limits": {
        "type": "object",
        "properties": {"tokens": {"type": "integer", "minimum": 0}, "cost": {"type": "number", "minimum": 0}},
        "additionalProperties": False,
        "description": "What models may take since it was made; then it is held up.",
    },
    "steps": _STEPS,
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """One step. `config` is what stands below its kind; `number` tells steps of one name apart."""

    kind: str
    name: str
    config: Mapping[str, Any]
    field: str | None
    when: Query | None
    min_confidence: float
    timeout_s: float
    concurrency: int
    cache: bool
    reads: str
    on_error: str
    path: Path
    line: int | None = None

    def digest(self) -> str:
        """The same for steps that decide alike, whatever they are called and however their result is used."""
        return hashlib.blake2b(orjson.dumps([self.kind, self.config], option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Group:
    """Steps together: one after the other (`sequence`), beside each other (`parallel`), the first that succeeds (`fallback`),
    all for one result (`ensemble`), or one of two ways (`if`: the first sequence where `when` matches, else the second)."""

    kind: str
    steps: tuple[Leaf | Group, ...]
    when: Query | None = None
    by: str = "vote"
    weights: tuple[float, ...] = ()
    field: str | None = None
    name: str = ""
    min_confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole pipeline. `plain` is what it was written as, as JSON has it."""

    topics: tuple[str, ...] | None
    output: str | None
    since: str
    embedding: str | None
    tokens: int | None
    cost: float | None
    root: Group
    plain: Mapping[str, Any]

    def leaves(self) -> list[Leaf]:
        """Every step, in order."""
        return list(_leaves(self.root))

    def targets(self) -> tuple[str, ...]:
        """Every topic it may write to."""
        return tuple(dict.fromkeys(topic for _, topic in _targets(self)))

    def reads(self, topic: str) -> bool:
        """Whether it reads a topic: one of those named, or any that it does not write to."""
        return topic in self.topics if self.topics is not None else topic not in self.targets()


def spec_of(given: str | Mapping[str, Any], name: str = "the pipeline") -> Spec:
    """A pipeline from YAML, JSON or plain values. UsageError says what is wrong, in which line, and the nearest right name."""
    if isinstance(given, str):
        value, source = read(given, name)
    else:
        value, source = given, Source(name=name)
    value = plain(value)
    if not isinstance(value, Mapping):
        source.fail((), "a pipeline is a mapping with `steps`")
    reader = _Reader(source)
    return reader.top(value)


def schema() -> dict[str, Any]:
    """The JSON schema of a pipeline."""

    def step(kind: str, inner: Mapping[str, Any], groups: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"type": "object", "properties": inner, "additionalProperties": False}
        if needed := NEEDED.get(kind):
            body["required"] = list(needed)
        if kind in ("stop", "drop"):
            body = {"anyOf": [_TEXT, body]}
        common = {k: v for k, v in COMMON.items() if not groups or k in _of_group(kind)}
        own = (
            {"if": _TEXT, "then": _STEPS, "else": _STEPS}
            if kind == "if"
            else {kind: {"anyOf": [_STEPS, body]} if groups else body}
        )
        needs = ["if", "then"] if kind == "if" else [kind]
        return {"type": "object", "properties": {**own, **common}, "required": needs, "additionalProperties": False}

    steps = [step(kind, inner, False) for kind, inner in LEAVES.items()] + [step(k, inner, True) for k, inner in GROUPS.items()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headwater pipeline",
        "type": "object",
        "properties": dict(TOP),
        "required": ["steps"],
        "additionalProperties": False,
        "$defs": {"step": {"oneOf": steps}},
    }


def _of_group(kind: str) -> tuple[str, ...]:
    """What of COMMON a step made of steps has."""
    return ("name", "field", "min_confidence") if kind == "ensemble" else ("name",)


def _leaves(node: Leaf | Group) -> list[Leaf]:
    return [node] if isinstance(node, Leaf) else [leaf for step in node.steps for leaf in _leaves(step)]


class _Reader:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._names: dict[str, int] = {}

    def top(self, value: Mapping[str, Any]) -> Spec:
        self._known((), value, TOP)
        self._typed((), value, TOP)
        if "steps" not in value:
            self._source.fail((), "`steps` is missing")
        root = Group("sequence", self._steps(("steps",), value["steps"]))
        if len(list(_leaves(root))) > MOST_STEPS:
            self._source.fail(("steps",), f"at most {MOST_STEPS} steps")
        topics = value.get("topics")
        names = None if topics is None else tuple(topics.split(",") if isinstance(topics, str) else map(str, topics))
        names = None if names is None else tuple(n.strip() for n in names)
        output, limits = value.get("output"), value.get("limits") or {}
        spec = Spec(
            names, output, str(value.get("since") or "all"), value.get("embedding"), limits.get("tokens"), limits.get("cost"),
            root, value,
        )  # fmt: skip
        for name in names or ():
            self._topic(("topics",), name)
        for path, target in _targets(spec):
            self._topic(path, target)
            if target in (names or ()):
                self._source.fail(path, f"it would read {target!r}, which it writes to")
        return spec

    def _topic(self, path: Path, name: str) -> None:
        if not TOPIC_NAME.fullmatch(name):
            self._source.fail(path, f"{name[:60]!r} is no name of a topic")

    def _steps(self, path: Path, value: Any) -> tuple[Leaf | Group, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            self._source.fail(path, "steps are a list, with at least one")
        return tuple(self._step((*path, n), one) for n, one in enumerate(value))

    def _step(self, path: Path, value: Any) -> Leaf | Group:
        if isinstance(value, str) and value in LEAVES:
            value = {value: {}}
        if not isinstance(value, Mapping):
            self._source.fail(path, "a step is a mapping, such as `- classify: {labels: [a, b]}`")
        kinds = [name for name in value if name in LEAVES or name in GROUPS]
        if len(kinds) > 1:
            self._source.fail(path, f"a step is of one kind, not {kinds[0]} and {kinds[1]}; write two steps")
        if not kinds:
            strange = next((name for name in value if name not in COMMON), None)
            if strange is None:
                self._source.fail(path, f"it does not say what to do: one of {', '.join((*LEAVES, *GROUPS))}")
            self._source.unknown(path, strange, (*LEAVES, *GROUPS, *COMMON))
        kind = kinds[0]
        return self._group(path, kind, value) if kind in GROUPS else self._leaf(path, kind, value)

    def _leaf(self, path: Path, kind: str, value: Mapping[str, Any]) -> Leaf:
        config = value[kind]
        if kind in ("stop", "drop") and isinstance(config, str):
            config = {"when": config}
        config = {} if config is None else config
        if not isinstance(config, Mapping):
            self._source.fail((*path, kind), f"what {kind} does is a mapping of {', '.join(LEAVES[kind])}")
        common = {name: one for name, one in value.items() if name != kind}
        self._known(path, common, {kind: {}, **COMMON})
        self._known((*path, kind), config, LEAVES[kind])
        self._typed(path, common, COMMON)
        self._typed((*path, kind), config, LEAVES[kind])
        for name in NEEDED.get(kind, ()):
            if name not in config:
                self._source.fail((*path, kind), f"{kind} needs {name!r}")
        if (field := value.get("field", FIELDS.get(kind))) is not None and not _FIELD.fullmatch(field):
            self._source.fail((*path, "field"), f"{field[:40]!r} is no name of a field: letters, digits, _ and . only")
        when = self._query(path, value.get("when"), "when")
        if kind in ("stop", "drop"):
            when = self._query((*path, kind), config["when"], "when")
        for n, way in enumerate(config["to"] if kind == "route" else ()):
            self._query((*path, kind, "to", n), way.get("when"), "when")
        reads = value.get("reads") or ("record" if kind == "extract" and config.get("by") == "regex" else "passage")
        return Leaf(
            kind, self._named(str(value.get("name") or kind)), config, field, when,
            float(value.get("min_confidence") or 0.0), self._seconds(path, value.get("timeout", 60.0)),
            int(value.get("concurrency") or AT_ONCE.get(kind, 8)), bool(value.get("cache", True)), reads,
            value.get("on_error") or "dead-letter", path, self._source.line((*path, kind)),
        )  # fmt: skip

    def _group(self, path: Path, kind: str, value: Mapping[str, Any]) -> Group:
        common = {name: one for name, one in value.items() if name not in (kind, "then", "else")}
        known = {name: COMMON[name] for name in _of_group(kind)}
        self._known(path, common, {kind: {}, **({"then": {}, "else": {}} if kind == "if" else {}), **known})
        self._typed(path, common, known)
        name = self._named(str(value.get("name") or kind))
        if kind == "if":
            if "then" not in value:
                self._source.fail(path, "`if` needs `then`")
            ways = [Group("sequence", self._steps((*path, "then"), value["then"]))]
            if "else" in value:
                ways.append(Group("sequence", self._steps((*path, "else"), value["else"])))
            return Group("if", tuple(ways), when=self._query(path, value["if"], "if"), name=name)
        inner = value[kind]
        if not isinstance(inner, Mapping):
            inner = {"steps": inner}
        self._known((*path, kind), inner, GROUPS[kind])
        self._typed((*path, kind), inner, {k: v for k, v in GROUPS[kind].items() if k != "steps"})
        steps = self._steps((*path, kind, "steps") if isinstance(value[kind], Mapping) else (*path, kind), inner.get("steps"))
        by, weights = inner.get("by") or "vote", tuple(map(float, inner.get("weights") or ()))
        if kind == "ensemble":
            self._ensemble((*path, kind), steps, by, weights)
        if kind != "ensemble":
            return Group(kind, steps, name=name)
        field, sure = value.get("field") or _field_of(steps), float(value.get("min_confidence") or 0.0)
        return Group(kind, steps, by=by, weights=weights, field=field, name=name, min_confidence=sure)

    def _ensemble(self, path: Path, steps: Sequence[Leaf | Group], by: str, weights: Sequence[float]) -> None:
        if not all(isinstance(step, Leaf) and step.kind in ("classify", "score") for step in steps):
            self._source.fail(path, "an ensemble is made of classify steps, or of score steps")
        if len({step.kind for step in steps if isinstance(step, Leaf)}) > 1:
            self._source.fail(path, "an ensemble is made of classify steps, or of score steps, not of both")
        if by == "weighted" and (len(weights) != len(steps) or min(weights) < 0 or not sum(weights)):
            self._source.fail(path, f"`by: weighted` needs {len(steps)} weights, none below 0 and not all 0")

    def _named(self, name: str) -> str:
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}-{count}"

    def _known(self, path: Path, value: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        for name in value:
            if name not in known:
                self._source.unknown(path, name, known)

    def _typed(self, path: Path, value: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> None:
        import jsonschema

        for name, one in value.items():
            if name in known and name != "steps":
                wrong = next(iter(jsonschema.Draft202012Validator(known[name]).iter_errors(one)), None)
                if wrong is not None:
                    at = tuple(wrong.absolute_path)
                    if wrong.validator == "additionalProperties" and isinstance(wrong.instance, Mapping):
                        extra = next(n for n in wrong.instance if n not in wrong.schema["properties"])
                        self._source.unknown((*path, name, *at), extra, wrong.schema["properties"])
                    self._source.fail((*path, name, *at), wrong.message[:200])

    def _query(self, path: Path, text: Any, name: str) -> Query | None:
        if text is None:
            return None
        try:
            return parse(str(text), now_ms=0)
        except QueryError as error:
            self._source.fail((*path, name), str(error))

    def _seconds(self, path: Path, value: Any) -> float:
        try:
            seconds = duration_s(value) if isinstance(value, str) else float(value)
        except (ConfigError, UsageError) as error:
            self._source.fail((*path, "timeout"), str(error))
        if not 0 < seconds <= 3600:
            self._source.fail((*path, "timeout"), "a timeout is more than 0 and at most 1h")
        return seconds


def _targets(spec: Spec) -> Iterator[tuple[Path, str]]:
    """Every topic that a pipeline may write to, and where that is said."""
    if spec.output:
        yield ("output",), spec.output
    for leaf in spec.leaves():
        if leaf.kind == "route":
            path = (*leaf.path, "route")
            yield from (((*path, "to", n, "topic"), way["topic"]) for n, way in enumerate(leaf.config["to"]))
            if otherwise := leaf.config.get("otherwise"):
                yield (*path, "otherwise"), otherwise


def _field_of(steps: Sequence[Leaf | Group]) -> str | None:
    first = steps[0]
    return first.field if isinstance(first, Leaf) else None
