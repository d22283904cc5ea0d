"""Hands ``k``, filters and other options of one call to the retrievers inside a runnable.

LangChain drops arguments that a retriever does not declare, and a sequence hands them to its
first step alone, without a word. For a filter that means other people's documents. So what
searches inside a runnable is looked for, and gets the options bound to it; where it cannot be
found, or takes no such option, that is an error. ``k`` goes where it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, getclosurevars, isfunction, signature
from itertools import chain
from typing import Any, Final, cast

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams, RetrieverLike
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.passthrough import RunnableAssign
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from rerank_plugins._threads import in_thread
from rerank_plugins.errors import InvalidInputError

Options = Mapping[str, Any]

_LOOKED_AT: Final = 1000

_HELD: Final[dict[Any, tuple[str, ...]]] = {
    RunnableBindingBase: ("bound",),
    RunnableEachBase: ("bound",),
    DynamicRunnable: ("default",),
    RunnableSequence: ("first", "middle", "last"),
    RunnableParallel: ("steps__",),
    RunnableAssign: ("mapper",),
    RunnableWithFallbacks: ("runnable", "fallbacks"),
    RunnableBranch: ("branches", "default"),
}


def check_stage(name: str, stage: object) -> None:
    """An InvalidInputError if an inner retriever is neither a retriever nor another runnable."""
    if not isinstance(stage, Runnable):
        hint = ": wrap it in a RunnableLambda" if isfunction(stage) else ""
        hint = ": give its as_retriever()" if isinstance(stage, VectorStore) else hint
        raise InvalidInputError(f"{name} must be a retriever, but got {type(stage).__name__}{hint}")


def handed(stage: RetrieverLike, k: int | None, options: Options) -> RetrieverLike:
    """The stage with ``k`` and options bound to what searches in it.

    Raises:
        InvalidInputError: If an option would be dropped.
    """
    given = {name: value for name, value in options.items() if value is not None}
    found = _look(stage, k, given)
    if found is None and given:
        raise _refused(stage, given, "cannot be looked into")
    return stage if found is None else found


def found_by(stage: object, documents: object) -> list[Document]:
    """What a stage gave, as a list; an InvalidInputError if it is something else."""
    if not isinstance(documents, Iterable) or isinstance(documents, (str, Mapping, Document)):
        raise InvalidInputError(
            f"a first stage must give a list of Documents, but {type(stage).__name__} gave "
            f"{type(documents).__name__}"
        )
    return list(documents)


def ls_params(own: LangSmithRetrieverParams, stage: RetrieverLike) -> LangSmithRetrieverParams:
    """The outer retriever's name with the inner one's providers."""
    inner = stage._get_ls_params() if isinstance(stage, BaseRetriever) else {}  # noqa: SLF001
    return cast("LangSmithRetrieverParams", {**inner, **own})


class _Bound(Runnable[str, list[Document]]):
    """A retriever with arguments; it adds no run to traces.

    LangChain's default for a retriever without an asynchronous method takes no arguments, not
    even those that the synchronous method declares: such a retriever is asked in a thread.
    """

    def __init__(self, retriever: BaseRetriever, arguments: Options) -> None:
        self._retriever = retriever
        self._arguments = dict(arguments)

    def invoke(
        self,
        input: str,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        return self._retriever.invoke(input, config, **(kwargs | self._arguments))

    async def ainvoke(
        self,
        input: str,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        arguments = kwargs | self._arguments
        asynchronous = type(self._retriever)._aget_relevant_documents  # noqa: SLF001
        if asynchronous is BaseRetriever._aget_relevant_documents:  # noqa: SLF001
            return await in_thread(self._retriever.invoke, input, config, **arguments)
        return await self._retriever.ainvoke(input, config, **arguments)


def _look(stage: Any, k: int | None, options: Options) -> Any:
    """The runnable anew, with arguments bound to the retrievers in it; None without a retriever."""
    if isinstance(stage, BaseRetriever):
        return _asked(stage, k, options)
    if isinstance(stage, DynamicRunnable):
        inner = _look(stage.prepare()[0], k, options)
        return inner if inner is None or stage.config is None else inner.with_config(stage.config)
    if isinstance(stage, RunnableLambda) and options and _searches(stage):
        raise _refused(stage, options, "calls a retriever by itself")
    found = _with(stage, k, options, _held_by(stage))
    if found is not None and options:
        for way in _ways(stage):
            if _look(way, k, options) is None:
                raise _refused(way, options, "cannot be looked into")
    return found


def _held_by(stage: Any) -> Sequence[str]:
    """The attributes in which LangChain's own runnables hold others."""
    return next((names for kind, names in _HELD.items() if isinstance(stage, kind)), ())


def _ways(stage: Any) -> Sequence[Any]:
    """Runnables of which any may be taken, so that each must take the options."""
    if isinstance(stage, RunnableWithFallbacks):
        return [stage.runnable, *stage.fallbacks]
    if isinstance(stage, RunnableBranch):
        return [*(way for _, way in stage.branches), stage.default]
    return []


