"""A process that appends, watches and calls a webhook until it is killed: the victim of tests/test_webhooks_sent.py.

    python webhook_worker.py DIRECTORY URL [drain]

With `drain` it appends nothing more, waits until everything has been sent, and prints how many hits there were.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from headwater.config import load
from headwater.engine import Engine


async def work(directory: Path, url: str, *, drain: bool) -> None:
    arguments = {"data_dir": str(directory), "embedding.model": "none", "index.commit_interval_s": 0.01,
                 "topics": {"t": {"passages": "exact"}}}  # fmt: skip
    async with Engine(load(arguments=arguments, environment={}).settings) as engine:
        if not await engine.watches():
            await engine.add_watch("alarm", topics=["t"])
            await engine.add_webhook(url, name="desk", watches=["*"], allow_private=True)
        else:
            await engine.resume_webhook("desk")  # at once, whatever failed in the life before
        calling = asyncio.create_task(engine.hooks.run())
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        at = (await engine.topic("t")).records
        while not drain:
            await engine.append("t", [f"alarm in hall {at}", f"calm in hall {at}"], idempotency_key=f"from-{at}")
            at += 2
            sys.stdout.write(".")
            sys.stdout.flush()
            await asyncio.sleep(0.01)
        # the watch is asked first: what it fires waits for its call from then on
        while (await engine.watches())[0].behind or (await engine.webhook("desk")).waiting:
            hook = await engine.webhook("desk")
            if hook.state == "failing":
                await engine.resume_webhook("desk")
            await asyncio.sleep(0.02)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        sys.stdout.write(f"{(await engine.watches())[0].fired}\n")


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2], drain="drain" in sys.argv))
