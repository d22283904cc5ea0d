"""How published causal rerankers put a pair to the model, each as its card's own code does.

A checkpoint that sentence-transformers saved says its form itself (`scoring.saved`). These are
for those that say nothing: the form comes from the catalogue, from ``form=``, or from
``rerank_plugins`` in config.json.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.scoring.causal_engine import Answers, Prefixes
from rerank_plugins.scoring.checkpoint import Checkpoint
from rerank_plugins.scoring.encoding import Batch, padded
from rerank_plugins.scoring.lightweight import ARCHITECTURE, Lightweight
from rerank_plugins.scoring.lightweight import NAME as LIGHTWEIGHT
from rerank_plugins.scoring.text_pairs import Pair, Rows, TextPairEncoder


class FormEncoder(TextPairEncoder, ABC):
    """Rows of a form; ``max_length`` counts every token of a row, the form's own included.

    Args:
        tokenizer: A transformers tokenizer.
        prefixes: Where the rows' common beginnings are noted.
        instruction: In place of the form's own; None for that one.
        max_length: Tokens per row; None for the card's own length.
        window_tokens: Passage tokens per window; None for as many as fit.

    Attributes:
        takes_instruction: Whether the form has a place for one.
        default_instruction: What the card puts there.
        words: The words that answer: for relevant, and for not relevant if there is one.
    """

    takes_instruction = False
    default_instruction = ""
    words: tuple[str, ...]

    def __init__(
        self,
        tokenizer: Any,
        *,
        prefixes: Prefixes | None = None,
        instruction: str | None = None,
        max_length: int | None = None,
        window_tokens: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.instruction = self.default_instruction if instruction is None else instruction
        own = self._prepare()
        super().__init__(
            tokenizer,
            max_length=own if max_length is None else min(own, max_length),
            window_tokens=window_tokens,
            prefixes=prefixes,
        )

    @classmethod
    def answers(cls, tokenizer: Any) -> Answers:
        """Ids of the answering words.

        Raises:
            UnsupportedModelError: If one of them is not one token.
        """
        ids = [_plain(tokenizer, word) for word in cls.words]
        if any(len(one) != 1 for one in ids):
            raise UnsupportedModelError(
                f"the form needs {cls.words} as single tokens, and this tokenizer makes {ids} of "
                "them"
            )
        return Answers(ids[0][0], ids[1][0] if len(ids) > 1 else None)

    @abstractmethod
    def _prepare(self) -> int:
        """Tokenizes what is the same in all rows; gives the card's own length."""

    @abstractmethod
    def _row(self, query: str, passage: str, limit: int | None) -> list[int]:
        """One row, cut to the limit; None for whole."""

    def pad_rows(self, rows: Sequence[list[int]], types: Sequence[list[int]] | None) -> Batch:
        """Rows as padded arrays; the engine reads by the mask, whatever the padding is."""
        return padded(rows, types, 0)

    def _rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        with self._lock:
            return [self._row(query, passage, None) for query, passage in pairs], None

    def _cut_rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        with self._lock:
            return [self._row(query, passage, self.max_length) for query, passage in pairs], None


