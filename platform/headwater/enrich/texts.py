"""Texts and topics labelled, and values taken out of texts, for whoever asks: the verbs classify and extract."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import numpy as np

from headwater.config import Settings, TopicConfig
from headwater.enrich.extraction import Extractor, Form
from headwater.enrich.labelling import Embed, Labeller
from headwater.enrich.labels import Task, task
from headwater.enrich.purse import Purse
from headwater.enrich.scores import Floats
from headwater.errors import HeadwaterError, UsageError
from headwater.passages import embedding_text
from headwater.records import address
from headwater.records.labels import Classified, ClassifyReply, Extracted, ExtractReply, LabelCount
from headwater.search.planning import plan
from headwater.search.searching import is_narrow

if TYPE_CHECKING:
    from headwater.embed import Embedder
    from headwater.index.topic import TopicIndex
    from headwater.keyword.index import KeywordIndex
    from headwater.llm.chat import Chat
    from headwater.llm.models import Models
    from headwater.log.store import Log
    from headwater.stock import Stock

MOST_TEXTS = 10_000
MOST_CHARS = 20_000_000  # of all texts of a call
MOST_PASSAGES = 200_000
_HELD = 32  # tasks whose heads are kept ready
_BLOCK = 5_000
_NOT_EMBEDDED = ("none", "external")


class Texts:
    """Labels and values over an engine's texts and topics."""

    def __init__(self, log: Log, keyword: KeywordIndex, stock: Stock, models: Models, settings: Settings) -> None:
        self._log, self._keyword, self._stock, self._models, self._settings = log, keyword, stock, models, settings
        self._held: OrderedDict[str, Labeller] = OrderedDict()

    # ------------------------------------------------------------------ labels

    async def classify(
        self, texts: Sequence[str] | None = None, *, labels: Any = None, examples: Any = None,
        topics: Sequence[str] | None = None, q: str = "", since: Any = None, until: Any = None, method: str = "auto",
        model: str | None = None, margin: float = 0.2, min_confidence: float = 0.0, about: str = "", limit: int = 20_000,
    ) -> ClassifyReply:  # fmt: skip
        """As Verbs.classify."""
        wanted = task(labels, examples, method=method, margin=margin, min_confidence=min_confidence, about=about)
        if (texts is None) == (topics is None):
            raise UsageError("say what to label: texts, or topics")
        chat = self.chat(model, needed=wanted.method in ("llm", "cascade"))
        if texts is not None:
            return await self._texts(checked(texts), wanted, chat)
        if not 1 <= limit <= MOST_PASSAGES:
            raise UsageError(f"limit must be between 1 and {MOST_PASSAGES:,}")
        return await self._topics(topics or (), wanted, chat, (q, since, until), limit)

    async def _texts(self, texts: Sequence[str], wanted: Task, chat: Chat | None) -> ClassifyReply:
        embedder = self.embedder() if wanted.method != "llm" else None
        labeller = self.labeller(wanted, embedder, chat)
        purse = labeller.purse
        before, calls = purse.spent, purse.calls  # the labeller is shared by calls of one task
        found = [_settled(one) for one in await labeller.label(texts)]
        counts = Counter(one.label for one in found)
        listed = tuple(LabelCount(name, n, n) for name, n in counts.most_common())
        return ClassifyReply(
            tuple(found), listed, labeller.method, None if embedder is None else embedder.name, len(texts), len(texts),
            None if chat is None else chat.name, purse.calls - calls, purse.spent - before,
        )  # fmt: skip

    async def _topics(
        self, names: Sequence[str], wanted: Task, chat: Chat | None, scope: tuple[str, Any, Any], limit: int
    ) -> ClassifyReply:
        """Every passage in scope is judged once; its records inherit."""
        purse, notes = Purse(), list[str]()
        records: Counter[str | None] = Counter()
        passages: Counter[str | None] = Counter()
        firsts: dict[str | None, tuple[TopicIndex, int]] = {}
        method, models = "", list[str]()
        for topic in self._stock.choose(list(names)):
            counts, cut = await anyio.to_thread.run_sync(self._in_scope, topic, scope, limit)
            if cut:
                notes.append(f"{topic.row.name}: only the {len(counts):,} most frequent passages were labelled; raise `limit`")
            embedder = _model_of(topic) if wanted.method != "llm" else None
            if embedder is None and wanted.method != "llm":
                embedder = self.embedder()
            labeller = Labeller(wanted, None if embedder is None else embed_by(embedder), chat, purse)
            method = labeller.method
            models += [] if embedder is None else [embedder.name]
            for ids in _blocks(list(counts)):
                for id, one in zip(ids, await self.of_passages(labeller, topic, ids, embedder), strict=True):
                    settled = _settled(one)
                    records[settled.label] += counts[id]
                    passages[settled.label] += 1
                    firsts.setdefault(settled.label, (topic, id))
        listed = await anyio.to_thread.run_sync(self._listed, records, passages, firsts)
        return ClassifyReply(
            (), listed, method, ", ".join(dict.fromkeys(models)) or None, records.total(), passages.total(),
            None if chat is None else chat.name, purse.calls, purse.spent, tuple(notes),
        )  # fmt: skip

    async def of_passages(
        self, labeller: Labeller, topic: TopicIndex, ids: Sequence[int], embedder: Embedder | None
    ) -> list[Classified | HeadwaterError]:
        """The label of each of some surviving passages, in their order; stored vectors are used where there are any."""
        texts = await anyio.to_thread.run_sync(texts_of, topic, ids)
        if embedder is None or labeller.method == "llm":
            return await labeller.label([texts[id] for id in ids])
        vectors = await vectors_of(topic, ids, texts, embedder)
        return await labeller.label([texts[id] for id in ids], vectors)

    def _in_scope(self, topic: TopicIndex, scope: tuple[str, Any, Any], limit: int) -> tuple[dict[int, int], bool]:
        """Surviving passages with how many records in scope they have, most frequent first; whether there were more."""
        q, since, until = scope
        wanted = plan(self._stock, q, topics=[topic.row.name], since=since, until=until, mode="keyword")
        if not is_narrow(wanted) and not q.strip():
            rows = topic.catalogue.frequent(limit + 1)
            return {row.id: row.total for row in rows[:limit]}, len(rows) > limit
        needed = replace(wanted.scope, phrases=wanted.scope.phrases + tuple(wanted.query.text.split()))
        counts: Counter[int] = Counter()
        for passage, number in self._keyword.passages(needed, limit=MOST_PASSAGES).items():
            if passage:
                counts[topic.resolve(passage)] += number
        return dict(counts.most_common(limit)), len(counts) > limit

    def _listed(
        self, records: Counter[str | None], passages: Counter[str | None], firsts: Mapping[str | None, tuple[TopicIndex, int]]
    ) -> tuple[LabelCount, ...]:
        listed = []
        for name, number in records.most_common():
            topic, passage = firsts[name]
            example = None
            for place in topic.catalogue.latest(topic.family(passage)):
                for row in self._log.rows_of([place.record]).values():
                    example = address(topic.row.name, row.partition, row.offset)
            listed.append(LabelCount(name, number, passages[name], example))
        return tuple(listed)

    # ------------------------------------------------------------------ values

    async def extract(
        self, texts: Sequence[str], *, schema: Any, by: Any = "both", patterns: Mapping[str, str] | None = None,
        model: str | None = None, about: str = "",
    ) -> ExtractReply:  # fmt: skip
        """As Verbs.extract."""
        chat = None if by == "regex" else self.chat(model, needed=by == "llm")
        extractor = Extractor(Form(json_schema(schema), by, patterns, about), chat)
        done = await extractor.extract(checked(texts))
        found = [one if isinstance(one, Extracted) else Extracted({}, {}, str(one)) for one in done]
        purse = extractor.purse
        return ExtractReply(tuple(found), chat.name if chat is not None and purse.calls else None, purse.calls, purse.spent)

    # ------------------------------------------------------------------ models

    def chat(self, name: str | None, *, needed: bool = False) -> Chat | None:
        """The chat model of that name, for None the configured one where it is needed; UsageError where there is none."""
        found = self._models.get(name) if name is not None or needed else None
        if found is None and (needed or name is not None):
            raise UsageError("there is no chat model; `headwater config set llm.provider ...` configures one, or give `model`")
        return found

    def embedder(self, name: str | None = None) -> Embedder | None:
        """The embedding model of that name, the configured one by default; None where texts are not embedded."""
        name = name or self._settings.embedding.model
        return None if name in _NOT_EMBEDDED else self._stock.embedders.get(name, TopicConfig())

    def labeller(self, wanted: Task, embedder: Embedder | None, chat: Chat | None) -> Labeller:
        """The labeller of a task, its head fitted once for all calls."""
        names = (embedder and (embedder.name, embedder.version), chat and chat.name, wanted.min_confidence)
        key = hashlib.blake2b(f"{wanted.digest()}{names}".encode(), digest_size=16).hexdigest()
        if key not in self._held:
            self._held[key] = Labeller(wanted, None if embedder is None else embed_by(embedder), chat)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key]


