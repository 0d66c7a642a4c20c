"""Texts get their labels: by a head over vectors, by a chat model, or by both, cheap first (`cascade`)."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
import numpy as np

from headwater.enrich.examples import Examples
from headwater.enrich.labels import Task
from headwater.enrich.neighbours import Neighbours
from headwater.enrich.purse import Purse, most_tokens
from headwater.enrich.scores import Floats, Head
from headwater.enrich.zero_shot import ZeroShot, label_text
from headwater.errors import HeadwaterError, LimitError, ModelError, UsageError
from headwater.records.labels import Classified
from headwater.records.models import Message

if TYPE_CHECKING:
    from headwater.llm.chat import Chat

T = TypeVar("T")
Embed = Callable[[Sequence[str]], Awaitable[Floats]]
AT_ONCE = 8  # questions to a model under way at once
_SHOWN = 6000  # characters of a text that a model is asked about
_BEST = 5  # labels whose scores are told
_RETRIES = 1
_ANSWER = 200


class Labeller:
    """One task. `embed` gives unit rows of the model whose vectors `label` is given; None where only a chat model labels.
    `chat` None: no text is shown to a model."""

    def __init__(
        self, task: Task, embed: Embed | None, chat: Chat | None, purse: Purse | None = None, at_once: int = AT_ONCE
    ) -> None:
        self.task, self._embed, self._chat, self.purse, self._at_once = task, embed, chat, purse or Purse(), at_once
        self.method = chosen(task, embed is not None, chat is not None)
        self._head: Head | None = None
        self._fitting = asyncio.Lock()

    async def label(self, texts: Sequence[str], vectors: Floats | None = None) -> list[Classified | HeadwaterError]:
        """The label of each text, or why it has none: a model that answers nothing usable. `vectors` are those of the texts,
        where they are known. EmbedError, ModelError where a model cannot be reached, LimitError where nothing may be spent."""
        if not texts:
            return []
        if self.method == "llm":
            return await self._ask(texts)
        vectors = await self._vectors(texts) if vectors is None else vectors
        head = await self.fit()
        found: list[Classified | HeadwaterError] = [*await anyio.to_thread.run_sync(self._predict, head, vectors)]
        if self.method != "cascade":
            return found
        unsure = [n for n, one in enumerate(found) if isinstance(one, Classified) and _gap(one) < self.task.margin]
        for n, answer in zip(unsure, await self._ask([texts[n] for n in unsure]), strict=True):
            if isinstance(answer, Classified) or not isinstance(answer, LimitError):
                found[n] = answer  # where nothing more may be spent, the cheap answer stands
        return found

    async def fit(self) -> Head:
        """The head of this task, made once."""
        async with self._fitting:
            if self._head is None:
                names, labels = self.task.names, self.task.labels
                texts = await self._vectors([label_text(label.name, label.description) for label in labels])
                learns = self.task.has_examples and self.method != "zero-shot"
                shots = [(text, n) for n, label in enumerate(labels) for text in label.examples] if learns else []
                rows = await self._vectors([text for text, _ in shots]) if shots else texts[:0]
                truth = np.fromiter((n for _, n in shots), np.int64, len(shots))
                self._head = await anyio.to_thread.run_sync(_made, self.method, names, rows, truth, texts)
        return self._head

    async def _vectors(self, texts: Sequence[str]) -> Floats:
        assert self._embed is not None
        return await self._embed(texts)

    def _predict(self, head: Head, vectors: Floats) -> list[Classified]:
        probabilities = head.predict(np.ascontiguousarray(vectors, np.float32))
        count = min(_BEST, probabilities.shape[1])
        best = np.argpartition(-probabilities, count - 1, axis=1)[:, :count]
        by = "zero-shot" if isinstance(head, ZeroShot) else "examples"
        out = []
        for row, columns in zip(probabilities, best, strict=True):
            ranked = sorted(((float(row[c]), -int(c)) for c in columns), reverse=True)
            scores = {head.labels[-c]: round(p, 4) for p, c in ranked}
            out.append(self._judged(head.labels[-ranked[0][1]], ranked[0][0], scores, by))
        return out

    def _judged(self, label: str, confidence: float, scores: dict[str, float], by: str) -> Classified:
        sure = confidence >= self.task.min_confidence
        return Classified(label if sure else None, round(confidence, 4), scores, by)

    # ------------------------------------------------------------------ by a chat model

    async def _ask(self, texts: Sequence[str]) -> list[Classified | HeadwaterError]:
        return await beside([functools.partial(self._ask_one, text) for text in texts], self.purse, self._at_once)

    async def _ask_one(self, text: str) -> Classified | HeadwaterError:
        assert self._chat is not None
        labels = {label.name: _told(label.description, label.examples) for label in self.task.labels}
        shown = text[:_SHOWN]
        told = Message("user", shown + self.task.about + "".join(f"{n}{about}\n" for n, about in labels.items()))
        schema = {"enum": list(labels)}
        try:
            with self.purse.paying(most_tokens([told], _ANSWER, schema, tries=_RETRIES + 1)) as bill:
                found = await self._chat.classify(shown, labels, task=self.task.about, retries=_RETRIES)
                bill.paid(found.usage, cached=found.cached)
        except ModelError as error:
            if is_outage(error):
                raise
            return error
        except LimitError as error:
            return error
        confidence = 1.0 if found.confidence is None else found.confidence
        return self._judged(found.label, confidence, {found.label: round(confidence, 4)}, "llm")


def chosen(task: Task, embeds: bool, chats: bool) -> str:
    """The method that `auto` means, and whether there is what a method needs: UsageError says what is missing."""
    method: str = task.method
    if method == "auto":
        method = "llm" if not embeds else "cascade" if chats else "examples" if task.has_examples else "zero-shot"
    if method != "llm" and not embeds:
        raise UsageError(f"method {method} needs an embedding model, and none is configured; method llm needs a chat model")
    if method in ("llm", "cascade") and not chats:
        raise UsageError(f"method {method} needs a chat model: give `model`, or configure one (`headwater config set`)")
    return method


def is_outage(error: ModelError) -> bool:
    """Whether a model could not be asked at all, so that asking later may help; else its answer was of no use."""
    return error.__cause__ is not None


async def beside(work: Sequence[Callable[[], Coroutine[Any, Any, T]]], purse: Purse | None, at_once: int = AT_ONCE) -> list[T]:
    """The results of some calls, a few at once; the first alone while what one costs is still to be learned. An error of one
    cancels the rest."""
    first = [await work[0]()] if work and purse is not None and purse.learns else []
    gate = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async with gate:
            return await call()

    tasks = [asyncio.ensure_future(one(call)) for call in work[len(first) :]]
    try:
        return [*first, *await asyncio.gather(*tasks)]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _made(method: str, names: tuple[str, ...], rows: Floats, truth: np.ndarray, texts: Floats) -> Head:
    if not len(truth):
        return ZeroShot(names, texts)
    if method == "neighbours":
        return Neighbours(names, np.concatenate([rows, texts]), np.concatenate([truth, np.arange(len(names))]))
    return Examples(names, rows, truth, texts)


def _gap(found: Classified) -> float:
    """How far the best label is before the second."""
    two = list(found.scores.values())[:2]
    return two[0] - two[1] if len(two) > 1 else 1.0


def _told(description: str, examples: Sequence[str]) -> str:
    """What a model is told of a label."""
    some = "; ".join(f'"{text[:200]}"' for text in examples[:3])
    return f"{description} Such as: {some}".strip() if some else description