class Qwen3Reranker(FormEncoder):
    """Qwen3-Reranker's card: yes or no, behind a system message and an empty thought."""

    takes_instruction = True
    default_instruction = (
        "Given a web search query, retrieve relevant passages that answer the query"
    )
    words = ("yes", "no")

    def _prepare(self) -> int:
        self._head = _plain(
            self._tokenizer,
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the "
            'Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
            "<|im_end|>\n<|im_start|>user\n",
        )
        self._tail = _plain(
            self._tokenizer, "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        return 8192

    def _row(self, query: str, passage: str, limit: int | None) -> list[int]:
        text = f"<Instruct>: {self.instruction}\n<Query>: {query}\n<Document>: {passage}"
        ids = list(self._tokenizer(text)["input_ids"])
        if limit is not None:
            ids = ids[: limit - len(self._head) - len(self._tail)]
        return [*self._head, *ids, *self._tail]


class BGERerankerGemma(FormEncoder):
    """bge-reranker-v2-gemma's card: the logit of Yes behind the pair and a prompt."""

    takes_instruction = True
    default_instruction = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'."
    )
    words = ("Yes",)
    _own_length = 1024

    def _prepare(self) -> int:
        first = self._tokenizer.bos_token_id
        self._first = [] if first is None else [first]
        self._between = _plain(self._tokenizer, "\n")
        self._tail = [*self._between, *_plain(self._tokenizer, self.instruction)]
        return self._own_length + len(self._tail)

    def _row(self, query: str, passage: str, limit: int | None) -> list[int]:
        asked, told = self._texts(query, passage, limit)
        return [*asked, *told, *self._tail]

    def _texts(self, query: str, passage: str, limit: int | None) -> tuple[list[int], list[int]]:
        """The query's ids, and the passage's behind the separator."""
        asked = [*self._first, *_plain(self._tokenizer, f"A: {query}")]
        told = [*self._between, *_plain(self._tokenizer, f"B: {passage}")]
        if limit is not None:
            room = limit - len(self._tail)
            asked = asked[: len(self._first) + room * 3 // 4]
            told = told[: max(0, room - len(asked))]
        return asked, told


class LightweightGemma(BGERerankerGemma):
    """bge-reranker-v2.5-gemma2-lightweight's card; token types tell query, passage and prompt."""

    default_instruction = "Predict whether passage B contains an answer to query A."

    def _rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        return self._typed(pairs, None)

    def _cut_rows(self, pairs: Sequence[Pair]) -> tuple[Rows, Rows | None]:
        return self._typed(pairs, self.max_length)

    def _typed(self, pairs: Sequence[Pair], limit: int | None) -> tuple[Rows, Rows]:
        rows: Rows = []
        types: Rows = []
        with self._lock:
            for query, passage in pairs:
                asked, told = self._texts(query, passage, limit)
                rows.append([*asked, *told, *self._tail])
                before = len(asked) + min(len(self._between), len(told))
                told_alone = len(asked) + len(told) - before
                types.append([0] * before + [1] * told_alone + [2] * len(self._tail))
        return rows, types


class MxbaiRerankV2(FormEncoder):
    """mxbai-rerank-v2's own library: 1 or 0 behind the pair and a task, an instruction if any."""

    takes_instruction = True
    words = ("1", "0")

    def _prepare(self) -> int:
        self._head = _plain(
            self._tokenizer,
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
            "assistant.<|im_end|>\n<|im_start|>user\n",
        )
        self._between = _plain(self._tokenizer, "\n")
        task = _plain(
            self._tokenizer,
            "You are a search relevance expert who evaluates how well documents match search "
            "queries. For each query-document pair, carefully analyze the semantic relationship "
            "between them, then provide your binary relevance judgment (0 for not relevant, 1 for "
            "relevant).\nRelevance:",
        )
        end = _plain(self._tokenizer, "<|im_end|>\n<|im_start|>assistant\n")
        self._tail = [*self._between, *task, *end]
        return 8192 + len(self._head) + len(self._tail)

    def _row(self, query: str, passage: str, limit: int | None) -> list[int]:
        told = f"instruction: {self.instruction}\n" if self.instruction else ""
        asked = _plain(self._tokenizer, f"{told}query: {query}")
        text = [*self._between, *_plain(self._tokenizer, f"document: {passage}")]
        if limit is not None:
            room = limit - len(self._head) - len(self._tail)
            asked = asked[: room * 3 // 4]
            text = text[: max(0, room - len(asked))]
        return [*self._head, *asked, *text, *self._tail]


FORMS: dict[str, type[FormEncoder]] = {
    "qwen3-reranker": Qwen3Reranker,
    "bge-reranker-gemma": BGERerankerGemma,
    "mxbai-rerank-v2": MxbaiRerankV2,
    LIGHTWEIGHT: LightweightGemma,
}


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


# Makes an encoder for a length and an instruction; None for the checkpoint's own.
EncoderMaker = Callable[[int | None, str | None], TextPairEncoder]


def with_form(
    checkpoint: Checkpoint, form: str | Lightweight | None, default: str | None = None
) -> Checkpoint:
    """The checkpoint with the form asked for; None for what it says itself.

    Args:
        checkpoint: What its files say.
        form: Asked for by the caller.
        default: For a checkpoint that says nothing: the catalogue's.

    Raises:
        UnsupportedModelError: If the form is unknown, or the checkpoint has no use for one.
    """
    lightweight = form if isinstance(form, Lightweight) else None
    own = LIGHTWEIGHT if checkpoint.architecture == ARCHITECTURE else None
    name = LIGHTWEIGHT if isinstance(form, Lightweight) else form
    name = checkpoint.form if name is None else name
    if name is None and checkpoint.saved.causal and not checkpoint.saved.stated:
        name = default if own is None else own
    if name is None:
        return checkpoint
    if name not in FORMS:
        raise UnsupportedModelError(
            f"form must be one of {sorted(FORMS)}, but got {name!r} for the checkpoint in "
            f"{checkpoint.folder}"
        )
    if not checkpoint.saved.causal:
        raise UnsupportedModelError(
            f"form={name!r} is for causal language models, and the checkpoint in "
            f"{checkpoint.folder} is not ({checkpoint.architecture})"
        )
    if (name == LIGHTWEIGHT) != (own is not None):
        raise UnsupportedModelError(
            f"form={name!r} cannot be that of the checkpoint in {checkpoint.folder}: "
            f"{LIGHTWEIGHT!r} goes with model_type={ARCHITECTURE!r}, and no other form does, but "
            f"it has {checkpoint.architecture!r}"
        )
    if own is not None and lightweight is None:
        lightweight = Lightweight()
    return replace(checkpoint, form=name, lightweight=lightweight)


def checked_instruction(checkpoint: Checkpoint, instruction: str | None) -> str | None:
    """The instruction's text: a prompt of the checkpoint by its name, or the text itself.

    Raises:
        InvalidInputError: If it is not text, or the checkpoint takes no instruction.
    """
    if instruction is None:
        return None
    if not isinstance(instruction, str):
        raise InvalidInputError(
            f"instruction must be text or None, but got {type(instruction).__name__}"
        )
    saved = checkpoint.saved
    if instruction in saved.prompts:
        return saved.prompts[instruction]
    takes = FORMS[checkpoint.form].takes_instruction if checkpoint.form else bool(saved.prompts)
    if not (takes or saved.chat):
        raise InvalidInputError(
            f"instruction={instruction!r}, but the checkpoint in {checkpoint.folder} takes none: "
            "it has no prompts, no chat template and no form with a place for one"
        )
    return instruction
