"""Mining log templates: from messages to the few texts they are instances of.

The method is Drain (He, Zhu, Zheng, Lyu, "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017) with
two changes. A message is masked first (ids, addresses, numbers, paths become `<*>`), and mining runs only on masked texts
never seen before. And a position of a group becomes a wildcard only after more than a few distinct values were seen
there: until then each value keeps a template of its own, so that `opened` and `closed` stay apart while user names merge.
When a position does become a wildcard, the templates it had are aliases of the merged one from then on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from headwater.lines import LineReader
from headwater.records import PassageKind

WILD = "<*>"
_MESSAGE_CHARS = 4000  # of a message that are mined
_MOST_TOKENS = 120
_SIMILARITY = 0.55  # share of a group's constant positions a message must have to join it
_WORDS_KEPT = 4  # distinct plain words of a position that keep templates of their own
_STATES_KEPT = 12  # the same for words in capitals, which name states
_MARKS_KEPT = 2  # the same for values that look like names or ids (dots, slashes, capitals inside)
_MOST_IN_LEAF = 120
_MOST_GROUPS = 50_000
_MOST_VARIANTS = 64  # templates of one group
_CACHED = 100_000

_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_HEX = re.compile(r"\b(?:0[xX][0-9a-fA-F]+|(?=[0-9a-fA-F]*[a-fA-F])(?=[a-fA-F]*\d)[0-9a-fA-F]{6,})\b")
_MASKS = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"\\0?42", '"'),  # a quote as some writers escape it
        (r"\b[a-z][a-z0-9+.-]*://[^\s,;\"'<>()\[\]]+", WILD),  # addresses of any scheme
        (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", WILD),
        (
            r"(?:(?<=[\s=:\"'(\[,<])|^)(?:/|\./|\.\./|[A-Za-z]:\\)(?:[\w.$@~+%*:?&=-]+[/\\])*[\w.$@~+%*:?&=-]*[\w/\\*]",
            WILD,
        ),  # paths
        (_UUID.pattern, WILD),
        (_HEX.pattern, WILD),
        (r"\.{3,}", " ... "),
        (r"\(\)", f"({WILD})"),  # nothing where sometimes something is
        (r"\[\]", f"[{WILD}]"),
        (r"(?<==)(?=\s|$)", WILD),
        (r"(?<=\buser )[\w.$-]+", WILD),
        (r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b(?=[ ,])|\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b(?= +\d)", WILD),
        (r"\b([A-Za-z]{2,}_)[-+]?\d[\w.$@-]*(?<![.-])", rf"\1{WILD}"),  # blk_123, attempt_1_0
        (r"[-+]?(?<![A-Za-z0-9_])[\w.$@-]*\d[\w.$@:,-]*(?<![.:,-])", WILD),  # any other word with a digit
    )
)
_RUN = re.compile(rf"(?:{re.escape(WILD)}[\s,;:./+-]*){{2,}}")
_TOKEN = re.compile(rf"{re.escape(WILD)}|[\w.$@/\\+-]+|[^\w\s]+|\s+")
_FOLD = str.maketrans("0123456789", "0000000000")


@dataclass(frozen=True, slots=True)
class Changes:
    """What mining changed since the last look: state rows to upsert by name, and the aliases made (old -> new template)."""

    rows: tuple[tuple[str, str], ...] = ()
    generalised: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class _Group:
    """Messages of one shape: `values[i]` are the distinct tokens seen at position i (None: a wildcard), and `variants` the
    tuples of tokens that occurred, each a template until its varying positions become wildcards."""

    name: str
    values: list[list[str] | None]
    variants: dict[tuple[str, ...], str]


class Miner:
    """Mines messages into templates. `state` are rows as `take_changes` gave them; the same messages in the same order
    give the same templates, with or without a save in between."""

    def __init__(self, state: Iterable[tuple[str, str]] = ()) -> None:
        self._leaves: dict[tuple[int, str], list[_Group]] = {}
        self._known: dict[str, str] = {}
        self._groups = 0
        self._dirty: dict[str, _Group] = {}
        self._generalised: list[tuple[str, str]] = []
        self._merged: dict[str, str] = {}
        for name, row in sorted(state, key=lambda r: int(r[0])):
            values, variants = orjson.loads(row)
            group = _Group(name, values, {tuple(v): _text(v, values) for v in variants})
            self._leaves.setdefault(_leaf(group.values), []).append(group)
            self._groups = max(self._groups, int(name) + 1)

    def mine(self, message: str) -> str:
        """The template of a message; empty for a blank one."""
        masked = mask(message[:_MESSAGE_CHARS])
        found = self._known.get(masked)
        if found is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            found = self._known[masked] = self._mine(masked)
        return self.survivor(found)

    def take_changes(self) -> Changes:
        rows = tuple((g.name, orjson.dumps([g.values, [list(v) for v in g.variants]]).decode()) for g in self._dirty.values())
        changes = Changes(rows, tuple(self._generalised))
        self._dirty, self._generalised = {}, []
        return changes

    def survivor(self, template: str) -> str:
        """What a template mined earlier is part of now."""
        while (merged := self._merged.get(template)) is not None:
            template = merged
        return template

    def _mine(self, masked: str) -> str:
        tokens = tuple(_TOKEN.findall(masked)[: 2 * _MOST_TOKENS])
        tokens = tuple(" " if t.isspace() else t for t in tokens)
        while tokens and tokens[-1] == " ":
            tokens = tokens[:-1]
        if not tokens:
            return ""
        group = self._find(tokens)
        if group is None:
            return self._new(tokens)
        variant = tuple(WILD if seen is None else t for seen, t in zip(group.values, tokens, strict=True))
        if variant in group.variants:
            return group.variants[variant]
        self._dirty[group.name] = group
        for i, (seen, token) in enumerate(zip(group.values, tokens, strict=True)):
            if seen is not None and token not in seen:
                seen.append(token)
                if len(seen) > _kept(seen):
                    group.values[i] = None
        group.variants[variant] = ""
        if len(group.variants) > _MOST_VARIANTS:
            widest = max(range(len(group.values)), key=lambda i: len(group.values[i] or ()))
            group.values[widest] = None
        return self._settle(group, tokens)

    def _settle(self, group: _Group, tokens: tuple[str, ...]) -> str:
        """Write the group's templates anew after its wildcards changed, and note what became of the old ones."""
        renewed: dict[tuple[str, ...], str] = {}
        for variant, text in group.variants.items():
            now = tuple(WILD if seen is None else t for seen, t in zip(group.values, variant, strict=True))
            merged = renewed.get(now) or _text(now, group.values)
            renewed[now] = merged
            if text and text != merged:
                self._merge(text, merged)
        group.variants = renewed
        return renewed[tuple(WILD if seen is None else t for seen, t in zip(group.values, tokens, strict=True))]

    def _merge(self, old: str, new: str) -> None:
        if old == new or self.survivor(new) == old:
            return
        self._merged[old] = new
        self._generalised.append((old, new))

    def _find(self, tokens: tuple[str, ...]) -> _Group | None:
        """The group of the leaf that shares most of its constants with the tokens, if it shares enough."""
        leaf = self._leaves.get(_leaf(tokens), [])
        best, best_share = None, 0.0
        for group in leaf:
            constant = same = 0
            for seen, token in zip(group.values, tokens, strict=True):
                if seen is None or token == " ":
                    continue
                weight = 2 if token[0].isalpha() or seen[0][0].isalpha() else 1
                constant += weight
                if token in seen:
                    same += weight
            share = same / constant if constant else 1.0
            if share > best_share:
                best, best_share = group, share
        if best_share >= _SIMILARITY or len(leaf) >= _MOST_IN_LEAF or self._groups >= _MOST_GROUPS:
            return best
        return None

    def _new(self, tokens: tuple[str, ...]) -> str:
        group = _Group(str(self._groups), [None if t == WILD else [t] for t in tokens], {})
        self._groups += 1
        group.variants[tokens] = _text(tokens, group.values)
        self._leaves.setdefault(_leaf(tokens), []).append(group)
        self._dirty[group.name] = group
        return group.variants[tokens]


