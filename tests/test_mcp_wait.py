"""Ten agents that wait through a real daemon that is killed and started again: each is told of every hit, and told again with
the same id until it says, by its cursor, that it has it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from headwater import HeadwaterError, launch
from headwater.client import Client as Verbs
from headwater.config import Settings, load
from headwater_mcp import build
from headwater_mcp.connect import connecting
from serving import eventually

AGENTS, ALARMS, KILLS = 10, 60, 3
_HIT = re.compile(r"^\[(\d+-\d+)\] (alarms/0/\d+) ", re.MULTILINE)


class Agent:
    """An agent that forgets half of what it was told: it asks again behind its old cursor, as one that was cut off would."""

    def __init__(self, client: Client, watch: int, seed: int) -> None:
        self._client, self._watch, self._rng = client, watch, random.Random(seed)
        self.ids: dict[str, str] = {}
        self.repeated = 0

    async def run(self, wanted: asyncio.Event, stored: list[str]) -> None:
        cursor = "0"
        while not (wanted.is_set() and len(self.ids) >= len(stored)):
            result = await self._client.call_tool("wait", {"id": str(self._watch), "cursor": cursor, "timeout": 1})
            text = "".join(str(getattr(part, "text", "")) for part in result.content)
            following = re.search(r"next_cursor=(\d+)$", text)
            if result.is_error or following is None:  # the daemon is being killed
                continue
            for id, address in _HIT.findall(text):
                self.repeated += address in self.ids
                assert self.ids.setdefault(address, id) == id
            if self._rng.random() < 0.5:
                cursor = following[1]


def _kill(settings: Settings) -> None:
    """Kill the daemon, and see it gone; an agent may have started the next one by then."""
    if (runtime := launch.find(settings)) is not None:
        os.kill(runtime.pid, signal.SIGKILL)
        eventually(lambda: (now := launch.find(settings)) is None or now.pid != runtime.pid)


@pytest.mark.slow
def test_ten_agents_miss_no_hit_while_the_daemon_is_killed_and_are_told_again_with_the_same_id(tmp_path: Path) -> None:
    options = {"data_dir": str(tmp_path / "data"), "server.port": 0, "embedding.model": "hash"}
    config = tmp_path / "headwater.toml"
    config.write_text('[embedding]\nmodel = "hash"\n[server]\nport = 0\n')
    settings = load(None, options, {}).settings

    async def connect() -> Any:
        runtime = await asyncio.to_thread(launch.find_or_start, settings, config=config)
        return Verbs(runtime.url, runtime.token)

    async def run() -> tuple[list[str], list[Agent]]:
        verbs, stored, done = connecting(connect), list[str](), asyncio.Event()
        await verbs.create_topic("alarms")
        watches = [await verbs.add_watch("alarm", topics=["alarms"], mode="keyword") for _ in range(AGENTS)]

        async def feed() -> None:
            kills = set(random.Random(7).sample(range(5, ALARMS - 5), KILLS))
            for n in range(ALARMS):
                if n in kills:
                    await asyncio.to_thread(_kill, settings)
                while True:
                    with contextlib.suppress(HeadwaterError):
                        reply = await verbs.append("alarms", [f"alarm number {n}"], idempotency_key=f"a{n}")
                        stored.append(reply.records[0].address)
                        break
                    await asyncio.sleep(0.05)
            done.set()

        async with contextlib.AsyncExitStack() as opened:
            agents = []
            for seed, watch in enumerate(watches):
                own = connecting(connect)
                opened.push_async_callback(own.aclose)
                client = await opened.enter_async_context(Client(build(own)))
                agents.append(Agent(client, watch.id, seed))
            async with asyncio.timeout(600):
                await asyncio.gather(feed(), *(agent.run(done, stored) for agent in agents))
        await verbs.aclose()
        return stored, agents

    try:
        stored, agents = asyncio.run(run())
    finally:
        _kill(settings)
    assert len(stored) == len(set(stored)) == ALARMS
    for agent in agents:
        assert set(agent.ids) == set(stored)
        assert [id.partition("-")[2] for id in agent.ids.values()] == [str(n + 1) for n in range(ALARMS)]
    assert sum(agent.repeated for agent in agents) > ALARMS
