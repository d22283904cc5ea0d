"""What this package's retrievers have in common: ``k``, blank queries, both ways of asking."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, SkipValidation

from rerank_plugins._adapters import blank
from rerank_plugins._validation import check_count


class Retriever(BaseRetriever):
    """A retriever of ``k`` documents, which finds nothing for a blank query."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    k: SkipValidation[int]

    def _default_k(self) -> int:
        return self.k

    def _plan(self, count: int, options: dict[str, Any]) -> Any:
        """What the call's arguments come to, checked; also for a blank query."""
        raise NotImplementedError

    def _find(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:
        raise NotImplementedError

    async def _afind(self, query: str, count: int, plan: Any, runs: Any) -> list[Document]:
        raise NotImplementedError

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count = check_count("k", self._default_k() if k is None else k)
        plan = self._plan(count, options)
        return [] if blank(query) else self._find(query, count, plan, run_manager)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count = check_count("k", self._default_k() if k is None else k)
        plan = self._plan(count, options)
        return [] if blank(query) else await self._afind(query, count, plan, run_manager)
