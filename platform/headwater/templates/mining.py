"""Mining log templates: from messages to the few texts they are instances of.

The method is Drain (He, Zhu, Zheng, Lyu, "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017) with
two changes. A message is masked first (headwater.templates.masking), and mining runs only on masked texts never seen before.
And a position of a group becomes a wildcard only after more than a few distinct values were seen there: until then each
value keeps a template of its own, so that `opened` and `closed` stay apart while user names merge. When a position does
become a wildcard, the templates it had are aliases of the merged one from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from headwater.lines.reading import LineReader
from headwater.templates.deciding import decide
from headwater.templates.masking import WILD, condense, embed_text, fold, loose, mask, text_of, tokens_of

__all__ = ["Changes", "Miner", "TemplateReader", "decide", "embed_text", "pruned"]

_SIMILARITY = 0.55  # share of a group's constant positions a message must have to join it
_WORDS_KEPT = 8  # distinct plain words of a position that keep templates of their own
_STATES_KEPT = 12  # the same for words in capitals, which name states
_MARKS_KEPT = 2  # the same for values that look like names or ids (dots, slashes, capitals inside)
_MOST_IN_LEAF = 120
_MOST_GROUPS = 20_000
_MOST_VARIANTS = 64  # templates of one group
_CACHED = 100_000
_CACHED_BYTES = 24_000_000  # of keys, in each cache
_ALIAS = "alias "  # begins the name of a state row that holds an alias; the others are numbers of groups


@dataclass(frozen=True, slots=True)
class Changes:
    """What mining changed since the last look: state rows to upsert by name, and the aliases made (old -> new template)."""

    rows: tuple[tuple[str, str], ...] = ()
    generalised: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class _Group:
    """Messages of one shape: `values[i]` are the distinct tokens seen at position i (None: a wildcard), and `variants` the
    tuples of tokens that occurred, each with its template, until its varying positions become wildcards."""

    name: str
    word: str  # of its leaf
    values: list[list[str] | None]
    variants: dict[tuple[str, ...], str]


@dataclass(slots=True, eq=False)
class _Leaf:
    """Groups of messages with the same number of tokens and the same first word, oldest first. `version` counts changes."""

    word: str
    groups: list[_Group] = field(default_factory=list)
    version: int = 0


@dataclass(slots=True, eq=False)
class _Mined:
    """A masked text and what mining it gave while its leaf was at `version`."""

    tokens: tuple[str, ...]
    leaf: _Leaf
    version: int
    template: str


class _Cache(dict[bytes, _Mined]):
    """A dict that is emptied when it holds too many entries or too many bytes of keys."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def put(self, key: bytes, mined: _Mined) -> None:
        if len(self) >= _CACHED or self._bytes > _CACHED_BYTES:
            self.clear()
            self._bytes = 0
        self._bytes += len(key)
        self[key] = mined


