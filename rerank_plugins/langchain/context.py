"""From documents to the text of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tools import BaseTool

from rerank_plugins._adapters import RELEVANCE_SCORE, context_builder, context_passage
from rerank_plugins._stamps import finite
from rerank_plugins._threads import in_thread
from rerank_plugins.context import Context, ContextBuilder
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.langchain._documents import check_documents

Source = str | Callable[[Document], object]


def pack_context(
    documents: Iterable[Document],
    *,
    builder: ContextBuilder | None = None,
    source: Source = "source",
) -> Context:
    """The documents that fit into a token budget, labelled for citation, and an account of all.

    Args:
        documents: Best first, as reranking gives them.
        builder: Budget, order and the like; None for a `ContextBuilder` with its defaults. Its
            ``min_score`` is held against ``relevance_score``.
        source: What to cite a document as: the metadata field with it, or a function of the
            document; None, or no such field, for a label alone. ``source`` is what LangChain's
            loaders write.

    Raises:
        InvalidInputError: If an element is not a Document.
    """
    return context_builder(builder).build(
        context_passage(
            document,
            document.page_content,
            document.metadata,
            source=source,
            score=finite(document.metadata.get(RELEVANCE_SCORE)),
        )
        for document in check_documents(documents)
    )


def format_context(
    *, builder: ContextBuilder | None = None, source: Source = "source", **options: Any
) -> Runnable[Sequence[Document], str]:
    """`pack_context` as a runnable that gives the text, ready for a prompt.

    ::

        context = retriever | format_context(max_tokens=1500)
        chain = {"context": context, "question": RunnablePassthrough()} | prompt | model

    Args:
        builder: A ready `ContextBuilder`, in place of ``options``.
        source: As in `pack_context`.
        **options: Those of `ContextBuilder`: ``max_tokens``, ``min_score``, ``order`` ...

    Raises:
        InvalidInputError: If an option is invalid, or options come beside a builder.
    """
    set_up: dict[str, Any] = {"builder": context_builder(builder, options), "source": source}
    # Not functions in here, so that chains can be pickled.
    return _FormatContext(
        partial(_pack, **set_up), partial(_apack, **set_up), name="format_context"
    )


def _pack(documents: Sequence[Document] | Mapping[str, Any], **set_up: Any) -> str:
    if isinstance(documents, Mapping) and "documents" not in documents:
        raise InvalidInputError(
            f"a dict must have the documents under 'documents', but has {[*documents]}"
        )
    listed = documents["documents"] if isinstance(documents, Mapping) else documents
    return pack_context(listed, **set_up).text


async def _apack(documents: Sequence[Document] | Mapping[str, Any], **set_up: Any) -> str:
    return await in_thread(_pack, documents, **set_up)


class _FormatContext(RunnableLambda[Any, str]):
    """With the types that schemas are made of; as a tool, it takes ``documents``."""

    @property
    def InputType(self) -> Any:  # noqa: N802  (LangChain's name)
        return list[Document]

    @property
    def OutputType(self) -> Any:  # noqa: N802
        return str

    def as_tool(self, args_schema: Any = None, **options: Any) -> BaseTool:
        if args_schema is None and options.get("arg_types") is None:
            options["arg_types"] = {"documents": list[Document]}
        return super().as_tool(args_schema, **options)