def embed_by(embedder: Embedder) -> Embed:
    """What embeds texts as passages of that model."""

    async def embed(texts: Sequence[str]) -> Floats:
        return await embedder.embed(list(texts), "passage")

    return embed


def texts_of(topic: TopicIndex, ids: Sequence[int]) -> dict[int, str]:
    """The texts of passages as they are embedded."""
    rows = topic.catalogue.rows(ids)
    return {id: embedding_text(topic.kind, rows[id].text, rows[id].context) if id in rows else "" for id in ids}


async def vectors_of(topic: TopicIndex, ids: Sequence[int], texts: Mapping[int, str], embedder: Embedder) -> Floats:
    """`(n, d)` unit rows by that model, in the order of `ids`: those stored by it, the others embedded."""
    known: dict[int, np.ndarray] = {}
    if topic.embedder is not None and topic.embedder.name == embedder.name:
        found, rows = await anyio.to_thread.run_sync(topic.catalogue.vectors, ids)
        known = dict(zip(found.tolist(), rows, strict=True))
    missing = [id for id in ids if id not in known]
    if missing:
        known.update(zip(missing, await embedder.embed([texts[id] for id in missing], "passage"), strict=True))
    return np.stack([known[id] for id in ids]) if ids else np.empty((0, 0), np.float32)