class TemplateReader:
    """From a record's whole text to its template, with caches in front of all work."""

    def __init__(self, reader: LineReader, miner: Miner) -> None:
        self._reader, self._miner = reader, miner
        self._folded: dict[str, str] = {}

    def template(self, text: str) -> str:
        """The template of the text's message."""
        key = _fold(text)
        found = self._folded.get(key)
        if found is None:
            coarse = _fold(_HEX.sub("0", _UUID.sub("0", text)))
            found = self._folded.get(coarse)
            if found is None:
                found = self._miner.mine(self._reader.read(text).message)
            if len(self._folded) >= _CACHED:
                self._folded.clear()
            self._folded[key] = self._folded[coarse] = found
        return self._miner.survivor(found)


def mask(message: str) -> str:
    """A message with what varies by nature replaced by `<*>`."""
    for pattern, by in _MASKS:
        message = pattern.sub(by, message)
    return message


def _fold(text: str) -> str:
    """Digits as one sign, runs of them as one: the key under which lines that differ in numbers are equal."""
    folded = text.translate(_FOLD)
    return folded.replace("0000", "0").replace("000", "0").replace("00", "0").replace("00", "0")


def _leaf(tokens: Sequence[str | list[str] | None]) -> tuple[int, str]:
    first = tokens[0]
    if isinstance(first, list):
        first = first[0] if len(first) == 1 else None
    plain = isinstance(first, str) and first.isalpha()
    return len(tokens), str(first) if plain else ""


