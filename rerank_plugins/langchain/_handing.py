"""Hands ``k``, filters and other options of one call to the retrievers inside a runnable.

LangChain drops arguments that a retriever does not declare, and a sequence hands them to its
first step alone, without a word. For a filter that means other people's documents. So what
searches inside a runnable is looked for, and gets the options bound to it; where it cannot be
found, or takes no such option, that is an error. ``k`` goes where it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from inspect import Parameter, getclosurevars, isfunction, signature
from typing import Any, cast

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

from rerank_plugins._names import check_options, own_options
from rerank_plugins._threads import in_thread
from rerank_plugins.errors import InvalidInputError

Options = Mapping[str, Any]


def check_stage(name: str, stage: object) -> None:
    """Checks that an inner retriever can be asked.

    Raises:
        InvalidInputError: If it is neither a retriever nor another runnable.
    """
    if not isinstance(stage, Runnable):
        hint = ": give its as_retriever()" if isinstance(stage, VectorStore) else ""
        raise InvalidInputError(f"{name} must be a retriever, but got {type(stage).__name__}{hint}")


def check_fields(retriever: type[BaseRetriever], fields: Mapping[str, Any]) -> None:
    """Checks that a retriever has the fields that it is given beside its own options.

    Raises:
        InvalidInputError: If it does not have one of them.
    """
    known = {*own_options(retriever), *retriever.model_fields}
    check_options(retriever.__name__, fields.keys() - retriever.model_fields.keys(), known)


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
    """What a stage gave, as a list.

    Raises:
        InvalidInputError: If it gave something else than documents.
    """
    if not isinstance(documents, Iterable) or isinstance(documents, (str, Mapping)):
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
        input: str,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        return self._retriever.invoke(input, config, **(kwargs | self._arguments))

    async def ainvoke(
        self,
        input: str,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        arguments = kwargs | self._arguments
        asynchronous = type(self._retriever)._aget_relevant_documents  # noqa: SLF001
        if asynchronous is BaseRetriever._aget_relevant_documents:  # noqa: SLF001
            return await in_thread(self._retriever.invoke, input, config, **arguments)
        return await self._retriever.ainvoke(input, config, **arguments)


@singledispatch
def _look(stage: Any, k: int | None, options: Options) -> Any:  # noqa: ARG001
    """The runnable anew, with arguments bound to the retrievers in it; None without a retriever."""
    return None


@_look.register
def _(stage: RunnableLambda, k: int | None, options: Options) -> None:  # type: ignore[type-arg]  # noqa: ARG001
    if options and _searches(stage):
        raise _refused(stage, options, "calls a retriever by itself")


@_look.register
def _(stage: DynamicRunnable, k: int | None, options: Options) -> Any:  # type: ignore[type-arg]
    inner = _look(stage.prepare()[0], k, options)
    return inner if inner is None or stage.config is None else inner.with_config(stage.config)


@_look.register(RunnableBindingBase)
@_look.register(RunnableEachBase)
def _(stage: Any, k: int | None, options: Options) -> Any:
    return _with(stage, k, options, ["bound"])


@_look.register
def _(stage: RunnableWithFallbacks, k: int | None, options: Options) -> Any:  # type: ignore[type-arg]
    ways = _all([stage.runnable, *stage.fallbacks], k, options)
    return ways and stage.model_copy(update={"runnable": ways[0], "fallbacks": ways[1:]})


@_look.register
def _(stage: RunnableBranch, k: int | None, options: Options) -> Any:  # type: ignore[type-arg]
    ways = _all([*(way for _, way in stage.branches), stage.default], k, options)
    tests = [test for test, _ in stage.branches]
    return ways and RunnableBranch(*zip(tests, ways[:-1], strict=True), ways[-1])


@_look.register
def _(stage: RunnableSequence, k: int | None, options: Options) -> Any:  # type: ignore[type-arg]
    steps = _some(stage.steps, k, options)
    return steps and RunnableSequence(*steps, name=stage.name)


@_look.register
def _(stage: RunnableParallel, k: int | None, options: Options) -> Any:  # type: ignore[type-arg]
    steps = _some(stage.steps__.values(), k, options)
    return steps and RunnableParallel(dict(zip(stage.steps__, steps, strict=True)))


@_look.register
def _(stage: RunnableAssign, k: int | None, options: Options) -> Any:
    mapper = _look(stage.mapper, k, options)
    return mapper and RunnableAssign(mapper)


def _some(stages: Iterable[Any], k: int | None, options: Options) -> list[Any] | None:
    """The steps of one way; those without a retriever stay as they are."""
    steps = [(stage, _look(stage, k, options)) for stage in stages]
    if all(found is None for _, found in steps):
        return None
    return [stage if found is None else found for stage, found in steps]


def _all(stages: Sequence[Any], k: int | None, options: Options) -> list[Any] | None:
    """Ways of which any may be taken: each must take the options."""
    found = [_look(stage, k, options) for stage in stages]
    if options and any(found) and not all(found):
        raise _refused(stages[found.index(None)], options, "cannot be looked into")
    steps = [stage if one is None else one for stage, one in zip(stages, found, strict=True)]
    return steps if any(found) else None


def _with(stage: Any, k: int | None, options: Options, names: Iterable[str]) -> Any:
    """A copy with what stands in its fields looked into; None if no retriever is there."""
    changed: dict[str, Any] = {}
    for name in names:
        value = getattr(stage, name)
        if isinstance(value, (list, tuple)):
            inner = _some(value, k, options)
            changed |= {} if inner is None else {name: type(value)(inner)}
        else:
            one = _look(value, k, options)
            changed |= {} if one is None else {name: one}
    bound = getattr(stage, "kwargs", None)
    if changed and isinstance(bound, Mapping):
        # What was bound to it before gives way, as it does in a call.
        gone = {*options, *(() if k is None else ("k",))}
        changed["kwargs"] = {name: one for name, one in bound.items() if name not in gone}
    return stage.model_copy(update=changed) if changed else None


@_look.register
def _(stage: BaseRetriever, k: int | None, options: Options) -> Any:
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
    found = []
    for name in _names(stage):
        value = getattr(stage, name)
        listed = value if isinstance(value, (list, tuple)) else [value]
        if any(map(_searches, listed)):
            found.append(name)
    return found


def _searches(stage: Any) -> bool:
    """Whether there is a retriever in it."""
    if isinstance(stage, BaseRetriever):
        return True
    if isinstance(stage, RunnableLambda):
        functions = (getattr(stage, name, None) for name in ("func", "afunc"))
        return any(_searches(one) for function in functions for one in _known_to(function))
    if isinstance(stage, RunnableSequence):
        return any(map(_searches, stage.steps))
    if not isinstance(stage, Runnable):
        return False
    parts = [getattr(stage, name, None) for name in ("bound", "runnable", "default", "mapper")]
    parts += [*getattr(stage, "fallbacks", ()), *getattr(stage, "steps__", {}).values()]
    return any(map(_searches, parts))


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
