"""Questions inside a conversation: what is found for the last turn alone, and in the light of the turns before it.

No chat model takes part unless --model names one, which then rewrites the question and words it otherwise, as `ask.rewrite`
and `ask.wordings` do, for the first --questions of each set. `r5` is recall@5 over the pool of passages (share of a
question's gold passages among the first five); gains are relative, with a paired bootstrap over questions (95%). The
product's own path is measured: `contextualise` and `Retrieval` over hybrid search with default settings. `abstain_auroc` is
that of the confidence of an answer without a model: answerable against unanswerable last turns in their conversations, and
against questions about something else.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import headwater
from bench_quality import as_words, fill
from common import machine, options, report, say, scorer
from headwater.config import LlmSettings, Settings, TopicConfig
from headwater.embed.rerank import CrossEncoder
from headwater.engine import Engine
from headwater.llm.chat import Chat
from headwater.llm.models import Models
from headwater.rag.answering import Answerer, Dialogue
from headwater.rag.chain import ask
from headwater.rag.place import Scope
from headwater.rag.retrieval import Rerank, Retrieval
from headwater.rag.standalone import Standalone, Turn, alone, contextualise

TOPIC = "mtrag"
NOW_MS = 1_780_000_000_000
DEPTH = 20
DRAWS = 10_000
WORDINGS = 3  # of the model's, as ask.wordings


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn with what was said before it, and its gold passages (none: unanswerable)."""

    id: str
    text: str
    before: tuple[Turn, ...]
    gold: Mapping[str, int]


def turns_of(history: Sequence[Any]) -> tuple[Turn, ...]:
    return tuple(Turn("user" if t.role == "user" else "assistant", t.text) for t in history)


