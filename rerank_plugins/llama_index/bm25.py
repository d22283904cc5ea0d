"""BM25Retriever: the first stage that goes by words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.storage.docstore import BaseDocumentStore
from typing_extensions import Self

from rerank_plugins.first_stage import storage
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.llama_index._stages import StageRetriever, nodes_of, restored_options, texts_of


class BM25Retriever(StageRetriever):
    """Finds nodes that share words with the query, each language read by its own rules.

    What comes back are copies with their BM25 score. A node that shares no word never comes
    back, so there may be fewer than ``similarity_top_k``::

        retriever = BM25Retriever(nodes, similarity_top_k=10)
        retriever.retrieve("متى يفتح المتحف؟")

    Args:
        nodes: What can be found; an iterator is read once.
        docstore: Where the nodes are, in place of ``nodes``.
        index: Whose docstore has the nodes, in place of ``nodes``.
        metadata_mode: Which metadata is searched with the text.
        language: ``auto``, ``ar``, ``fr``, ``pl``, ``en`` or ``neutral``.
        engine: ``rank-bm25``, or ``bm25s`` for large collections; the scores are the same.
        analyzer: Text to terms, in place of the language's.
        k1: How fast repeats of a term stop counting.
        b: How much long passages are held back.
        **fields: ``similarity_top_k``; ``filters``, the MetadataFilters that a node must pass;
            ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of any retriever.

    Raises:
        InvalidInputError: An option breaks its rule.
    """

    def __init__(
        self,
        nodes: Iterable[BaseNode] | None = None,
        *,
        docstore: BaseDocumentStore | None = None,
        index: BaseIndex[Any] | None = None,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        language: str = "auto",
        engine: str = "rank-bm25",
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        k1: float = 1.5,
        b: float = 0.75,
        **fields: Any,
    ) -> None:
        kept = nodes_of(nodes, docstore, index)
        texts = texts_of(kept, metadata_mode)
        stage = BM25(texts, language=language, analyzer=analyzer, engine=engine, k1=k1, b=b)
        super().__init__(kept, stage, metadata_mode=metadata_mode, **fields)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        **fields: Any,
    ) -> Self:
        """Reads a retriever that `save` wrote, its arrays mapped from the disk.

        Args:
            path: The folder.
            analyzer: The one that it was made with, where it was not a language's.
            **fields: As of the class, in place of the stored ones.

        Raises:
            IndexNotFoundError: There is no index.
            IndexDamagedError: A file is missing or altered.
            IndexVersionError: Another version of this library wrote another format.
            IndexMismatchError: The analyzer gives other terms than it did, or the index is of
                another kind.
        """
        kind = f"llama_index.{cls.__name__}"
        found = storage.load(
            path, kind, lambda part: cls.restore(part, analyzer=analyzer, **fields)
        )
        found.check()
        return found

    @classmethod
    def restore(
        cls,
        part: storage.Reader,
        *,
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        **fields: Any,
    ) -> Self:
        """The retriever that `store` gave; call `check` before it is used."""
        nodes, texts, options = restored_options(part, fields)
        stage = BM25.restore(part.part("stage"), texts=texts, analyzer=analyzer)
        found = cls.__new__(cls)
        StageRetriever.__init__(found, nodes, stage, **options)
        return found
