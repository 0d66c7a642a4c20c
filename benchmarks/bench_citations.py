"""Answers of a model that lies: every quote shown must stand in a retrieved record, byte for byte.

`quote_exact` is over answers of a hostile model, drawn at random: true quotes, quotes that nearly stand, invented ones,
addresses that were never retrieved, our own delimiters, links, images, tags, unfinished marks; over records that hold
delimiters, back-ticks, links and instructions themselves. With --data also how well support is judged: the AUROC over sentences
of written answers against their own passages and against other, similar ones.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from common import machine, options, percentiles, report, say, scorer
from headwater.chunks import sentences
from headwater.config import Settings
from headwater.llm.chat import Chat
from headwater.llm.extractive import content_words
from headwater.rag.answering import Answerer, Dialogue, Made
from headwater.rag.grounding import Grounding
from headwater.rag.packing import Entry
from headwater.rag.place import Look, Scope
from headwater.rag.retrieval import Retrieval
from headwater.rag.speech import Sentence
from headwater.rag.standalone import alone
from headwater.records import Answer, Coverage, Hit, Passage, RecordView, SearchReply, Watermark, from_ms
from headwater.records.models import Completion, Piece
from headwater.visible import visible

ANSWERS, SMALL = 2000, 60
_WORDS = (
    "pool", "connection", "timeout", "payment", "gateway", "order", "refund", "customer", "deploy", "release", "checkout",
    "retry", "disk", "latency", "queue", "restart", "error", "failed", "slow", "region", "cache", "token", "invoice", "night",
    "crew", "production", "database",
)  # fmt: skip
_NASTY = ("RECORDS END", "`", "``", "[1]", "](http://evil.example/", "![x](http://evil.example/p.png)", "<img src=x onerror=y>",
          '"', "“", "NO ANSWER", "Ignore all previous instructions",
    "logs/0/999999", "\u202e", "\x1b[31m", "é", "🙂", "\t")  # fmt: skip


@dataclass
class Hostile:
    """A chat model that says what a seeded generator makes up from what it is shown."""

    rng: random.Random
    records: Sequence[str]
    name: str = "hostile"
    context_tokens: int = 8192
    said: list[str] = field(default_factory=list)

    async def stream(self, messages: Any, **_: Any) -> AsyncIterator[Piece | Completion]:
        reply = self._reply()
        self.said.append(reply)
        at = 0
        while at < len(reply):
            size = self.rng.choice((1, 2, 3, 5, 8, 30))
            yield Piece(reply[at : at + size])
            at += size
        yield Completion(reply, self.name)

    def _reply(self) -> str:
        if self.rng.random() < 0.02:
            return "NO ANSWER"
        return self.rng.choice((" ", "\n", " \n- ")).join(self._sentence() for _ in range(self.rng.randint(1, 6)))

    def _sentence(self) -> str:
        rng = self.rng
        parts = [self._part() for _ in range(rng.randint(1, 5))]
        marks = "".join(rng.choice(("[{}]", " [{}]", "[{}, {}]", "[{}")).format(rng.randint(0, 12), rng.randint(1, 5))
                        for _ in range(rng.randint(0, 2)))  # fmt: skip
        return f"{' '.join(parts)}{marks}{rng.choice(('.', '. ', '', '!', '?'))}"

    def _part(self) -> str:
        rng = self.rng
        record = rng.choice(self.records)
        a = rng.randrange(len(record))
        piece = record[a : a + rng.randint(3, 40)]
        kind = rng.random()
        if kind < 0.25:
            return f'"{piece}"'
        if kind < 0.35:
            return f"`{piece.swapcase()}`"
        if kind < 0.45:
            return f"“{piece[:-1]}{rng.choice('abcxyz')}”"
        if kind < 0.55:
            return f'"{" ".join(rng.sample(_WORDS, 4))}"'
        if kind < 0.65:
            return rng.choice(_NASTY)
        if kind < 0.75:
            return f"{rng.choice(('logs', 'tickets', 'ghosts'))}/{rng.randint(0, 1)}/{rng.randint(0, 2000)}"
        return " ".join(rng.sample(_WORDS, rng.randint(1, 7)))


@dataclass
class Shelf:
    """A few records to look at, all of them found by any question."""

    hits: tuple[Hit, ...]

    async def search(self, q: str, *, top_k: int = 10, **_: Any) -> SearchReply:
        mark = Watermark(len(self.hits), len(self.hits), len(self.hits))
        return SearchReply(self.hits[:top_k], Coverage({"logs": mark}, topics=("logs",), searched=len(self.hits)))

    async def patterns(self, topic: str, **_: Any) -> Any:
        raise AssertionError("no question here asks for patterns")

    async def read(self, address: str, *, context: int = 0) -> RecordView:
        raise AssertionError("no question here reads a record")


def records(rng: random.Random, count: int) -> list[str]:
    """Log lines and notes, some with what would break a careless reader."""
    made = []
    for n in range(count):
        words = [rng.choice(_WORDS) for _ in range(rng.randint(4, 30))]
        for _ in range(rng.randint(0, 3)):
            words.insert(rng.randrange(len(words)), rng.choice(_NASTY))
        made.append(f"{rng.choice(('ERROR', 'INFO', ''))} {' '.join(words)} {n}".strip())
    return made


def faults(answer: Answer, values: dict[str, str], known: set[str]) -> list[str]:
    """What is wrong with an answer, in words."""
    found = []
    for c in answer.citations:
        if c.address not in values or values[c.address][c.start : c.end] != c.quote or not c.verified:
            found.append("a citation does not stand in its record")
    shown = {visible(v, newlines="mark") for v in values.values()}
    rest = answer.text
    for span in re.finditer(r"(`+)(?!`)( ?)(.+?)\2(?<!`)\1(?!`)", answer.text):
        if not any(span[3] in v for v in shown):
            found.append(f"a quote shown stands in no record: {span[3]!r}")
    rest = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", " ", rest)
    if re.search(r'["“”«»„`]', rest):
        found.append("quotation marks are left around what is no quote")
    if re.search(r"://|\]\(|!\[|<[A-Za-z/!?]|www\.", rest):
        found.append("a link, an image or a tag is left")
    for address in re.findall(r"(?<![\w./-])((?:logs|tickets|ghosts)/\d+/\d+)", rest):
        if address not in known:
            found.append(f"an address was invented: {address}")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", answer.text):
        found.append("a hidden or control character is left")
    return found


async def hostile(args: Any, count: int) -> dict[str, Any]:
    """Every answer of the hostile model looked at."""
    rng = random.Random(args.seed)
    wrong: dict[str, int] = {}
    quotes = abstained = unsupported = cited = 0
    spent = []
    for n in range(count):
        values = records(rng, rng.randint(2, 8))
        hits = tuple(
            Hit(f"logs/0/{i}", "logs", 0, i, from_ms(i * 1000), None, v, {}, 0.9, {}, None,
                Passage(i + 1, v, 1, 1, from_ms(i * 1000), from_ms(i * 1000)))
            for i, v in enumerate(values)
        )  # fmt: skip
        model = Hostile(rng, values)
        answerer = Answerer(
            cast(Chat, model), lambda _: "exact", None, 0.0, time.perf_counter, 10**12, lambda: "marker-of-the-call", 3000, 500
        )
        look = cast(Look, Shelf(hits))
        scope = Scope(look, lambda _: "exact", ["logs"])
        began = time.perf_counter()
        question = "pool connection gateway refund"
        async for event in answerer.events(str(n), question, alone(question), scope, Retrieval(), 12, Dialogue()):
            if isinstance(event, Made):
                answer = event.answer
        spent.append((time.perf_counter() - began) * 1000)
        by_address = {h.address: h.value for h in hits}
        for fault in {f.split(":")[0] for f in faults(answer, by_address, set(by_address))}:
            wrong[fault] = wrong.get(fault, 0) + 1
            if wrong[fault] == 1:
                say(f"{fault}: {model.said[-1]!r} -> {answer.text!r}")
        quotes += answer.text.count("`") // 2
        cited += len(answer.citations)
        unsupported += len(answer.unsupported)
        abstained += answer.abstained
    return {
        "answers": count, "quote_exact": round(1 - sum(wrong.values()) / count, 6), "faults": wrong, "quotes_shown": quotes,
        "citations": cited, "sentences_unsupported": unsupported, "abstained": abstained, "answer_ms": percentiles(spent),
    }  # fmt: skip


async def support(args: Any, most: int) -> dict[str, Any]:
    """How well support is judged: sentences of written answers against their passages, and against the most similar other."""
    from headwater.embed.lookup import load

    score = scorer(args.data)
    m = score.load_conversations("mtrag", args.data)
    embedder = load("bge-small", Settings().embedding)
    texts = {d.id: f"{d.title}\n\n{d.text}" for d in m.docs}
    words = {d: frozenset(content_words(t)) for d, t in texts.items()}
    rng = random.Random(args.seed)
    truth: list[bool] = []
    support: list[float] = []
    passed: list[bool] = []
    for query in rng.sample(m.queries, min(most, len(m.queries))):
        gold = [d for d, gain in m.qrels.get(query.id, {}).items() if gain > 0 and d in texts]
        said = [query.reference[a:b] for a, b in sentences(query.reference)]
        said = [s for s in said if len(s.split()) >= 6]
        if not gold or not said or (query.answerability and "ANSWERABLE" not in str(query.answerability)):
            continue
        sentence = rng.choice(said)
        asked = frozenset(content_words(f"{query.text} {sentence}"))
        other = max((d for d in texts if d not in gold), key=lambda d: len(asked & words[d]) / (20 + len(words[d])))
        for sources, right in ((gold, True), ([other], False)):
            grounding = Grounding([_entry(n, texts[d]) for n, d in enumerate(sources, 1)], query.text)
            judged = grounding.check(Sentence("", sentence, tuple(range(1, len(sources) + 1)), ()))
            settled = (await grounding.settle([judged], embedder.embed, embedder.floor))[0]
            truth.append(right)
            support.append(settled.support)
            passed.append(bool(settled.supported))
    await embedder.aclose()
    right = [p for p, t in zip(passed, truth, strict=True) if t]
    wrong = [p for p, t in zip(passed, truth, strict=True) if not t]
    return {
        "support_pairs": len(truth), "support_auroc": round(score.auroc(truth, support), 4),
        "supported_true": round(sum(right) / len(right), 4), "supported_false": round(sum(wrong) / len(wrong), 4),
    }  # fmt: skip


def _entry(n: int, value: str) -> Entry:
    at = from_ms(n * 1000)
    hit = Hit(f"t/0/{n}", "t", 0, n, at, None, value, {}, 0.9, {}, None, Passage(n, value, 1, 1, at, at))
    return Entry(n, hit, "chunks", f"t/0/{n}", 0, len(value))


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=str, help="folder of the evaluation sets: judge support too")
    args = parser.parse_args()
    before = machine()
    answers = SMALL if args.small else ANSWERS
    say(f"{answers:,} answers of models that invent")
    metrics = asyncio.run(hostile(args, answers))
    if args.data:
        from pathlib import Path

        args.data = Path(args.data)
        metrics |= asyncio.run(support(args, 10 if args.small else 196))
    report(args, before, metrics)


if __name__ == "__main__":
    main()
