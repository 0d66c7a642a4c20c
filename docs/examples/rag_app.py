"""A RAG app: documents in, questions answered with citations that were checked.

Run it: uvicorn rag_app:app     (its data lies in rag-data/)

    curl -X PUT  localhost:8000/documents/pool.md -H 'Content-Type: text/plain' --data 'The pool holds 20 connections.'
    curl -X POST localhost:8000/ask -H 'Content-Type: application/json' -d '{"question": "How large is the pool?"}'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

import headwater

TOPIC = "documents"


class Question(BaseModel):
    question: str
    conversation: str | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with headwater.aopen(os.environ.get("RAG_DATA", "rag-data")) as hw:
        await hw.create_topic(TOPIC, passages="chunks")
        app.state.hw = hw
        yield


app = FastAPI(lifespan=lifespan)


@app.put("/documents/{name}")
async def put_document(name: str, request: Request) -> dict[str, str]:
    """Store a text under its name. What was there under that name goes, so that no answer cites it any more."""
    hw, text = request.app.state.hw, (await request.body()).decode("utf-8", "replace")
    await hw.delete_records(TOPIC, key=name)
    stored = await hw.append(TOPIC, [{"key": name, "value": text}], wait="searchable")
    return {"address": stored.records[0].address}


@app.post("/ask")
async def ask(question: Question, request: Request) -> dict[str, object]:
    """The answer with what it rests on; `abstained` where the documents do not say."""
    hw = request.app.state.hw
    answer = await hw.ask(question.question, topics=[TOPIC], conversation=question.conversation)
    sources = []
    for citation in answer.citations:
        record = (await hw.read(citation.address)).record
        sources.append({"n": citation.n, "document": record.key, "quote": citation.quote, "verified": citation.verified})
    return {"answer": answer.text, "abstained": answer.abstained, "sources": sources}


@app.post("/ask/stream")
async def stream(question: Question, request: Request) -> StreamingResponse:
    """The words of the answer as they are made."""

    async def words() -> AsyncIterator[str]:
        async for event in request.app.state.hw.ask_events(question.question, topics=[TOPIC]):
            if event.event == "token":
                yield event.data

    return StreamingResponse(words(), media_type="text/plain; charset=utf-8")


@app.exception_handler(headwater.HeadwaterError)
async def failed(_: Request, error: headwater.HeadwaterError) -> JSONResponse:
    """Every error of Headwater says what to do about it."""
    return JSONResponse({"error": str(error)}, status_code=503 if isinstance(error, headwater.UnreachableError) else 422)
