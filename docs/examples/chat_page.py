"""A page to chat with a daemon from a browser: chat_page.html, and a server that passes its questions on.

Run it: uvicorn chat_page:app     (and open http://127.0.0.1:8000; HEADWATER_URL names the daemon, else http://127.0.0.1:8787)

The page speaks to this server alone. Only questions are passed on, and the daemon's key (HEADWATER_SERVER_API_KEY) stays
here: a browser never gets it, and what it sends cannot reach any other route.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, StreamingResponse

PAGE = Path(__file__).with_suffix(".html")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    key = os.environ.get("HEADWATER_SERVER_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = os.environ.get("HEADWATER_URL", "http://127.0.0.1:8787")
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=httpx.Timeout(120, connect=5)) as client:
        app.state.daemon = client
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    return FileResponse(PAGE, headers={"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'none'"})


@app.post("/v1/ask")
async def ask(request: Request) -> StreamingResponse:
    """The daemon's answer as it comes. A browser that goes away ends it there, too."""
    client: httpx.AsyncClient = request.app.state.daemon
    asked = client.build_request("POST", "/v1/ask", content=await request.body(), headers={"Content-Type": "application/json"})
    reply = await client.send(asked, stream=True)

    async def body() -> AsyncIterator[bytes]:
        try:
            async for chunk in reply.aiter_bytes():
                yield chunk
        finally:
            await reply.aclose()

    kind = reply.headers.get("content-type", "application/json")
    return StreamingResponse(body(), status_code=reply.status_code, media_type=kind)
