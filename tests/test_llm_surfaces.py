"""models and complete through every surface: the engine, HTTP with its events, the client, the command line, doctor, status."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import headwater
from fake_chat import ANSWER, CANARY, FakeChat, settings_of
from headwater.cli.doctor import examine
from headwater.client import Client
from headwater.config import LlmSettings, Settings
from headwater.errors import ModelError, UsageError
from headwater.llm.rehearsal import OPENING
from headwater.records.models import Completion, Message, Piece
from serving import serving, settings_in


def with_model(path: Path, **llm: Any) -> Settings:
    return replace(settings_in(path), llm=LlmSettings(**{"provider": "rehearsal", **llm}))


@contextmanager
def fake_server(plan: Any = (), **options: Any) -> Iterator[FakeChat]:
    """A fake server in a thread of its own."""
    ready, end = threading.Event(), asyncio.Event()
    server = FakeChat(plan, **options)
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with server:
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(240)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(240)
        loop.close()


def test_the_library_completes_in_one_piece_and_in_pieces() -> None:
    with headwater.open(":memory:", embedding={"model": "hash"}, llm={"provider": "rehearsal"}) as hw:
        assert hw.complete("good day").text == f"{OPENING}good day"
        *pieces, last = hw.complete_stream([Message("user", "good day")], system="be brief")
        assert isinstance(last, Completion)
        assert "".join(p.text for p in pieces if isinstance(p, Piece)) == last.text
        assert {m.name for m in hw.models()} >= {"rehearsal", "extractive", "openai", "ollama"}
        assert hw.complete("good day").cached


def test_models_are_listed_in_the_order_in_which_they_are_asked() -> None:
    llm = {"provider": "rehearsal", "fallback": ["ollama:tiny", "extractive"]}
    with headwater.open(":memory:", embedding={"model": "hash"}, llm=llm) as hw:
        listed = [(m.name, m.standing) for m in hw.models()]
        assert listed[:3] == [("rehearsal", "default"), ("ollama:tiny", "fallback"), ("extractive", "fallback")]
        assert [n for n, s in listed if s == "known"] == ["openai", "azure", "anthropic", "llamafile", "custom", "local"]
        assert hw.status().chat_model == "rehearsal"
    with headwater.open(":memory:", embedding={"model": "hash"}) as hw:
        assert (hw.models()[0].name, hw.models()[0].standing) == ("extractive", "default")
        assert hw.status().chat_model == "extractive"


def test_without_a_model_complete_says_what_to_set() -> None:
    with headwater.open(":memory:", embedding={"model": "hash"}) as hw, pytest.raises(UsageError, match=r"llm\.provider"):
        hw.complete("x")


def test_the_client_gives_what_the_engine_gives(tmp_path: Path) -> None:
    async def check(url: str) -> None:
        async with Client(url) as hw:
            whole = await hw.complete("good day", system="be brief", cache=False)
            parts = [part async for part in hw.complete_stream([Message("user", "good day")], system="be brief", cache=False)]
            assert parts[-1] == whole
            assert "".join(p.text for p in parts if isinstance(p, Piece)) == whole.text
            rows = await hw.models(check=True)
            default = next(m for m in rows if m.standing == "default")
            assert (default.name, default.reachable, default.calls) == ("rehearsal", True, 2)
            with pytest.raises(UsageError):
                await hw.complete([Message("assistant", "x")])

    with serving(with_model(tmp_path)) as url:
        asyncio.run(check(url))


def test_the_status_names_the_model_that_answers(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from headwater.cli.app import app

    with serving(with_model(tmp_path)) as url:
        assert "answers  rehearsal" in CliRunner().invoke(app, ["status", "--url", url]).stdout
        assert httpx.get(f"{url}/v1/status").json()["chat_model"] == "rehearsal"


def test_over_http_json_or_events(tmp_path: Path) -> None:
    with serving(with_model(tmp_path)) as url:
        reply = httpx.post(f"{url}/v1/complete", json={"prompt": "hi there"}).json()
        assert (reply["text"], reply["finish"], reply["cached"]) == (f"{OPENING}hi there", "stop", False)
        events = httpx.post(f"{url}/v1/complete", json={"prompt": "hi there", "stream": True}).text
        names = [line.removeprefix("event: ") for line in events.splitlines() if line.startswith("event: ")]
        assert names[-1] == "done"
        assert set(names) == {"token", "done"}
        for body, said in (
            ({}, "give prompt or messages"),
            ({"prompt": "a", "messages": []}, "give prompt or messages"),
            ({"prompt": "a", "nonsense": 1}, "nonsense"),
            ({"messages": [{"role": "robot", "text": "a"}]}, "role"),
            ({"prompt": "a", "model": "nobody:x"}, "no model|unknown chat model"),
        ):
            refused = httpx.post(f"{url}/v1/complete", json=body)
            assert refused.status_code == 422, body
            assert any(word in refused.json()["detail"] for word in said.split("|")), refused.text


def test_a_model_that_fails_is_a_status_before_the_first_piece_and_an_event_after_it(tmp_path: Path) -> None:
    with fake_server(["500", "cut"]) as server:
        settings = replace(settings_in(tmp_path), llm=settings_of(server, retries=0))
        with serving(settings) as url:
            refused = httpx.post(f"{url}/v1/complete", json={"prompt": "x", "stream": True}, timeout=240)
            assert refused.status_code == 502
            assert refused.json()["type"].endswith(":model")
            assert CANARY not in refused.text
            cut = httpx.post(f"{url}/v1/complete", json={"prompt": "x", "stream": True}, timeout=240)
            assert cut.status_code == 200
            assert "event: done" not in cut.text
            assert "event: error" in cut.text

            async def check() -> None:
                async with Client(url) as hw:
                    server.plan = ()
                    assert (await hw.complete("x")).text == ANSWER

            asyncio.run(check())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_the_call(tmp_path: Path, stream: bool) -> None:
    async def leave(url: str) -> None:
        async with httpx.AsyncClient() as http:
            if not stream:
                asked = asyncio.create_task(http.post(f"{url}/v1/complete", json={"prompt": "x"}, timeout=240))
                await _until(lambda: bool(server.requests))
                asked.cancel()
                return
            async with http.stream("POST", f"{url}/v1/complete", json={"prompt": "x", "stream": True}, timeout=240) as reply:
                async for line in reply.aiter_lines():
                    if "token" in line:
                        return

    # left alone, the call would outlast the wait for its end
    slow: dict[str, Any] = {"token_s": 10.0, "answer": lambda _: "word " * 100}
    with (
        fake_server([] if stream else ["timeout"], **slow) as server,
        serving(replace(settings_in(tmp_path), llm=settings_of(server, timeout_s=600.0, retries=0))) as url,
    ):
        asyncio.run(leave(url))
        asyncio.run(_until(lambda: server.running == 0))
        assert len(server.requests) == 1


async def _until(so: Any) -> None:
    async with asyncio.timeout(240):
        while not so():
            await asyncio.sleep(0.01)


def test_doctor_tells_of_the_chat_model_and_how_to_mend_it(tmp_path: Path) -> None:
    def found(**llm: Any) -> Any:
        return next(f for f in examine(with_model(tmp_path, **llm)) if f.check == "chat model")

    assert found().ok
    assert found(provider="extractive").ok
    missing = found(provider="openai", model="gpt-5-mini") if not _has_key() else None
    assert missing is None or missing.mend == "export OPENAI_API_KEY=YOUR_KEY"
    down = found(provider="ollama", model="m", base_url="http://127.0.0.1:9")
    assert (down.ok, down.mend) == (False, "ollama serve")


def _has_key() -> bool:
    import os

    return bool(os.environ.get("OPENAI_API_KEY"))


def test_status_tells_of_a_model_that_fails(tmp_path: Path) -> None:
    with fake_server(["500", "ok"]) as server:
        llm = settings_of(server, retries=0)
        options = {name: getattr(llm, name) for name in ("provider", "model", "base_url", "retries")}
        with headwater.open(tmp_path, embedding={"model": "hash"}, llm=options) as hw:
            with pytest.raises(ModelError):
                hw.complete("x")
            assert any("openai:tiny" in problem for problem in hw.status().problems)
            hw.complete("x")
            assert not any("openai:tiny" in problem for problem in hw.status().problems)


def test_the_command_line_lists_and_completes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from headwater.cli.app import app

    monkeypatch.setenv("HEADWATER_LLM_PROVIDER", "rehearsal")
    monkeypatch.setenv("HEADWATER_EMBEDDING_MODEL", "hash")
    run = CliRunner()
    listed = run.invoke(app, ["models", "--check", "--data", str(tmp_path)])
    assert listed.exit_code == 0, listed.output
    assert "rehearsal" in listed.stdout
    assert "anthropic" in listed.stdout
    rows = json.loads(run.invoke(app, ["models", "--json", "--data", str(tmp_path)]).stdout)
    assert next(m for m in rows if m["standing"] == "default")["name"] == "rehearsal"
    said = run.invoke(app, ["complete", "hello you", "--data", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert said.stdout.strip() == f"{OPENING}hello you"
    piped = run.invoke(app, ["complete", "--json", "--data", str(tmp_path)], input="hello you")
    assert json.loads(piped.stdout)["text"] == f"{OPENING}hello you"