def _within(value: Any, k: int | None, options: Options) -> Any:
    """What an attribute holds, looked into; None if no retriever is there."""
    if isinstance(value, Mapping):
        found = _within([*value.values()], k, options)
        return found and dict(zip(value, found, strict=True))
    if not isinstance(value, (list, tuple)):
        return _look(value, k, options)
    parts = [(one, _within(one, k, options)) for one in value]
    if all(found is None for _, found in parts):
        return None
    return type(value)(one if found is None else found for one, found in parts)


def _with(stage: Any, k: int | None, options: Options, names: Iterable[str]) -> Any:
    """A copy with what stands in its attributes looked into; None if no retriever is there."""
    looked = ((name, _within(getattr(stage, name), k, options)) for name in names)
    changed = {name: found for name, found in looked if found is not None}
    bound = getattr(stage, "kwargs", None)
    if changed and isinstance(bound, Mapping):
        # What was bound to it before gives way, as it does in a call.
        gone = {*options, *(() if k is None else ("k",))}
        changed["kwargs"] = {name: one for name, one in bound.items() if name not in gone}
    return stage.model_copy(update=changed) if changed else None


def _asked(stage: BaseRetriever, k: int | None, options: Options) -> Any:
    """The retriever with its arguments, or what is inside it with them; never None with options."""
    parameters = signature(stage._get_relevant_documents).parameters  # noqa: SLF001
    any_name = any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values())
    store = isinstance(stage, VectorStoreRetriever)
    inner = [] if store or _ours(stage) else _inner(stage)
    dropped = [name for name in options if name not in parameters]
    if inner and (dropped or (k is not None and "k" not in parameters)):
        if options and any(isinstance(getattr(stage, name), VectorStore) for name in _names(stage)):
            raise _refused(stage, options, "searches a vector store by itself")
        found = _with(stage, k, options, inner)
        if found is None and options:
            raise _refused(stage, options, None)
        return found
    if store and not _ours(stage):
        known = _searched_by(stage.vectorstore)  # type: ignore[attr-defined]
        dropped = [name for name in dropped if name not in known]
    elif any_name or store:
        dropped = []
    if dropped:
        raise _refused(stage, dropped, None)
    arguments = dict(options)
    # A retriever with **kwargs may hand them to a client that knows no k; a vector store does.
    if k is not None and ("k" in parameters or store):
        arguments["k"] = k
    elif k is not None and "k" in type(stage).model_fields:
        stage = stage.model_copy(update={"k": k})
    return _Bound(stage, arguments)


def _ours(stage: BaseRetriever) -> bool:
    """Whether it hands options on by itself."""
    return any(one.__module__.startswith("rerank_plugins.") for one in type(stage).__mro__)


def _names(stage: BaseRetriever) -> Iterable[str]:
    return (name for name in type(stage).model_fields if hasattr(stage, name))


def _inner(stage: BaseRetriever) -> list[str]:
    """The fields that hold runnables with retrievers in them."""
    return [name for name in _names(stage) if _searches(getattr(stage, name))]


def _searches(value: Any, within: tuple[int, ...] = ()) -> bool:
    """Whether there is a retriever in it; ``within`` are those that it stands in."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, (list, tuple)):
        # A list of retrievers is short; one of documents may have millions.
        return any(_searches(one, within) for one in value[:_LOOKED_AT])
    if not isinstance(value, Runnable) or id(value) in within:
        return False
    held = [getattr(value, name) for name in _held_by(value)]
    if isinstance(value, RunnableLambda):
        functions = (getattr(value, name, None) for name in ("func", "afunc"))
        known = chain.from_iterable(map(_known_to, functions))
        held = [one for one in known if isinstance(one, Runnable)]
    return isinstance(value, BaseRetriever) or _searches(held, (*within, id(value)))


def _known_to(function: Any) -> Iterable[Any]:
    """What a function can call: what it closes over, globals that it names, its object's parts."""
    known: list[Any] = [*vars(getattr(function, "__self__", object)).values()]
    plain = getattr(function, "__func__", function)
    if isfunction(plain):
        found = getclosurevars(plain)
        known += [*found.nonlocals.values(), *found.globals.values()]
    return known


def _searched_by(store: VectorStore) -> set[str]:
    """The arguments that the searches of a store declare; **kwargs may be dropped by any."""
    by_text = ("similarity_search", "similarity_search_with_score")
    by_vector = ("similarity_search_by_vector", "similarity_search_with_score_by_vector")
    methods = (*by_text, *by_vector, "max_marginal_relevance_search")
    found = (getattr(store, name, None) for name in methods)
    return {name for method in found if callable(method) for name in signature(method).parameters}


def _refused(stage: object, options: Iterable[str], why: str | None) -> InvalidInputError:
    names = ", ".join(options)
    reason = f"takes no {names}" if why is None else f"{why}, so it would drop {names}"
    return InvalidInputError(
        f"{type(stage).__name__} {reason}: set it up on that retriever, or leave it out of the call"
    )
