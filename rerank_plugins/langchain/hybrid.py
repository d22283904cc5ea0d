"""HybridRetriever: several retrievers as one, by the scores that they give."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, ClassVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import RetrieverLike
from langchain_core.runnables import Runnable
from pydantic import SkipValidation
from typing_extensions import Self

from rerank_plugins._stamps import believed
from rerank_plugins._validation import check_count, check_flag, check_not_one
from rerank_plugins.candidates import Candidate
from rerank_plugins.collection import Collection
from rerank_plugins.collection.hybrids import Fused, Shared
from rerank_plugins.collection.stages import words_and_vectors
from rerank_plugins.first_stage.fusion import SHIPPED_WEIGHTS, Fusion, HybridCandidate
from rerank_plugins.langchain._documents import (
    documents_of,
    read_filter,
    records_of,
    retrieved,
    unstamped,
)
from rerank_plugins.langchain._handing import check_stage, found_by, handed
from rerank_plugins.langchain._retrievers import Collected, Retriever, check_fields
from rerank_plugins.langchain.bm25 import BM25Retriever
from rerank_plugins.langchain.embeddings import checked_embedding
from rerank_plugins.langchain.faiss import FaissRetriever, FaissVectorStore

Asked = Shared | list[RetrieverLike]


class HybridRetriever(Fused, Collected, Retriever):
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
    _SETTINGS: ClassVar[tuple[str, ...]] = ("k", "stamp")
    _HANDED: ClassVar[tuple[str, ...]] = ("embedding", "filter")

    retrievers: list[RetrieverLike]
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
        check_not_one("retrievers", retrievers, Runnable)
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
        embedding = checked_embedding(embedding)
        collection = Collection(
            *words_and_vectors(records_of(documents), embedding, language=language, engine=engine)
        )
        words = BM25Retriever(collection=collection)
        vectors = FaissVectorStore(embedding, collection=collection).as_retriever()
        return cls(retrievers=[words, vectors], **options)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings | None = None,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Iterable[str] | None = None,
        **options: Any,
    ) -> Self:
        """The same over documents made of these texts; ``options`` as in `from_documents`.

        Raises:
            InvalidInputError: If there are more or fewer metadatas or ids than texts.
        """
        return cls.from_documents(documents_of(texts, metadatas, ids), embedding, **options)

    def _plan(self, count: int, options: dict[str, Any]) -> Asked:
        """The view that all retrievers share; else they themselves, set up for the call."""
        given = options.get("filter")
        if options.keys() <= {"filter"}:
            shared = self._shared(lambda own: read_filter(own if given is None else given))
            if shared is not None:
                return shared
        depth = max(count, self.candidates)
        return [handed(stamping(one), depth, options) for one in self.retrievers]

    def _find(self, query: str, count: int, plan: Asked, runs: Any) -> list[Document]:
        def ask(number: int, stage: RetrieverLike) -> Any:
            return stage.invoke(query, {"callbacks": runs.get_child(f"retriever_{number}")})

        return self._results(self._search(plan, query, count, ask), query)

    async def _afind(self, query: str, count: int, plan: Asked, runs: Any) -> list[Document]:
        def ask(number: int, stage: RetrieverLike) -> Any:
            return stage.ainvoke(query, {"callbacks": runs.get_child(f"retriever_{number}")})

        return self._results(await self._asearch(plan, query, count, ask), query)

    def _results(self, found: Sequence[tuple[Document, Candidate]], query: str) -> list[Document]:
        """Copies of what was fused, with what each stage thought of it."""
        fused = [(document, one.score) for document, one in found]
        documents = retrieved(fused, query, "hybrid", stamp=self.stamp)
        for document, (_, one) in zip(documents, found, strict=True):
            if self.stamp and isinstance(one, HybridCandidate):
                document.metadata["stage_scores"] = list(one.stage_scores)
                document.metadata["stage_ranks"] = list(one.stage_ranks)
        return documents

    def _fused(self, found: Sequence[Any], query: str, k: int) -> list[tuple[Document, Candidate]]:
        lists = list(map(found_by, self.retrievers, found))
        by_id = all(document.id for documents in lists for document in documents)
        known: list[dict[Hashable, tuple[Document, float | None]]] = []
        for documents in lists:
            unique: dict[Hashable, Document] = {}
            for one in documents:
                unique.setdefault((one.id if by_id else None, one.page_content), one)
            scores = believed([one.metadata for one in unique.values()], query)
            pairs = zip(unique.items(), scores, strict=True)
            known.append({key: (document, score) for (key, document), (score, _) in pairs})
        fused = self._fused_lists(known, query, k)
        return [(unstamped(document), one) for document, one in fused]


HybridRetriever._KINDS = (BM25Retriever, FaissRetriever, HybridRetriever)  # noqa: SLF001


def stamping(stage: RetrieverLike) -> RetrieverLike:
    """The retriever, with its scores in what it finds; those of others are as they are."""
    if isinstance(stage, (BM25Retriever, FaissRetriever, HybridRetriever)):
        return stage.model_copy(update={"stamp": True})
    return stage
