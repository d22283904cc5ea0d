"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever, RetrieverLike
from pydantic import ConfigDict, SkipValidation
from typing_extensions import Self

from rerank_plugins._adapters import blank
from rerank_plugins._validation import check_count, check_flag
from rerank_plugins.candidates import Candidate
from rerank_plugins.collection import Collection, Filter, Record, View
from rerank_plugins.collection.hybrids import Fused
from rerank_plugins.collection.records import newest
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense
from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Fusion, HybridCandidate
from rerank_plugins.langchain._collected import Collected, results
from rerank_plugins.langchain._documents import (
    candidates_of,
    copied,
    read_filter,
    records_of,
    unstamped,
)
from rerank_plugins.langchain._handing import check_fields, check_stage, found_by, handed
from rerank_plugins.langchain.bm25 import BM25Retriever
from rerank_plugins.langchain.embeddings import BundledEmbeddings
from rerank_plugins.langchain.faiss import FaissVectorStore
from rerank_plugins.langchain.faiss_retriever import FaissRetriever


class HybridRetriever(Fused, Collected, BaseRetriever):
    """Fuses retrievers by their scores, brought to one scale, or by reciprocal ranks.

    ::

        retriever = HybridRetriever.from_documents(documents, k=10)
        retriever = HybridRetriever(retrievers=[bm25, store.as_retriever(), any_other])

    What comes back are copies with ``retrieval_score`` (the fused one), ``retrieval_rank``,
    ``retrieval_method`` and ``retrieval_list`` in their metadata, and with what each retriever
    thought, in the order of ``retrievers``: ``stage_scores``, None where a retriever gave no
    score, and ``stage_ranks``, None where it did not find the document.

    Two retrievers found the same document when id and text are the same, or the text alone
    where some document has no id. What one retriever brings twice counts once. A blank query
    finds nothing.

    Args:
        retrievers: Any; those that take a ``k`` are asked for ``candidates``.
        k: How many to return; ``invoke(query, k=...)`` for one call. Other arguments of a
            call, such as ``filter``, go to every retriever; one that does not take it is an
            error.
        weights: One positive weight per retriever; None for equal weights.
        fusion: By ``scores`` (a retriever that gives none counts by its ranks) or ``ranks``; see
            `rerank_plugins.first_stage.Hybrid`.
        rank_constant: Of reciprocal ranks, at least 0; the smaller, the more the first ranks count.
        candidates: How many to fetch from each, never fewer than ``k``.
        stamp: Whether to write those metadata; see `BM25Retriever`.
        **fields: ``name``, ``tags`` and ``metadata`` of any retriever.

    Raises:
        InvalidInputError: If an option is invalid.
    """

    _KIND: ClassVar[str] = "langchain.HybridRetriever"
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    retrievers: list[RetrieverLike]
    k: SkipValidation[int]
    weights: SkipValidation[Sequence[float] | None]
    fusion: SkipValidation[Fusion]
    rank_constant: SkipValidation[float]
    candidates: SkipValidation[int]
    stamp: SkipValidation[bool]

    def __init__(
        self,
        retrievers: Sequence[RetrieverLike],
        *,
        k: int = 4,
        weights: Sequence[float] | None = None,
        fusion: Fusion = "scores",
        rank_constant: float = 60.0,
        candidates: int = 100,
        stamp: bool = True,
        **fields: Any,
    ) -> None:
        check_fields(type(self), fields)
        for number, retriever in enumerate(retrievers):
            check_stage(f"retriever number {number}", retriever)
        own = {
            "retrievers": list(retrievers),
            "k": check_count("k", k),
            "weights": weights,
            "fusion": fusion,
            "rank_constant": rank_constant,
            "candidates": candidates,
            "stamp": check_flag("stamp", stamp),
        }
        super().__init__(**(fields | own))
        self._fusion([[] for _ in retrievers])  # its rules, now

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[Document],
        embedding: Embeddings | None = None,
        *,
        language: str = "auto",
        engine: str = "auto",
        **options: Any,
    ) -> Self:
        """BM25 and FAISS over one collection of documents; those without an id get one.

        Args:
            documents: What can be found; an iterator is read once.
            embedding: Any LangChain embeddings; None for the bundled ones.
            language: As in `BM25Retriever`.
            engine: As in `BM25Retriever`.
            **options: As in the class; ``weights`` default to those measured best for the bundled
                embeddings, or equal ones for others.
        """
        if embedding is None:
            options.setdefault("weights", SHIPPED_WEIGHTS)
        embedding = BundledEmbeddings() if embedding is None else embedding
        records = newest(records_of(documents))
        texts = [record.text for record in records]
        stages = [BM25(texts, language=language, engine=engine), Dense(texts, embed=embedding)]
        collection = Collection(stages, records)
        words = BM25Retriever(collection=collection)
        vectors = FaissVectorStore(embedding, collection=collection).as_retriever()
        return cls(retrievers=[words, vectors], **options)

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        own = {"kind": self._KIND, "k": self.k, "stamp": self.stamp}
        return own | self._told_inside(collections)

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        inside = {name: one for name, one in given.items() if name in ("embedding", "filter")}
        own = {name: one for name, one in given.items() if name not in inside}
        stages, settings = cls._made_inside(told, collections, inside)
        stored = {**settings, "k": told["k"], "stamp": told["stamp"]}
        return cls(retrievers=stages, **{**stored, **own})

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count, shared = check_count("k", self.k if k is None else k), self._searched(options)
        if blank(query):
            return []
        if shared is not None:
            view, stages, kept = shared
            return self._results(view.fused(self._hybrid, query, count, kept, stages=stages), query)
        found = [
            stage.invoke(query, {"callbacks": run_manager.get_child(f"retriever_{number}")})
            for number, stage in enumerate(self._asked(count, options), start=1)
        ]
        return self._fused(query, found, count)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count, shared = check_count("k", self.k if k is None else k), self._searched(options)
        if blank(query):
            return []
        if shared is not None:
            view, stages, kept = shared
            found = await view.afused(self._hybrid, query, count, kept, stages=stages)
            return self._results(found, query)
        lists = await asyncio.gather(
            *(
                stage.ainvoke(query, {"callbacks": run_manager.get_child(f"retriever_{number}")})
                for number, stage in enumerate(self._asked(count, options), start=1)
            )
        )
        return self._fused(query, lists, count)

    def _searched(self, options: Mapping[str, Any]) -> tuple[View, list[int], Filter | None] | None:
        """The view that all retrievers share, their stages and the filter; None if none is."""
        shared = self._shared() if options.keys() <= {"filter"} else None
        if shared is None:
            return None
        collection, stages, own = shared
        given = options.get("filter")
        return collection.view, stages, read_filter(own if given is None else given)

    def _asked(self, count: int, options: dict[str, Any]) -> list[RetrieverLike]:
        """The retrievers with the call's arguments; they stamp what they find."""
        depth = max(count, self.candidates)
        return [handed(stamping(one), depth, options) for one in self.retrievers]

    def _results(self, found: Sequence[tuple[Record, Candidate]], query: str) -> list[Document]:
        """Copies of what was fused, with what each stage thought of it."""
        listed = [(record.item, one.score or 0.0) for record, one in found]
        documents = results(listed, query, "hybrid", stamp=self.stamp)
        for document, (_, one) in zip(documents, found, strict=True):
            if self.stamp and isinstance(one, HybridCandidate):
                document.metadata["stage_scores"] = list(one.stage_scores)
                document.metadata["stage_ranks"] = list(one.stage_ranks)
        return documents

    def _fused(self, query: str, found: Sequence[object], count: int) -> list[Document]:
        lists = [
            found_by(stage, documents)
            for stage, documents in zip(self.retrievers, found, strict=True)
        ]
        by_id = all(document.id for documents in lists for document in documents)
        unique = [_unique(documents, by_id=by_id) for documents in lists]
        first: dict[Hashable, Document] = {}
        for stage in reversed(unique):
            first |= stage
        keys = {identity: key for key, identity in enumerate(_order(unique))}
        candidates = [
            [
                Candidate(keys[identity], one.text, one.score, rank)
                for rank, (identity, one) in enumerate(
                    zip(stage, candidates_of(list(stage.values()), query), strict=True), start=1
                )
            ]
            for stage in unique
        ]
        plain = [_bare(first[identity]) for identity in keys]
        ranked = self._fusion(candidates, len(keys)).search(query, count)
        return self._results([(plain[one.key], one) for one in ranked], query)


HybridRetriever._KINDS = (BM25Retriever, FaissRetriever, HybridRetriever)  # noqa: SLF001


def stamping(stage: RetrieverLike) -> RetrieverLike:
    """The retriever, with its scores in what it finds; those of others are as they are."""
    if isinstance(stage, (BM25Retriever, FaissRetriever, HybridRetriever)):
        return stage.model_copy(update={"stamp": True})
    return stage


def _order(lists: Sequence[Mapping[Hashable, Document]]) -> list[Hashable]:
    """What identifies the documents of all lists, in the order in which they are first met."""
    return list(dict.fromkeys(identity for stage in lists for identity in stage))


def _bare(document: Document) -> Record:
    """The document without the stamps of the retriever that found it."""
    kept = unstamped(copied(document))
    return Record(kept.id, kept.page_content, kept.metadata, kept)


def _unique(documents: Iterable[Document], *, by_id: bool) -> dict[Hashable, Document]:
    """The documents by what identifies them, the first of each."""
    unique: dict[Hashable, Document] = {}
    for document in documents:
        identity = (document.id if by_id else None, document.page_content)
        unique.setdefault(identity, document)
    return unique
