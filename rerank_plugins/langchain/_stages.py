"""How retrievers that hold other retrievers speak to those."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import Parameter, signature
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
from langchain_core.runnables import Runnable
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from rerank_plugins._threads import in_thread
from rerank_plugins.errors import InvalidInputError


def check_stage(name: str, stage: object) -> None:
    """Checks that an inner retriever can be asked.

    Raises:
        InvalidInputError: It is no retriever and no runnable.
    """
    if not isinstance(stage, Runnable):
        hint = ": give its as_retriever()" if isinstance(stage, VectorStore) else ""
        raise InvalidInputError(f"{name} must be a retriever, but got {type(stage).__name__}{hint}")


def check_fields(retriever: type[BaseRetriever], fields: Mapping[str, Any]) -> None:
    """Checks that a retriever has the fields that it is given beside its own options.

    Raises:
        InvalidInputError: It has no such field.
    """
    unknown = sorted(fields.keys() - retriever.model_fields.keys())
    if unknown:
        raise InvalidInputError(f"{retriever.__name__} has no option {', '.join(unknown)}")


def options_for(stage: RetrieverLike, k: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for an inner retriever's ``invoke``: ``k`` if it takes one, and options.

    LangChain drops arguments that a retriever does not declare, without a word. For ``k`` that
    is well: the retriever brings what it brings. A filter that was dropped would let documents
    out that the caller meant to keep back, so that is an error.

    Raises:
        InvalidInputError: The retriever does not declare one of the options.
    """
    if not isinstance(stage, BaseRetriever):
        return dict(options)
    parameters = signature(stage._get_relevant_documents).parameters  # noqa: SLF001
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())
    unknown = [] if takes_any else [name for name in options if name not in parameters]
    if unknown:
        raise InvalidInputError(
            f"{type(stage).__name__} takes no {', '.join(unknown)}: set it up on that retriever, "
            "or leave it out of the call"
        )
    # A retriever with **kwargs may hand them to a client that knows no k; a vector store does.
    takes_k = "k" in parameters or isinstance(stage, VectorStoreRetriever)
    return {"k": k, **options} if takes_k and k is not None else dict(options)


async def ask(
    stage: RetrieverLike,
    query: str,
    run_manager: AsyncCallbackManagerForRetrieverRun,
    options: Mapping[str, Any],
    tag: str | None = None,
) -> list[Document]:
    """What an inner retriever finds, while the event loop goes on.

    LangChain's default for a retriever without an asynchronous method takes no options, not
    even those that the synchronous method declares: such a retriever is asked in a thread.
    """
    if (
        isinstance(stage, BaseRetriever)
        and type(stage)._aget_relevant_documents is BaseRetriever._aget_relevant_documents  # noqa: SLF001
    ):
        callbacks = run_manager.get_sync().get_child(tag)
        return await in_thread(stage.invoke, query, {"callbacks": callbacks}, **options)
    return await stage.ainvoke(query, {"callbacks": run_manager.get_child(tag)}, **options)


def ls_params(
    own: LangSmithRetrieverParams, stages: Iterable[RetrieverLike]
) -> LangSmithRetrieverParams:
    """The outer retriever's name with the inner ones' providers: the first that has one."""
    merged: dict[str, Any] = {}
    for stage in stages:
        if isinstance(stage, BaseRetriever):
            inner = stage._get_ls_params()  # noqa: SLF001
            merged = {**inner, **merged}
    return cast("LangSmithRetrieverParams", {**merged, **own})