class Miner:
    """Mines messages into templates. `state` are rows as `take_changes` gave them; the same messages in the same order
    give the same templates and aliases, with or without a save in between."""

    def __init__(self, state: Iterable[tuple[str, str]] = ()) -> None:
        self._leaves: dict[tuple[int, str], _Leaf] = {}
        self._merged: dict[str, str] = {}
        self._exact = _Cache()  # by folded message
        self._loose = _Cache()  # by folded message without hexadecimal ids
        self._groups = 0
        self._dirty: dict[str, _Group] = {}
        self._generalised: list[tuple[str, str]] = []
        groups: list[tuple[int, str]] = []
        for name, row in state:
            if name.startswith(_ALIAS):
                self._merged[name.removeprefix(_ALIAS)] = orjson.loads(row)
            else:
                groups.append((int(name), row))
        for number, row in sorted(groups):
            word, values, variants = orjson.loads(row)
            group = _Group(str(number), word, values, {tuple(v): text_of(v) for v in variants})
            self._leaf((len(values), word)).groups.append(group)
            self._groups = number + 1

    def mine(self, message: str) -> str:
        """The template of a message; empty for a blank one. Less than a microsecond for a shape seen before."""
        key = fold(message)
        mined = self._exact.get(key)
        if mined is None:
            mined = self._unseen(key)
        if mined.version != mined.leaf.version:
            mined.template = self._mine(mined.tokens, mined.leaf)
            mined.version = mined.leaf.version
        template = mined.template
        return self.survivor(template) if template in self._merged else template

    def take_changes(self) -> Changes:
        """The state and aliases that changed since the last call. A line of a known shape changes nothing."""
        rows = [(g.name, orjson.dumps([g.word, g.values, list(g.variants)]).decode()) for g in self._dirty.values()]
        rows += [(_ALIAS + old, orjson.dumps(new).decode()) for old, new in self._generalised]
        changes = Changes(tuple(rows), tuple(self._generalised))
        self._dirty, self._generalised = {}, []
        return changes

    def survivor(self, template: str) -> str:
        """What a template mined earlier is part of now."""
        while (merged := self._merged.get(template)) is not None:
            template = merged
        return template

    def _unseen(self, key: bytes) -> _Mined:
        short, has_ids = loose(key)
        mined = self._loose.get(short)
        if mined is None:
            tokens = tokens_of(mask(short.decode()))
            leaf = self._leaf(self._place(tokens))
            mined = _Mined(tokens, leaf, leaf.version - 1, "")
            self._loose.put(short, mined)
        if not has_ids:
            self._exact.put(key, mined)
        return mined

    def _leaf(self, place: tuple[int, str]) -> _Leaf:
        leaf = self._leaves.get(place)
        if leaf is None:
            leaf = self._leaves[place] = _Leaf(place[1])
        return leaf

    def _place(self, tokens: tuple[str, ...]) -> tuple[int, str]:
        """Of which leaf the tokens are: by number and first word, by number alone where that is no plain word or where
        there are too many groups already."""
        first = tokens[0] if tokens and tokens[0].isalpha() else ""
        marks = "".join([t for t in tokens if t != WILD and t != " " and not (t[0].isalnum() or t[0] in "_.$@/\\+-")])
        if self._groups >= _MOST_GROUPS and (len(tokens), first + marks) not in self._leaves:
            return len(tokens), ""
        return len(tokens), first + marks

    def _mine(self, tokens: tuple[str, ...], leaf: _Leaf) -> str:
        """The template of masked tokens; changes their leaf when they are new to it."""
        if not tokens:
            return ""
        group = self._find(tokens, leaf)
        if group is None:
            group = _Group(str(self._groups), leaf.word, [None if t == WILD else [t] for t in tokens], {})
            self._groups += 1
            leaf.groups.append(group)
        elif (known := group.variants.get(_variant(group, tokens))) is not None:
            return known
        leaf.version += 1
        self._dirty[group.name] = group
        for i, token in enumerate(tokens):
            seen = group.values[i]
            if seen is not None and token not in seen:
                seen.append(token)
                if token == WILD or len(seen) > _kept(seen):
                    group.values[i] = None
        group.variants[_variant(group, tokens)] = ""
        while len(group.variants) > _MOST_VARIANTS:
            self._widen(group)
        return self._settle(group, tokens)

    def _widen(self, group: _Group) -> None:
        """Make the position with most values a wildcard."""
        widest = max(range(len(group.values)), key=lambda i: len(group.values[i] or ()))
        group.values[widest] = None
        self._settle(group, None)

    def _settle(self, group: _Group, tokens: tuple[str, ...] | None) -> str:
        """Write the group's templates anew after its wildcards changed, note what became of the old ones, and return the
        template of `tokens`."""
        renewed: dict[tuple[str, ...], str] = {}
        for variant, text in group.variants.items():
            now = _variant(group, variant)
            merged = renewed.get(now) or text_of(now)
            renewed[now] = merged
            if text and text != merged:
                self._merge(text, merged)
        group.variants = renewed
        return renewed[_variant(group, tokens)] if tokens is not None else ""

    def _merge(self, old: str, new: str) -> None:
        """Make `old` an alias of what `new` is part of. A text that two groups share stays what it became first."""
        new = self.survivor(new)
        if old != new and old not in self._merged:
            self._merged[old] = new
            self._generalised.append((old, new))

    def _find(self, tokens: tuple[str, ...], leaf: _Leaf) -> _Group | None:
        """The group of the leaf that shares most of its constants with the tokens, if it shares enough or must do."""
        best, best_share = None, -1.0
        for group in leaf.groups:
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
        full = len(leaf.groups) >= _MOST_IN_LEAF or self._groups >= _MOST_GROUPS
        return best if best_share >= _SIMILARITY or full else None


def pruned(state: Iterable[tuple[str, str]], lives: Callable[[str], bool]) -> dict[str, str | None]:
    """What is to change in a miner's state (rows by name, None to delete) so that it holds no words but those of templates
    that live. Messages of a template that went are mined anew when they come again."""
    changes: dict[str, str | None] = {}
    aliases: dict[str, str] = {}
    for name, row in state:
        if name.startswith(_ALIAS):
            aliases[name.removeprefix(_ALIAS)] = orjson.loads(row)
            continue
        word, values, variants = orjson.loads(row)
        kept = [v for v in variants if lives(text_of(v))]
        seen = [None if old is None else [t for t in old if any(v[i] == t for v in kept)] for i, old in enumerate(values)]
        after = orjson.dumps([word, seen, kept]).decode() if kept else None
        if after != row:
            changes[name] = after
    for old, new in aliases.items():
        survivor = new
        while survivor in aliases:
            survivor = aliases[survivor]
        if not lives(old) or not lives(survivor):
            changes[_ALIAS + old] = None
        elif survivor != new:
            changes[_ALIAS + old] = orjson.dumps(survivor).decode()
    return changes


class TemplateReader:
    """From a record's whole text to its template; the layout of its header and the shape of its message are cached."""

    def __init__(self, reader: LineReader, miner: Miner) -> None:
        self._message, self._mine = reader.message, miner.mine

    def template(self, text: str) -> str:
        """The template of the text's message, of a message of many lines that of its first and of the exceptions it
        names; empty where it is blank."""
        return self.of_message(self._message(text))

    def of_message(self, message: str) -> str:
        """The same of a message whose header has been taken off."""
        return self._mine(condense(message) if "\n" in message else message)


def _variant(group: _Group, tokens: tuple[str, ...]) -> tuple[str, ...]:
    """The tokens with the group's wildcards in their places."""
    return tuple([WILD if seen is None else t for seen, t in zip(group.values, tokens, strict=True)])


def _kept(seen: Sequence[str]) -> int:
    """How many distinct values a position may have and keep them."""
    if all(t.isupper() for t in seen):
        return _STATES_KEPT
    plain = all(t.replace("-", "").isalpha() and (t.islower() or t.istitle()) for t in seen)
    return _WORDS_KEPT if plain else _MARKS_KEPT
