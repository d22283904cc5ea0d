"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
from pydantic import ConfigDict, SkipValidation
from typing_extensions import Self

from rerank_plugins._adapters import Found, own_stages
from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import IndexDamagedError
from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.fusion import (
    SETTINGS,
    SHIPPED_WEIGHTS,
    Fusion,
    Hybrid,
    HybridCandidate,
)
from rerank_plugins.langchain._documents import (
    MetadataFilter,
    candidates_of,
    check_documents,
    retrieved,
    with_metadata,
)
from rerank_plugins.langchain._stages import ask, check_fields, check_stage, ls_params, options_for
from rerank_plugins.langchain._stored import named
from rerank_plugins.langchain.bm25 import BM25Retriever
from rerank_plugins.langchain.faiss import FaissVectorStore
from rerank_plugins.langchain.faiss_retriever import FaissRetriever


class HybridRetriever(BaseRetriever):
    """Fuses retrievers by their scores, brought to one scale, or by reciprocal ranks.

    ::

        retriever = HybridRetriever.from_documents(documents, k=10)
        retriever = HybridRetriever(retrievers=[bm25, store.as_retriever(), any_other])

    What comes back are copies with ``retrieval_score`` (the fused one), ``retrieval_rank`` and
    ``retrieval_method`` in their metadata, and with what each retriever thought, in the order
    of ``retrievers``: ``stage_scores``, None where a retriever gave no score, and
    ``stage_ranks``, None where it did not find the document.

    Two retrievers found the same document when id and text are the same, or the text alone
    where some document has no id. What one retriever brings twice counts once.

    Args:
        retrievers: Any; those that take a ``k`` are asked for ``candidates``.
        k: How many to return; ``invoke(query, k=...)`` for one call. Other arguments of a
            call, such as ``filter``, go to every retriever; one that does not take it is an
            error.
        weights: One a retriever, above 0; None for all equal.
        fusion: By ``scores`` (a retriever that gives none counts by its ranks) or ``ranks``; see
            `rerank_plugins.first_stage.Hybrid`.
        rank_constant: Of reciprocal ranks, at least 0; the smaller, the more the first ranks count.
        candidates: How many to fetch from each, never fewer than ``k``.
        **fields: ``name``, ``tags`` and ``metadata`` of any retriever.

    Raises:
        InvalidInputError: An option breaks its rule.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    retrievers: list[RetrieverLike]
    k: SkipValidation[int]
    weights: SkipValidation[Sequence[float] | None]
    fusion: SkipValidation[Fusion]
    rank_constant: SkipValidation[float]
    candidates: SkipValidation[int]

    def __init__(
        self,
        *,
        retrievers: Sequence[RetrieverLike],
        k: int = 4,
        weights: Sequence[float] | None = None,
        fusion: Fusion = "scores",
        rank_constant: float = 60.0,
        candidates: int = 100,
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
        engine: str = "rank-bm25",
        **options: Any,
    ) -> Self:
        """BM25 and FAISS over the same documents; those without an id get one.

        Args:
            documents: What can be found; an iterator is read once.
            embedding: Any LangChain embeddings; None for those that ship.
            language: As of `BM25Retriever`.
            engine: As of `BM25Retriever`.
            **options: As of the class; ``weights`` are those measured best for the embeddings that
                ship, or equal for others.
        """
        if embedding is None:
            options.setdefault("weights", SHIPPED_WEIGHTS)
        known = [
            document if document.id else document.model_copy(update={"id": str(uuid.uuid4())})
            for document in check_documents(documents)
        ]
        words = BM25Retriever.from_documents(known, language=language, engine=engine)
        vectors = FaissVectorStore.from_documents(known, embedding).as_retriever()
        return cls(retrievers=[words, vectors], **options)

    def add_documents(
        self, documents: Iterable[Document], *, ids: Iterable[str | None] | None = None
    ) -> list[str]:
        """Adds documents to every retriever, one after another; as of `BM25Retriever`."""
        final, newest = named(documents, ids)
        # Embedding is what fails: vectors come last as a rule, and go first here.
        for stage in reversed(self._own_stages()):
            stage.add_documents(list(newest.values()))
        return final

    def delete(self, ids: Iterable[str]) -> None:
        """Makes documents unfindable in every retriever; unknown ids are passed over."""
        listed = list(ids)
        for stage in self._own_stages():
            stage.delete(listed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all retrievers to a folder, in place of the index that may be there.

        Whatever interrupts it, the folder holds the old index whole or the new one whole.

        Args:
            path: The folder; it may hold nothing but an index.

        Raises:
            IndexWriteError: It cannot be written.
            InvalidInputError: A retriever is not one of this package, or a document's metadata
                are no JSON.
        """
        storage.save(path, "langchain.HybridRetriever", self.store)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        embedding: Embeddings | None = None,
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        filter: MetadataFilter | None = None,  # noqa: A002  (LangChain's word)
        **options: Any,
    ) -> Self:
        """Reads a retriever that `save` wrote.

        Args:
            path: The folder.
            embedding: As of `FaissVectorStore.load`.
            analyzer: As of `BM25Retriever.load`.
            filter: As of `BM25Retriever.load`, for every retriever.
            **options: As of the class, in place of the stored ones.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: A newer version of this library wrote it.
            IndexMismatchError: ``embedding`` or ``analyzer`` is not what made the index, a
                function is missing, or the index is of another kind.
        """
        found = storage.load(
            path,
            "langchain.HybridRetriever",
            lambda part: cls.restore(part, embedding, analyzer, filter, **options),
        )
        found.check()
        return found

    def store(self, out: storage.Writer) -> None:
        """Gives retrievers and settings to a writer."""
        stages = self._own_stages()
        out.settings |= {
            "k": self.k,
            **self._fusion([[] for _ in stages]).settings,
            "retrievers": [type(stage).__name__ for stage in stages],
        }
        for number, stage in enumerate(stages):
            stage.store(out.part(f"retriever{number}"))

    @classmethod
    def restore(
        cls,
        part: storage.Reader,
        embedding: Embeddings | None = None,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        keep: MetadataFilter | None = None,
        **options: Any,
    ) -> Self:
        """The retriever that `store` gave; call `check` before it is used."""
        told = part.settings
        stages: list[RetrieverLike] = []
        for number, name in enumerate(told["retrievers"]):
            inner = part.part(f"retriever{number}")
            if name == "BM25Retriever":
                stages.append(BM25Retriever.restore(inner, analyzer=analyzer, filter=keep))
            elif name == "FaissRetriever":
                stages.append(FaissRetriever.restore(inner, embedding, keep))
            elif name == "HybridRetriever":
                stages.append(cls.restore(inner, embedding, analyzer, keep))
            else:
                raise IndexDamagedError(f"there is no retriever {name!r}")
        stored = {name: told[name] for name in ("k", *SETTINGS)}
        return cls(retrievers=stages, **{**stored, **options})

    def check(self) -> None:
        """Checks that what embeds and analyses in a restored retriever is what it was.

        Raises:
            IndexMismatchError: It is not.
        """
        for stage in self._own_stages():
            stage.check()

    def _own_stages(self) -> list[BM25Retriever | FaissRetriever | HybridRetriever]:
        return own_stages(self.retrievers, (BM25Retriever, FaissRetriever, HybridRetriever))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        return ls_params(super()._get_ls_params(**kwargs), self.retrievers)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        count = check_count("k", self.k if k is None else k)
        found = [
            stage.invoke(query, {"callbacks": run_manager.get_child(f"retriever_{number}")}, **more)
            for number, (stage, more) in enumerate(self._asked(count, options), start=1)
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
        found = await asyncio.gather(
            *(
                ask(stage, query, run_manager, more, f"retriever_{number}")
                for number, (stage, more) in enumerate(self._asked(count, options), start=1)
            )
        )
        return self._fused(query, found, count)

    def _asked(
        self, count: int, options: dict[str, Any]
    ) -> list[tuple[RetrieverLike, dict[str, Any]]]:
        """The retrievers, each with the arguments of its call."""
        depth = max(count, self.candidates)
        return [(stage, options_for(stage, depth, options)) for stage in self.retrievers]

    def _fusion(self, lists: Sequence[list[Candidate]], size: int = 0) -> Hybrid:
        return Hybrid(
            [Found(candidates, size) for candidates in lists],
            weights=self.weights,
            fusion=self.fusion,
            rank_constant=self.rank_constant,
            candidates=self.candidates,
        )

    def _fused(self, query: str, found: Sequence[list[Document]], count: int) -> list[Document]:
        by_id = all(document.id for documents in found for document in documents)
        unique = [_unique(documents, by_id=by_id) for documents in found]
        keys: dict[Hashable, int] = {}
        documents: list[Document] = []
        for stage in unique:
            for identity, document in stage.items():
                if identity not in keys:
                    keys[identity] = len(documents)
                    documents.append(document)
        lists = [
            [
                Candidate(keys[identity], one.text, one.score, rank)
                for rank, (identity, one) in enumerate(
                    zip(stage, candidates_of(list(stage.values())), strict=True), start=1
                )
            ]
            for stage in unique
        ]
        ranked = self._fusion(lists, len(documents)).search(query, count)
        return [
            with_metadata(document, _stages(one))
            for document, one in zip(retrieved(documents, ranked, "hybrid"), ranked, strict=True)
        ]


def _unique(documents: Iterable[Document], *, by_id: bool) -> dict[Hashable, Document]:
    """The documents by what identifies them, the first of each."""
    unique: dict[Hashable, Document] = {}
    for document in documents:
        identity = (document.id if by_id else None, document.page_content)
        unique.setdefault(identity, document)
    return unique


def _stages(fused: Candidate) -> dict[str, Any]:
    if not isinstance(fused, HybridCandidate):
        return {}
    return {"stage_scores": list(fused.stage_scores), "stage_ranks": list(fused.stage_ranks)}