def _kept(seen: Sequence[str]) -> int:
    """How many distinct values a position may have and keep them."""
    if all(t.isupper() for t in seen):
        return _STATES_KEPT
    return _WORDS_KEPT if all(t.isalpha() and (t.islower() or t.istitle()) for t in seen) else _MARKS_KEPT


def _text(tokens: Sequence[str], values: Sequence[list[str] | None]) -> str:
    """Tokens as a template's text; neighbouring wildcards are one."""
    text = "".join(WILD if seen is None else t for seen, t in zip(values, tokens, strict=True))
    return _RUN.sub(lambda m: WILD + (" " if m[0][-1:].isspace() else ""), text).strip()


def embed_text(template: str) -> str:
    """What of a template is embedded: its words, identifiers split, wildcards gone."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_/.$:=|]+", " ", template.replace(WILD, " "))
    return " ".join(words.split()) or template


_STOP = frozenset(
    ["the", "a", "an", "is", "are", "was", "were", "i", "my", "you", "your", "we", "it", "to", "of", "in", "for", "and", "or", "not", "on", "with", "that", "this", "can", "do", "have", "be", "what", "how"]
)


def decide(values: Sequence[str]) -> PassageKind:
    """How a topic's records become passages, from the first of them: machine lines are templates, long texts chunks,
    anything else (prose, chat, names) is kept exact."""
    reader = LineReader(lambda: 4_102_444_800_000)
    texts = [v for v in values if v.strip()][:200]
    if not texts:
        return "exact"
    machine = sum(_is_machine_line(t, reader) for t in texts)
    if machine * 2 > len(texts):
        return "template"
    if sum(len(t) > 600 or (len(t) > 300 and t.count("\n") > 3) for t in texts) * 4 > len(texts):
        return "chunks"
    return "exact"


def _is_machine_line(text: str, reader: LineReader) -> bool:
    if len(text) > 4000 and text[:1] != "{":
        return False
    reading = reader.read(text)
    words = re.findall(r"[A-Za-z']+", reading.message.lower())
    prose = sum(w in _STOP for w in words) / len(words) if words else 0.0
    if reading.attributes and (reading.time_ms is not None or reading.level is not None):
        return True
    if reading.time_ms is not None and text.count("\n") < 30:
        return prose < 0.45
    if text.count("\n") > 2 or len(text) > 1500:
        return False
    signs = len(re.findall(r"[=\[\]{}<>/\\_#|]|\d", text)) / len(text)
    return signs > 0.08 and prose < 0.2
