"""RerankingRetriever: a first stage and the reranking of what it finds, as one retriever."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from rerank_plugins._adapters import one_count, split_options
from rerank_plugins._telemetry import span
from rerank_plugins._validation import check_count
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.llama_index._retrievers import FilteringRetriever, asked
from rerank_plugins.llama_index.postprocessor import CrossEncoderPostprocessor

_FIELDS = ("callback_manager", "object_map", "objects", "verbose")


class RerankingRetriever(FilteringRetriever):
    """Fetches candidates from any retriever and returns the best after reranking.

    ::

        retriever = RerankingRetriever(BM25Retriever(nodes), similarity_top_k=3)
        retriever.retrieve("متى يفتح المتحف؟")

    Args:
        first_stage: Any retriever. One that has a ``similarity_top_k`` is asked for
            ``candidates``, without a change to itself. A blank query finds nothing.
        similarity_top_k: How many nodes to return (default 2).
        top_n: The same, by the rerankers' word for it.
        candidates: How many to fetch and rerank, never fewer than ``similarity_top_k``; what the
            first stage brings beyond them is cut off. None for the first stage's own number.
        postprocessor: A ready-made postprocessor, instead of the options below.
        filters: What a node must pass, beside the first stage's own filters; a first stage that
            cannot be given filters is an error then.
        **options: Any `CrossEncoderPostprocessor` option: ``reranker``, ``model``,
            ``score_threshold``, ``details`` ...; and ``callback_manager``, ``object_map``,
            ``objects`` and ``verbose`` of any retriever.

    Raises:
        InvalidInputError: If an option is invalid.
        UnknownModelError: If no model has that name.
    """

    def __init__(
        self,
        first_stage: BaseRetriever,
        *,
        similarity_top_k: int | None = None,
        top_n: int | None = None,
        candidates: int | None = 50,
        postprocessor: CrossEncoderPostprocessor | None = None,
        filters: MetadataFilters | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(first_stage, BaseRetriever):
            raise InvalidInputError(
                f"first_stage must be a retriever, but got {type(first_stage).__name__}"
            )
        ready = None if postprocessor is None else "postprocessor"
        fields = split_options(
            type(self), CrossEncoderPostprocessor, options, fields=_FIELDS, ready=ready
        )
        self.first_stage = first_stage
        self.postprocessor = postprocessor or CrossEncoderPostprocessor(**options)
        self.similarity_top_k = one_count(
            "similarity_top_k", similarity_top_k, top_n, DEFAULT_SIMILARITY_TOP_K
        )
        self.candidates = None if candidates is None else check_count("candidates", candidates)
        self.filters = filters
        self._asked()
        super().__init__(**fields)

    def _plan(self, bundle: QueryBundle) -> BaseRetriever:  # noqa: ARG002
        return self._asked()

    def _find(self, bundle: QueryBundle, plan: BaseRetriever) -> list[NodeWithScore]:
        with span("first_stage", engine=type(self.first_stage).__name__) as seen:
            found = plan.retrieve(bundle)[: self._depth()]
            seen.set(candidates=len(found))
        return self._last().postprocess_nodes(found, bundle)

    async def _afind(self, bundle: QueryBundle, plan: BaseRetriever) -> list[NodeWithScore]:
        with span("first_stage", engine=type(self.first_stage).__name__) as seen:
            found = (await plan.aretrieve(bundle))[: self._depth()]
            seen.set(candidates=len(found))
        return await self._last().apostprocess_nodes(found, bundle)

    def __repr__(self) -> str:
        return (
            f"RerankingRetriever({type(self.first_stage).__name__}, {self.postprocessor!r}, "
            f"similarity_top_k={self.similarity_top_k})"
        )

    def _depth(self) -> int | None:
        return None if self.candidates is None else max(self.similarity_top_k, self.candidates)

    def _asked(self) -> BaseRetriever:
        return asked(self.first_stage, self._depth(), self.filters)

    def _last(self) -> CrossEncoderPostprocessor:
        update: dict[str, Any] = {
            "top_n": self.similarity_top_k,
            "callback_manager": self.callback_manager,
        }
        return self.postprocessor.model_copy(update=update)
