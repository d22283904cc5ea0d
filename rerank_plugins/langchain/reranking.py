"""RerankingRetriever: a first stage and the reranking of what it finds, as one retriever."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
from pydantic import ConfigDict, SkipValidation

from rerank_plugins._adapters import blank, one_count
from rerank_plugins._names import check_options, own_options
from rerank_plugins._telemetry import span
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain._handing import check_stage, found_by, handed, ls_params
from rerank_plugins.langchain.compressor import CrossEncoderCompressor
from rerank_plugins.models.loading import ModelOptions

_FIELDS = ("name", "tags", "metadata")


class RerankingRetriever(BaseRetriever):
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

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    first_stage: RetrieverLike
    compressor: CrossEncoderCompressor
    k: SkipValidation[int]
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
        known = {*own_options(type(self)), *own_options(CrossEncoderCompressor), *_FIELDS}
        check_options(type(self).__name__, options, known | ModelOptions.__annotations__.keys())
        fields = {name: options.pop(name) for name in _FIELDS if name in options}
        if compressor is not None and options:
            raise InvalidInputError(
                f"{', '.join(options)} cannot be given beside a ready compressor: "
                "give them to the compressor"
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

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        keep = self._count(k)
        stage = self._asked(keep, options)
        if blank(query):
            return []
        with span("first_stage", engine=type(self.first_stage).__name__) as seen:
            found = self._cut(stage.invoke(query, {"callbacks": run_manager.get_child()}), keep)
            seen.set(candidates=len(found))
        return self.compressor.compress_documents(found, query, run_manager.get_child(), top_n=keep)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        keep = self._count(k)
        stage = self._asked(keep, options)
        if blank(query):
            return []
        with span("first_stage", engine=type(self.first_stage).__name__) as seen:
            given = await stage.ainvoke(query, {"callbacks": run_manager.get_child()})
            found = self._cut(given, keep)
            seen.set(candidates=len(found))
        return await self.compressor.acompress_documents(
            found, query, run_manager.get_child(), top_n=keep
        )

    def _count(self, k: int | None) -> int:
        return check_count("k", self.k if k is None else k)

    def _depth(self, keep: int) -> int | None:
        return None if self.candidates is None else max(keep, self.candidates)

    def _asked(self, keep: int, options: dict[str, Any]) -> RetrieverLike:
        return handed(self.first_stage, self._depth(keep), options)

    def _cut(self, found: object, keep: int) -> list[Document]:
        return found_by(self.first_stage, found)[: self._depth(keep)]
