"""Questions, conversations and kept answers over HTTP: events, resuming, a client that leaves, and the SDK on top."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import headwater
from headwater.config import LlmSettings
from headwater.errors import ConflictError, NotFoundError, UsageError
from serving import serving, settings_in

POOL = "ERROR pool: cannot borrow a connection from the pool after 3000 ms"
SLOW = [f"word{n}" for n in range(600)]
SCRIPT = [
    {"if": "Question: slow", "say": " ".join(SLOW), "pause_s": 0.2},  # two minutes, if it went on to its end
    {"if": "", "say": 'The pool cannot borrow a connection [1]. It says "cannot borrow" [1].'},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("http")
    (folder / "script.json").write_text(json.dumps(SCRIPT))
    llm = LlmSettings(provider="rehearsal", model=str(folder / "script.json"), cache_enabled=False, concurrency=1)
    with serving(replace(settings_in(folder / "data"), llm=llm)) as url:
        with headwater.connect(url) as hw:
            hw.append("logs", [POOL], wait="searchable", timeout_s=240)
        yield url


def events(text: str) -> list[tuple[str, str, str]]:
    """`(event, id, data)` of each event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], fields.get("id", ""), fields["data"]))
    return found


def test_a_stream_resumes_behind_its_last_event(url: str) -> None:
    body = {"question": "what is wrong with the pool connection?", "stream": True}
    whole = events(httpx.post(f"{url}/v1/ask", json=body).text)
    assert [whole[0][0], whole[-1][0]] == ["retrieval", "done"]
    tokens = [(id, json.loads(data)["text"]) for name, id, data in whole if name == "token"]
    half = len(tokens) // 2
    rest = events(httpx.post(f"{url}/v1/ask", json=body, headers={"last-event-id": tokens[half][0]}).text)
    shown = "".join(text for _, text in tokens[: half + 1])
    shown += "".join(json.loads(data)["text"] for name, _, data in rest if name == "token")
    assert shown == "".join(text for _, text in tokens)
    assert rest[-1] == whole[-1]


def test_a_client_that_leaves_ends_the_call_and_nothing_is_kept(url: str) -> None:
    def kept() -> list[str]:
        return [a["answer"]["question"] for a in httpx.get(f"{url}/v1/answers").json()["answers"]]

    left, asked_next = "slow pool connection?", "what of the pool connection, after that?"
    with httpx.stream("POST", f"{url}/v1/ask", json={"question": left, "stream": True}) as reply:
        for line in reply.iter_lines():
            if "word3" in line:
                break
    httpx.post(f"{url}/v1/ask", json={"question": asked_next}).raise_for_status()  # its turn comes when that call has ended
    assert asked_next in kept()
    assert left not in kept()


def test_conversations_and_answers_have_their_routes(url: str) -> None:
    made = httpx.post(f"{url}/v1/conversations", json={"id": "web", "system": "Be brief.", "ttl": "1d"})
    assert (made.status_code, made.json()["system"]) == (201, "Be brief.")
    assert httpx.post(f"{url}/v1/conversations", json={"id": "web"}).status_code == 409
    answer = httpx.post(f"{url}/v1/ask", json={"question": "what of the pool connection?", "conversation": "web"}).json()
    said = httpx.get(f"{url}/v1/conversations/web/messages").json()["messages"]
    assert [m["role"] for m in said] == ["user", "assistant"]
    assert said[1]["answer"] == answer["id"]
    assert httpx.patch(f"{url}/v1/conversations/web", json={"title": "Web", "ttl": None}).json()["expires"] is None
    assert httpx.get(f"{url}/v1/answers", params={"conversation": "web"}).json()["answers"][0]["answer"] == answer
    again = httpx.post(f"{url}/v1/answers/{answer['id']}/rerun").json()
    assert again["summary"].startswith("the answer is the same")
    assert httpx.post(f"{url}/v1/summarize", json={"topics": ["logs"]}).json()["citations"]
    assert httpx.delete(f"{url}/v1/conversations/web").status_code == 204
    assert httpx.get(f"{url}/v1/conversations/web").status_code == 404
    assert httpx.get(f"{url}/v1/answers/{answer['id']}").status_code == 404


def test_the_sdk_over_http_is_the_same(url: str) -> None:
    with headwater.connect(url) as hw:
        hw.create_conversation("sdk", max_context_tokens=400)
        seen = list(hw.ask_events("what of the pool connection?", conversation="sdk"))
        assert seen[-1].event == "done"
        assert hw.conversation("sdk").messages == 2
        kept = hw.answers(conversation="sdk")[0]
        assert kept.answer == seen[-1].data
        assert hw.rerun(kept.answer.id).before == kept.answer
        assert [e.event for e in hw.ask_events("x", place=seen[3].place)][-1] == "done"
        assert hw.set_conversation("sdk", title="T").title == "T"
        assert [m.n for m in hw.messages("sdk", before=2)] == [1]
        assert hw.summarize(topics=["logs"], model="extractive").citations
        with pytest.raises(ConflictError):
            hw.create_conversation("sdk")
        with pytest.raises(UsageError):
            hw.set_conversation("sdk", max_context_tokens=1)
        hw.remove_conversation("sdk")
        with pytest.raises(NotFoundError):
            hw.messages("sdk")
