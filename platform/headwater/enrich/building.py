"""Steps made of their specification: what each needs is looked up, and what is missing is said before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headwater.enrich.items import Space, Step
from headwater.enrich.purse import Purse
from headwater.enrich.spec import Leaf, Spec
from headwater.enrich.steps_local import Likened, Redact, Route, listed
from headwater.enrich.steps_model import Asked, Classify, Extract, Summarize
from headwater.enrich.steps_outside import Http, Python
from headwater.enrich.texts import embed_by
from headwater.errors import HeadwaterError, UsageError

if TYPE_CHECKING:
    from headwater.enrich.texts import Texts
    from headwater.index.topic import TopicIndex


class Builder:
    """Makes steps over an engine's models. `environment` is what headers may name variables of."""

    def __init__(self, texts: Texts, environment: Mapping[str, str], price: float = 0.0) -> None:
        self._texts, self._environment, self._price = texts, environment, price

    def purse(self, tokens: int | None, cost: float | None) -> Purse:
        """What may be spent."""
        return Purse(tokens, cost, price=self._price)

    def steps(self, spec: Spec, tokens: int | None, cost: float | None) -> tuple[dict[str, Step], Purse]:
        """The steps of a pipeline by name, and the purse that all of them pay from, each counting its own. UsageError names
        the step that cannot be made."""
        purse = self.purse(tokens, cost)
        made: dict[str, Step] = {}
        for leaf in spec.leaves():
            if leaf.kind in ("stop", "drop"):
                continue
            try:
                made[leaf.name] = self._step(leaf, purse.part())
            except HeadwaterError as error:
                line = "" if leaf.line is None else f"line {leaf.line}, "
                raise UsageError(f"{line}step {leaf.name!r}: {error}") from error
        return made, purse

    def _step(self, leaf: Leaf, purse: Purse) -> Step:
        config, chat = leaf.config, self._texts.chat
        if leaf.kind == "classify":
            method = config.get("method", "auto")
            return Classify(config, chat(config.get("model"), needed=method in ("llm", "cascade")), purse, leaf.concurrency)
        if leaf.kind == "extract":
            asks = None if config.get("by") == "regex" else chat(config.get("model"), needed=config.get("by") == "llm")
            return Extract(config, asks, purse, leaf.concurrency)
        if leaf.kind == "summarize":
            found = chat(config.get("model"), needed=True)
            assert found is not None
            return Summarize(config, found, purse, leaf.concurrency)
        if leaf.kind == "score":
            if ("like" in config) == ("ask" in config):
                raise UsageError("score takes either `like` (texts) or `ask` (of a chat model)")
            if "like" in config:
                return Likened(listed(config["like"]))
            found = chat(config.get("model"), needed=True)
            assert found is not None
            return Asked(config, found, purse, leaf.concurrency)
        if leaf.kind == "route":
            return Route(config)
        if leaf.kind == "redact":
            return Redact(config)
        if leaf.kind == "http":
            return Http(config, self._environment, leaf.timeout_s, leaf.concurrency)
        return Python(config, leaf.concurrency)

    def space(self, spec: Spec, topic: TopicIndex | None = None) -> Space | None:
        """What texts of a topic are compared by: its own model where there is one, else that of the pipeline."""
        found = topic.embedder if topic is not None and spec.embedding is None else None
        if found is None or found.name == "external":
            found = self._texts.embedder(spec.embedding)
        return None if found is None else Space(found.name, embed_by(found), found.floor)
