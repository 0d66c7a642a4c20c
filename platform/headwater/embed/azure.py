"""`azure:DEPLOYMENT`: a deployment of an embedding model in Azure OpenAI. Keys only; Entra ID tokens are not supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from headwater.embed.embedder import Kind
from headwater.embed.openai import OpenAIEmbedder
from headwater.embed.remote import Request

API_VERSION = "2024-10-21"  # the last stable one of the dated API; an endpoint that ends in /openai/v1 needs none


class AzureEmbedder(OpenAIEmbedder):
    """The wire format of OpenAI under Azure's addresses: `base_url` is `https://RESOURCE.openai.azure.com`, or the same with
    `/openai/v1`. The key goes in `api-key`; `retry-after-ms` is honoured."""

    provider = "azure"
    default_url = ""
    example_url = "https://RESOURCE.openai.azure.com"
    hosts = ("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com")
    variables = ("AZURE_OPENAI_API_KEY",)

    def _endpoint(self, base_url: str | None) -> str:
        return super()._endpoint(base_url).rstrip("/").removesuffix("/openai")

    def request(self, texts: Sequence[str], kind: Kind) -> Request:
        body = self.body(texts)
        if self.url.endswith("/openai/v1"):
            return Request("/embeddings", body)
        del body["model"]  # the deployment in the path says it
        return Request(f"/openai/deployments/{quote(self.model, safe='')}/embeddings?api-version={API_VERSION}", body)

    def authorization(self, key: str) -> Mapping[str, str]:
        return {"api-key": key}
