"""What there is to be had of chat models, and what each still needs: the rows of `headwater models`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from headwater.config import LlmSettings
from headwater.embed.fault import Fault
from headwater.errors import ConfigError
from headwater.llm.caller import Caller
from headwater.llm.ledger import Taken
from headwater.llm.lookup import NONE, served
from headwater.llm.provider import MEND, Provider
from headwater.records.models import ModelInfo, Standing

_CHECK_S = 10.0  # for one look at a provider


def extractive(standing: Standing) -> ModelInfo:
    """Answers without a model."""
    return ModelInfo(
        name=NONE, provider=NONE, model="", standing=standing, url=None, key=None, reachable=True, streaming=True, schema=False,
        embeddings=False,
    )  # fmt: skip


async def told(
    name: str, standing: Standing, find: Callable[[str], Caller], taken: Mapping[str, Taken], check: bool
) -> ModelInfo:
    """A model that has a name."""
    kind, _, model = name.partition(":")
    try:
        caller = find(name)
    except ConfigError as error:
        problem, _, mend = str(error).partition(MEND)
        return ModelInfo(
            name=name, provider=kind, model=model, standing=standing, url=None, key=False if "needs a key" in problem else None,
            reachable=None, streaming=True, schema=True, embeddings=False, problem=problem.rstrip(), mend=mend or None,
        )  # fmt: skip
    provider, fault = caller.provider, await looked(caller.provider) if check else None
    took = taken.get(provider.name, Taken())
    return ModelInfo(
        name=provider.name, provider=kind, model=provider.model, standing=standing, url=provider.url, key=provider.key,
        reachable=fault is None if check else None, streaming=True, schema=provider.schema, embeddings=provider.embeds,
        problem=(None if fault is None else str(fault)) if check else caller.trouble,
        mend=(provider.remedy(fault) or None) if fault is not None else None, calls=took.calls, used=took.usage,
    )  # fmt: skip


async def known(kind: str, env: Mapping[str, str], check: bool) -> ModelInfo:
    """A provider that no model is configured of. Only those that run on one's own machines are looked at."""
    of, none = served(kind), LlmSettings()
    url = problem = mend = reachable = None
    hosted = bool(of.variables) and not of.free_elsewhere
    key = any(env.get(variable) for variable in of.variables) if hosted else None
    try:
        url = of.endpoint(none, env)
        if of.free_elsewhere:
            provider = await asyncio.to_thread(of, "", none, env)
            if check and kind != "local":
                fault = await looked(provider)
                reachable = fault is None or fault.status != 0
                problem, mend = (None, None) if reachable or fault is None else (str(fault), provider.remedy(fault))
            await provider.aclose()
    except ConfigError as error:
        text, _, command = str(error).partition(MEND)
        problem, mend = text.rstrip(), command
    if key is False and mend is None:
        mend = f"export {of.variables[0]}=YOUR_KEY"
    return ModelInfo(
        name=kind, provider=kind, model="", standing="known", url=None if kind == "local" else url, key=key,
        reachable=reachable, streaming=True, schema=True, embeddings=of.embeds, problem=problem, mend=mend or None,
    )  # fmt: skip


async def looked(provider: Provider) -> Fault | None:
    """What one look at a provider meets with; None where all is well."""
    try:
        async with asyncio.timeout(_CHECK_S):
            await provider.check()
    except TimeoutError:
        return Fault(f"no answer within {_CHECK_S:g} s", passes=True)
    except Fault as fault:
        return fault
    except ConfigError as error:
        return Fault(str(error), passes=False)
    return None
