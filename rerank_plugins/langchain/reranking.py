"""RerankingRetriever: a first stage and the reranking of what it finds, as one retriever."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.retrievers import LangSmithRetrieverParams, RetrieverLike
from pydantic import SkipValidation

from rerank_plugins._adapters import one_count, split_options
from rerank_plugins._telemetry import span
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain._handing import check_stage, found_by, handed, ls_params
from rerank_plugins.langchain._retrievers import Retriever
from rerank_plugins.langchain.compressor import CrossEncoderCompressor

_FIELDS = ("name", "tags", "metadata")


class RerankingRetriever(Retriever):
    """Fetches candidates from any retriever and returns the best after reranking.

    A blank query finds nothing. ::

        retriever = RerankingRetriever(first_stage=BM25Retriever.from_documents(documents), k=3)
        retriever.invoke("متى يفتح المتحف؟")
        retriever.invoke("متى يفتح المتحف؟", k=1, filter={"language": "ar"})

    Args:
        first_stage: Any retriever or runnable. Retrievers that take a ``k``, also inside other
            runnables, are asked for ``candidates``; others bring as many as they do.
        k: How many documents to return (default 4); ``invoke(query, k=...)`` for one call. Other
            arguments of a call, such as ``filter``, go to what searches in ``first_stage``; where
            it cannot be found or does not take them, that is an error.
        top_n: The same as ``k``, by the rerankers' word for it.
        candidates: How many to fetch and rerank, never fewer than ``k``; what a first stage
            brings beyond them is cut off. None for the first stage's own number.
        compressor: A ready-made compressor, instead of the options below.
        **options: Any `CrossEncoderCompressor` option: ``reranker``, ``model``,
            ``score_threshold``, ``metadata_fields`` ...; and ``name``, ``tags`` and
            ``metadata`` of any retriever.

    Raises:
        InvalidInputError: If an option is invalid.
        UnknownModelError: If no model has that name.
    """

    first_stage: RetrieverLike
    compressor: CrossEncoderCompressor
    candidates: SkipValidation[int | None]

    def __init__(
        self,
        first_stage: RetrieverLike,
        *,
        k: int | None = None,
        top_n: int | None = None,
        candidates: int | None = 50,
        compressor: CrossEncoderCompressor | None = None,
        **options: Any,
    ) -> None:
        ready = None if compressor is None else "compressor"
        fields = split_options(
            type(self), CrossEncoderCompressor, options, fields=_FIELDS, ready=ready
        )
        check_stage("first_stage", first_stage)
        if not isinstance(compressor, (CrossEncoderCompressor, type(None))):
            raise InvalidInputError(
                f"compressor must be a CrossEncoderCompressor, but got {type(compressor).__name__}"
            )
        own = {
            "first_stage": first_stage,
            "compressor": CrossEncoderCompressor(**options) if compressor is None else compressor,
            "k": one_count("k", k, top_n, 4),
            "candidates": None if candidates is None else check_count("candidates", candidates),
        }
        super().__init__(**(fields | own))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        return ls_params(super()._get_ls_params(**kwargs), self.first_stage)

    def _plan(self, count: int, options: dict[str, Any]) -> RetrieverLike:
        return handed(self.first_stage, self._depth(count), options)

    def _find(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:
        with span("first_stage", engine=type(self.first_stage).__name__) as seen:
            found = self._cut(plan.invoke(query, {"callbacks": runs.get_child()}), count)
            seen.set(candidates=len(found))
        return self.compressor.compress_documents(found, query, runs.get_child(), top_n=count)

    async def _afind(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:
        with span("first_stage", engine=type(self.first_stage).__name__) as seen:
            given = await plan.ainvoke(query, {"callbacks": runs.get_child()})
            found = self._cut(given, count)
            seen.set(candidates=len(found))
        child = runs.get_child()
        return await self.compressor.acompress_documents(found, query, child, top_n=count)

    def _depth(self, keep: int) -> int | None:
        return None if self.candidates is None else max(keep, self.candidates)

    def _cut(self, found: object, keep: int) -> list[Document]:
        return found_by(self.first_stage, found)[: self._depth(keep)]
