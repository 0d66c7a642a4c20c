"""Steps that may ask a chat model: classify, extract, summarize, score."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.enrich.extraction import Extractor, Form
from headwater.enrich.items import Outcome, Space, Unit
from headwater.enrich.labelling import Labeller, beside, is_outage
from headwater.enrich.labels import task
from headwater.enrich.purse import Purse, most_tokens
from headwater.errors import HeadwaterError, LimitError, ModelError, UsageError
from headwater.records.labels import Cost, Extracted
from headwater.records.models import Message, Usage

if TYPE_CHECKING:
    from headwater.llm.chat import Chat

_SHOWN = 24_000  # characters of a text that a model is shown
_SCORE = {
    "type": "object", "properties": {"score": {"type": "number", "minimum": 0, "maximum": 1}}, "required": ["score"],
}  # fmt: skip


class Classify:
    """A label: by the vectors of texts, by a chat model, or by both."""

    uses_fields, keeps = False, True

    def __init__(self, config: Mapping[str, Any], chat: Chat | None, purse: Purse, at_once: int) -> None:
        self._task = task(
            config.get("labels"), config.get("examples"), method=config.get("method", "auto"),
            margin=config.get("margin", 0.2), about=config.get("about", ""),
        )  # fmt: skip
        self._chat, self._purse, self._at_once = chat, purse, at_once
        self._labellers: dict[str | None, Labeller] = {}
        self.cost: Cost = "local" if chat is None else "llm"
        self.compares = self._task.method != "llm"

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        name = None if space is None else space.name
        if name not in self._labellers:
            embed = None if space is None or not self.compares else space.embed
            self._labellers[name] = Labeller(self._task, embed, self._chat, self._purse, self._at_once)
        known = [unit.vector for unit in units]
        vectors = np.stack([row for row in known if row is not None]) if all(row is not None for row in known) else None
        found = await self._labellers[name].label([unit.text for unit in units], vectors)
        return [one if isinstance(one, HeadwaterError) else Outcome(one.label, one.confidence, one.scores) for one in found]

    def used(self) -> Usage:
        return self._purse.spent

    async def aclose(self) -> None:
        return


class Extract:
    """Values that a JSON schema asks for."""

    uses_fields, keeps, compares = False, True, False

    def __init__(self, config: Mapping[str, Any], chat: Chat | None, purse: Purse, at_once: int) -> None:
        form = Form(config["schema"], config.get("by", "both"), config.get("patterns"), config.get("about", ""))
        self._extractor = Extractor(form, chat, purse, at_once)
        if (lost := self._extractor.lost) and form.by != "regex":
            raise UsageError(
                f"{lost[0]!r} has no pattern: give `model` for a chat model to find it, or `by: regex` to do without"
            )
        self._purse = purse
        self.cost: Cost = "llm" if self._extractor.asks else "free"
        self.keeps = self._extractor.asks

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        found = await self._extractor.extract([unit.text for unit in units])
        return [_extracted(one) if isinstance(one, Extracted) else one for one in found]

    def used(self) -> Usage:
        return self._purse.spent

    async def aclose(self) -> None:
        return


def _extracted(one: Extracted) -> Outcome:
    if one.problem is not None:
        return Outcome(note=f"not as the schema asks: {one.problem}")
    return Outcome(one.value or None)


class Summarize:
    """A summary by a chat model."""

    cost: Cost = "llm"
    uses_fields, keeps, compares = False, True, False

    def __init__(self, config: Mapping[str, Any], chat: Chat, purse: Purse, at_once: int) -> None:
        self._chat, self._purse, self._at_once = chat, purse, at_once
        self._most, self._about = config.get("max_tokens", 200), config.get("about", "")

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        work = [functools.partial(self._one, unit.text[:_SHOWN]) for unit in units]
        return await beside(work, self._purse, self._at_once)

    async def _one(self, text: str) -> Outcome | HeadwaterError:
        if not text.strip():
            return Outcome(note="there is no text")
        try:
            with self._purse.paying(most_tokens([Message("user", text + self._about)], self._most)) as bill:
                said = await self._chat.summarize(text, max_tokens=self._most, task=self._about)
                bill.paid(said.usage, cached=said.cached)
        except ModelError as error:
            if is_outage(error):
                raise
            return error
        except LimitError as error:
            return error
        return Outcome(said.text.strip() or None)

    def used(self) -> Usage:
        return self._purse.spent

    async def aclose(self) -> None:
        return


class Asked:
    """score by `ask`: a chat model judges from 0 to 1."""

    cost: Cost = "llm"
    uses_fields, keeps, compares = False, True, False

    def __init__(self, config: Mapping[str, Any], chat: Chat, purse: Purse, at_once: int) -> None:
        form = Form(_SCORE, "llm", None, f"Judge the text from 0 (not at all) to 1: {config['ask']}")
        self._extractor = Extractor(form, chat, purse, at_once)
        self._purse = purse

    async def decide(self, units: Sequence[Unit], space: Space | None) -> list[Outcome | HeadwaterError]:
        found = await self._extractor.extract([unit.text for unit in units])
        return [
            one if isinstance(one, HeadwaterError)
            else Outcome(note=one.problem) if one.problem is not None
            else Outcome(float(one.value["score"]), float(one.value["score"]))
            for one in found
        ]  # fmt: skip

    def used(self) -> Usage:
        return self._purse.spent

    async def aclose(self) -> None:
        return
