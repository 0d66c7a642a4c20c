"""Enrichment: labels and values for texts, and pipelines."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import Field

from headwater.api.bodies import Body, Engine, Reply, When
from headwater.api.problems import RESPONSES
from headwater.enrich_records import By, ClassifyReply, ExtractReply, Method

router = APIRouter(prefix="/v1", responses=RESPONSES, tags=["enrichment"])
Model = Annotated[str | None, Field(max_length=500)]


class ClassifyBody(Body):
    """What to label, and with what."""

    texts: list[str] | None = Field(None, max_length=10_000)
    topics: list[str] | None = Field(None, max_length=1000)
    labels: list[Any] | dict[str, Any] | None = None
    examples: list[Any] | dict[str, list[str]] | None = None
    q: str = Field("", max_length=4000)
    since: When = None
    until: When = None
    method: Method = "auto"
    model: Model = None
    margin: float = Field(0.2, ge=0, le=1)
    min_confidence: float = Field(0.0, ge=0, le=1)
    about: str = Field("", max_length=4000)
    limit: int = Field(20_000, ge=1, le=200_000)

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class ExtractBody(Body):
    """Where to look, and for what."""

    texts: list[str] = Field(max_length=10_000)
    form: dict[str, Any] = Field(alias="schema")
    by: By = "both"
    patterns: dict[str, str] | None = None
    model: Model = None
    about: str = Field("", max_length=4000)


@router.post("/classify", response_model=ClassifyReply)
async def classify(engine: Engine, body: ClassifyBody) -> Response:
    """The label of each text, or of every record of topics."""
    return Reply(await engine.classify(**body.arguments()))


@router.post("/extract", response_model=ExtractReply)
async def extract(engine: Engine, body: ExtractBody) -> Response:
    """What each text holds of a JSON schema."""
    found = await engine.extract(
        body.texts, schema=body.form, by=body.by, patterns=body.patterns, model=body.model, about=body.about
    )
    return Reply(found)
