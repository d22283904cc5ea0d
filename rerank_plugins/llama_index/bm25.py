"""BM25Retriever: the first stage that goes by words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.storage.docstore import BaseDocumentStore
from typing_extensions import Self

from rerank_plugins.collection import Collection
from rerank_plugins.collection.records import newest
from rerank_plugins.first_stage.analysis import Analyzer
from rerank_plugins.first_stage.bm25 import BM25
from rerank_plugins.llama_index._nodes import nodes_of, records_of
from rerank_plugins.llama_index._retrievers import StageRetriever, check_fields


class BM25Retriever(StageRetriever):
    """Finds nodes that share words with the query, each language read by its own rules.

    What comes back are copies with their Okapi score. A node that shares no word never comes
    back, so there may be fewer than ``similarity_top_k``; a blank query finds nothing::

        retriever = BM25Retriever(nodes, similarity_top_k=10)
        retriever.retrieve("متى يفتح المتحف؟")

    Args:
        nodes: What can be found; of several with one id, the last.
        docstore: Where the nodes are, in place of ``nodes``.
        index: Whose docstore has the nodes, in place of ``nodes``.
        metadata_mode: Which metadata is searched with the text.
        language: ``auto``, ``ar``, ``fr``, ``pl``, ``en`` or ``neutral``.
        engine: See `rerank_plugins.first_stage.BM25`.
        analyzer: Text to terms, in place of the language's.
        k1: How fast repeats of a term stop counting.
        b: How much long passages are held back.
        collection: Nodes that another retriever has, in place of all above.
        **fields: ``similarity_top_k``; ``filters``, the MetadataFilters that a node must pass;
            ``callback_manager``, ``object_map``, ``objects`` and ``verbose`` of any retriever.

    Raises:
        InvalidInputError: If an option is invalid.
    """

    _KIND: ClassVar[str] = "llama_index.BM25Retriever"
    _STAGE: ClassVar[type[BM25]] = BM25
    _EMBEDS: ClassVar[bool] = False

    def __init__(
        self,
        nodes: Iterable[BaseNode] | None = None,
        *,
        docstore: BaseDocumentStore | None = None,
        index: BaseIndex[Any] | None = None,
        metadata_mode: MetadataMode = MetadataMode.EMBED,
        language: str = "auto",
        engine: str = "auto",
        analyzer: Analyzer | Callable[[str], list[str]] | None = None,
        k1: float = 1.5,
        b: float = 0.75,
        collection: Collection | None = None,
        **fields: Any,
    ) -> None:
        check_fields(type(self), fields)
        if collection is None:
            records = newest(records_of(nodes_of(nodes, docstore, index), metadata_mode))
            texts = [record.text for record in records]
            stage = BM25(texts, language=language, analyzer=analyzer, engine=engine, k1=k1, b=b)
            collection = Collection([stage], records)
        super().__init__(collection, metadata_mode=metadata_mode, **fields)

    @classmethod
    def from_defaults(cls, nodes: Iterable[BaseNode] | None = None, **options: Any) -> Self:
        """The constructor, under the name that LlamaIndex's own BM25Retriever has for it."""
        return cls(nodes, **options)

    persist = StageRetriever.save

    @classmethod
    def from_persist_dir(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """`load`, under the name that LlamaIndex's own BM25Retriever has for it."""
        return cls.load(path, **options)
