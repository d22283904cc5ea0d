"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
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

from rerank_plugins._adapters import Found, blank, own_stages
from rerank_plugins._validation import check_count, check_flag
from rerank_plugins.candidates import Candidate
from rerank_plugins.collection import Collection
from rerank_plugins.collection.records import newest
from rerank_plugins.errors import IndexDamagedError
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.first_stage.dense import Dense
from rerank_plugins.first_stage.fusion import (
    SETTINGS,
    SHIPPED_WEIGHTS,
    Fusion,
    Hybrid,
    HybridCandidate,
)
from rerank_plugins.langchain._collected import Collected
from rerank_plugins.langchain._documents import (
    candidates_of,
    records_of,
    retrieved,
    unstamped,
)
from rerank_plugins.langchain._handing import check_fields, check_stage, found_by, handed
from rerank_plugins.langchain.bm25 import BM25Retriever
from rerank_plugins.langchain.embeddings import BundledEmbeddings
from rerank_plugins.langchain.faiss import FaissVectorStore
from rerank_plugins.langchain.faiss_retriever import FaissRetriever


class HybridRetriever(Collected, BaseRetriever):
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
        *,
        retrievers: Sequence[RetrieverLike],
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

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        embedding: Embeddings | None = None,
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        **options: Any,
    ) -> Self:
        """Reads a retriever that `save` wrote.

        Args:
            path: The folder.
            embedding: As in `FaissVectorStore.load`.
            analyzer: As in `BM25Retriever.load`.
            **options: ``filter``, as in `BM25Retriever.load`, for every retriever; and as in the
                class, in place of the stored ones.

        Raises:
            IndexNotFoundError: If there is no index.
            IndexDamagedError: If a file is missing or altered.
            IndexVersionError: If another version of this library wrote it.
            IndexMismatchError: If ``embedding`` or ``analyzer`` is not what made the index, a
                function is missing, or the index is of another kind.
        """
        embedding = BundledEmbeddings() if embedding is None else embedding
        return cls._load(path, embedding, analyzer, options | {"embedding": embedding})

    def _collections(self) -> list[Collection]:
        # Embedding is what fails: vectors come last as a rule, and go first here.
        listed = [one for stage in reversed(self._own()) for one in stage._collections()]  # noqa: SLF001
        return list({id(one): one for one in listed}.values())

    def _embedding(self) -> Embeddings | None:
        found = [stage._embedding() for stage in self._own()]  # noqa: SLF001
        embeddings = [one for one in found if one is not None]
        # Vectors of one would be wrong in the collection of another.
        return embeddings[0] if len({id(one) for one in embeddings}) == 1 else None

    def _told(self, collections: list[Collection]) -> dict[str, Any]:
        stages = self._own()
        return {
            "kind": self._KIND,
            "k": self.k,
            "stamp": self.stamp,
            **self._fusion([[] for _ in stages]).settings,
            "retrievers": [stage._told(collections) for stage in stages],  # noqa: SLF001
        }

    @classmethod
    def _made(
        cls, told: Mapping[str, Any], collections: list[Collection], given: Mapping[str, Any]
    ) -> Self:
        own = dict(given)
        shared: dict[str, Any] = {}
        for name in ("embedding", "filter"):
            shared |= {name: own.pop(name)} if name in own else {}
        stages: list[RetrieverLike] = []
        for inner in told["retrievers"]:
            kind = next((one for one in _OWN if inner["kind"] == one._KIND), None)  # noqa: SLF001
            if kind is None:
                raise IndexDamagedError(f"unknown kind of retriever: {inner['kind']!r}")
            stages.append(kind._made(inner, collections, shared))  # noqa: SLF001
        stored = {name: told[name] for name in ("k", "stamp", *SETTINGS)}
        return cls(retrievers=stages, **{**stored, **own})

    def _own(self) -> list[Any]:
        return own_stages(self.retrievers, _OWN)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count = check_count("k", self.k if k is None else k)
        asked = self._asked(count, options)
        if blank(query):
            return []
        found = [
            stage.invoke(query, {"callbacks": run_manager.get_child(f"retriever_{number}")})
            for number, stage in enumerate(asked, start=1)
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
        count = check_count("k", self.k if k is None else k)
        asked = self._asked(count, options)
        if blank(query):
            return []
        found = await asyncio.gather(
            *(
                stage.ainvoke(query, {"callbacks": run_manager.get_child(f"retriever_{number}")})
                for number, stage in enumerate(asked, start=1)
            )
        )
        return self._fused(query, found, count)

    def _asked(self, count: int, options: dict[str, Any]) -> list[RetrieverLike]:
        """The retrievers, over what their collections hold now, with the call's arguments."""
        depth = max(count, self.candidates)
        snapshots: dict[int, Collection] = {}
        return [handed(pinned(one, snapshots), depth, options) for one in self.retrievers]

    def _pinned(self, snapshots: dict[int, Collection]) -> HybridRetriever:
        stages = [pinned(stage, snapshots) for stage in self.retrievers]
        return self.model_copy(update={"retrievers": stages, "stamp": True})

    def _fusion(self, lists: Sequence[list[Candidate]], size: int = 0) -> Hybrid:
        return Hybrid(
            [Found(candidates, size) for candidates in lists],
            weights=self.weights,
            fusion=self.fusion,
            rank_constant=self.rank_constant,
            candidates=self.candidates,
        )

    def _fused(self, query: str, found: Sequence[object], count: int) -> list[Document]:
        lists = [
            found_by(stage, documents)
            for stage, documents in zip(self.retrievers, found, strict=True)
        ]
        by_id = all(document.id for documents in lists for document in documents)
        unique = [_unique(documents, by_id=by_id) for documents in lists]
        keys: dict[Hashable, int] = {}
        documents: list[Document] = []
        for stage in unique:
            for identity, document in stage.items():
                if identity not in keys:
                    keys[identity] = len(documents)
                    documents.append(document)
        candidates = [
            [
                Candidate(keys[identity], one.text, one.score, rank)
                for rank, (identity, one) in enumerate(
                    zip(stage, candidates_of(list(stage.values()), query), strict=True), start=1
                )
            ]
            for stage in unique
        ]
        ranked = self._fusion(candidates, len(documents)).search(query, count)
        results = retrieved([(documents[one.key], one.score) for one in ranked], query, "hybrid")
        if not self.stamp:
            return [unstamped(document) for document in results]
        for document, one in zip(results, ranked, strict=True):
            if isinstance(one, HybridCandidate):
                document.metadata["stage_scores"] = list(one.stage_scores)
                document.metadata["stage_ranks"] = list(one.stage_ranks)
        return results


_OWN = (BM25Retriever, FaissRetriever, HybridRetriever)


def pinned(stage: RetrieverLike, snapshots: dict[int, Collection]) -> RetrieverLike:
    """A retriever of ours over what its collection holds now, so that no change comes between.

    Args:
        stage: Any; those of others are returned as they are.
        snapshots: By the id of the collection: retrievers over one collection share one.
    """
    return stage._pinned(snapshots) if isinstance(stage, _OWN) else stage  # noqa: SLF001


def _unique(documents: Iterable[Document], *, by_id: bool) -> dict[Hashable, Document]:
    """The documents by what identifies them, the first of each."""
    unique: dict[Hashable, Document] = {}
    for document in documents:
        identity = (document.id if by_id else None, document.page_content)
        unique.setdefault(identity, document)
    return unique