def sets(score: ModuleType, data: Path) -> tuple[Any, dict[str, list[Asked]], list[Asked]]:
    """The passages, the judged questions by set, and the unanswerable ones."""
    m = score.load_conversations("mtrag", data)
    judged = {"un": [Asked(q.id, q.text, turns_of(q.history), m.qrels[q.id]) for q in m.queries if q.id in m.qrels]}
    human = []
    for line in (data / "mtrag" / "human_queries.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        said = row["questions"].split("\n")[:-1]
        if row["_id"] in m.human_qrels:
            before = tuple(Turn("user", text) for text in said)
            human.append(Asked(row["_id"], row["lastturn"], before, m.human_qrels[row["_id"]]))
    judged["human"] = human
    nothing = [Asked(q.id, q.text, turns_of(q.history), {}) for q in m.unanswerable]
    return m.docs, judged, nothing


class Finder:
    """Searches as `ask` does."""

    def __init__(self, engine: Engine, rerank: Rerank | None = None) -> None:
        self.engine, self._rerank = engine, rerank
        self.scope = Scope(engine, lambda _: "chunks", [TOPIC])

    async def keys(self, read: Standalone, *, rerank: bool = False) -> list[str]:
        """Ids of the passages found, best first."""
        retrieval = Retrieval(read.wordings, rerank=self._rerank if rerank else None)
        reply = await retrieval.run(self.scope, as_words(read.text), DEPTH, NOW_MS)
        return list(dict.fromkeys(str(hit.key) for hit in reply))

    async def confidence(self, question: Asked) -> float:
        """How sure an answer without a model is."""
        read = contextualise(question.text, question.before, NOW_MS) if question.before else alone(question.text)
        reader = self.engine.stock.embedders.get(self.engine.settings.embedding.model, TopicConfig())
        answer = await ask(
            as_words(read.text), look=self.engine, kind_of=lambda _: "chunks", embed=reader.embed, clock=time.perf_counter,
            now_ms=NOW_MS, new_id=lambda: "", topics=[TOPIC], floor=reader.floor,
            retrieval=Retrieval(read.wordings if question.before else ()),
        )  # fmt: skip
        return answer.confidence


def gain(base: Sequence[float], other: Sequence[float], seed: int) -> dict[str, float]:
    """The relative gain of a mean over another, with its 95% interval by a paired bootstrap."""
    b, o = np.asarray(base), np.asarray(other)
    rows = np.random.default_rng(seed).integers(0, len(b), (DRAWS, len(b)))
    drawn = o[rows].mean(axis=1) / np.maximum(b[rows].mean(axis=1), 1e-9) - 1
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"gain": round(float(o.mean() / b.mean() - 1), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def by_model(finder: Finder, chat: Chat, metrics: dict[str, Any]) -> dict[str, Any]:
    """The ways in which a chat model helps to find; `metrics` counts what of it was taken."""
    reader = Answerer(chat, lambda _: "chunks", None, 0.0, time.perf_counter, NOW_MS, lambda: "", 3000, 300)

    async def rewritten(q: Asked) -> list[str]:
        read = contextualise(q.text, q.before, NOW_MS)
        told = await reader.rewritten(read, q.text, Dialogue(q.before[-4:]))
        metrics["rewritten_taken"] = metrics.get("rewritten_taken", 0) + (told is not read)
        return await finder.keys(told)

    async def widened(q: Asked) -> list[str]:
        return await finder.keys(await reader.widened(contextualise(q.text, q.before, NOW_MS), WORDINGS))

    return {"rewritten": rewritten, "widened": widened}


async def measure(args: Any, score: ModuleType, folder: Path) -> dict[str, Any]:
    _, judged, nothing = sets(score, args.data)
    if args.small:
        judged = {name: part[:6] for name, part in judged.items()}
        nothing = nothing[:4]
    metrics: dict[str, Any] = {}
    reranker = CrossEncoder(Settings().embedding)
    async with Engine(Settings(data_dir=str(folder))) as engine:
        finder = Finder(engine, reranker.scores)
        ways: dict[str, Any] = {
            "last_turn": lambda q: finder.keys(Standalone(q.text, ())),
            "turn_before_and_last": lambda q: finder.keys(
                Standalone(" ".join([*[t.text for t in q.before if t.role == "user"][-1:], q.text]), ())
            ),
            "contextualised": lambda q: finder.keys(contextualise(q.text, q.before, NOW_MS)),
        }
        if args.rerank:
            ways["contextualised_reranked"] = lambda q: finder.keys(contextualise(q.text, q.before, NOW_MS), rerank=True)
        provider, _, name = (args.model or "").partition(":")
        models = Models(LlmSettings(provider=provider, model=name, timeout_s=300.0)) if provider else None
        if models is not None and (chat := models.get()) is not None:
            ways |= by_model(finder, chat, metrics)
            judged = {name: part[: args.questions] for name, part in judged.items()}
        recalls: dict[str, list[float]] = {}
        for way, run in ways.items():
            recalls[way] = []
            for name, part in judged.items():
                say(f"{way}: {name}")
                found = {q.id: await run(q) for q in part}
                r5 = [score.recall_at_k(found[q.id], q.gold, 5) for q in part]
                recalls[way] += r5
                metrics[f"r5_{way}_{name}"] = round(float(np.mean(r5)), 4)
                metrics[f"ndcg10_{way}_{name}"] = round(
                    float(np.mean([score.ndcg_at_k(found[q.id], q.gold, 10) for q in part])), 4
                )
                if way != "last_turn":
                    start = len(recalls[way]) - len(part)
                    base = recalls["last_turn"][start : start + len(part)]
                    metrics[f"r5_gain_{way}_{name}"] = gain(base, r5, args.seed)
        metrics["conversation_r5_gain"] = gain(recalls["last_turn"], recalls["contextualised"], args.seed)
        if not args.no_abstain:
            metrics |= await abstention(finder, score, judged["un"], nothing, args)
        if models is not None:
            await models.aclose()
    await reranker.aclose()
    return metrics


async def abstention(
    finder: Finder, score: ModuleType, answerable: Sequence[Asked], nothing: Sequence[Asked], args: Any
) -> dict[str, Any]:
    """AUROC of the confidence over answerable and unanswerable turns, and over questions about something else."""
    say("confidence: answerable")
    good = [await finder.confidence(q) for q in answerable]
    say("confidence: unanswerable")
    bad = [await finder.confidence(q) for q in nothing]
    others = score.load_retrieval("xquad_en", args.data).queries[:: 8 if args.small else 12][: 6 if args.small else 100]
    say("confidence: about something else")
    foreign = [await finder.confidence(Asked(q.id, q.text, (), {})) for q in others]
    both = [True] * len(good)
    return {
        "abstain_auroc_unanswerable": round(score.auroc([*both, *[False] * len(bad)], [*good, *bad]), 4),
        "abstain_auroc_other_topics": round(score.auroc([*both, *[False] * len(foreign)], [*good, *foreign]), 4),
        "abstain_auroc": round(score.auroc([*both, *[False] * (len(bad) + len(foreign))], [*good, *bad, *foreign]), 4),
        "answered_answerable": round(float(np.mean([c >= 0.5 for c in good])), 4),
        "abstained_unanswerable": round(float(np.mean([c < 0.5 for c in bad])), 4),
        "abstained_other_topics": round(float(np.mean([c < 0.5 for c in foreign])), 4),
    }


def main() -> None:
    parser = options(__doc__, data=True)
    parser.add_argument("--index", type=Path, help="a data directory filled by an earlier run, or to be kept for later ones")
    parser.add_argument("--rerank", action="store_true", help="also with the cross-encoder")
    parser.add_argument(
        "--model", metavar="PROVIDER:MODEL", help="a chat model that rewrites and widens, such as local:smollm2"
    )
    parser.add_argument("--questions", type=int, default=40, help="with --model: of each set (40)")
    parser.add_argument("--no-abstain", action="store_true", help="recall only")
    args = parser.parse_args()
    before, score = machine(), scorer(args.data)
    docs = score.load_conversations("mtrag", args.data).docs
    if args.small:
        docs = docs[:200]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.index or Path(temporary)
        if not (folder / "log.db").is_file():
            with headwater.open(folder) as hw:
                say(f"filled in {fill(hw, TOPIC, docs, 3600.0):.0f} s")
        metrics = asyncio.run(measure(args, score, folder))
    report(args, before, metrics)


if __name__ == "__main__":
    main()