def checked(texts: Sequence[str]) -> list[str]:
    """The texts of a call; UsageError where they are none, or too many."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise UsageError("texts are a list of texts")
    if not texts:
        raise UsageError("there is no text")
    if len(texts) > MOST_TEXTS or sum(map(len, texts)) > MOST_CHARS:
        raise UsageError(f"at most {MOST_TEXTS:,} texts with {MOST_CHARS:,} characters in one call")
    return list(texts)


def json_schema(schema: Any) -> Mapping[str, Any]:
    """The JSON schema of what was given: one, or a pydantic model."""
    make: Callable[[], Mapping[str, Any]] | None = getattr(schema, "model_json_schema", None)
    found = make() if make is not None else schema
    if not isinstance(found, Mapping):
        raise UsageError("the schema is a JSON schema, as an object, or a pydantic model")
    return found


def _model_of(topic: TopicIndex) -> Embedder | None:
    """The model of a topic's vectors, where texts can be embedded by it."""
    return None if topic.embedder is None or topic.embedder.name == "external" else topic.embedder


def _blocks(ids: list[int]) -> list[list[int]]:
    return [ids[at : at + _BLOCK] for at in range(0, len(ids), _BLOCK)]


def _settled(one: Classified | HeadwaterError) -> Classified:
    return one if isinstance(one, Classified) else Classified(None, 0.0, {}, f"none: {one}")
