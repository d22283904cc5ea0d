"""Rerankers that are causal language models, each against its card's own procedure.

The references are raw transformers, a row at a time, no cache, all logits of all positions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from texts import ALL_PASSAGES, PAIRS, QUESTIONS
from transformers import AutoModelForCausalLM, AutoTokenizer

from rerank_plugins.errors import InvalidInputError, UnsupportedModelError
from rerank_plugins.models.loading import load_reranker, load_scorer
from rerank_plugins.scoring.base import ScoreOptions
from rerank_plugins.scoring.causal_engine import Prefixes

TOLERANCE = 1e-4
LONG = [(query, " ".join(ALL_PASSAGES)) for query in QUESTIONS.values()]
SHORT = PAIRS[::4]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Without special tokens."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def qwen3_card(
    tokenizer: Any, query: str, passage: str, most: int, instruction: str | None = None
) -> list[int]:
    """``format_instruction`` and ``process_inputs`` of Qwen3-Reranker's card."""
    task = instruction or (
        "Given a web search query, retrieve relevant passages that answer the query"
    )
    prefix = ids_of(
        tokenizer,
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n",
    )
    suffix = ids_of(tokenizer, "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    text = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {passage}"
    room = most - len(prefix) - len(suffix)
    return prefix + tokenizer(text, truncation=True, max_length=room)["input_ids"] + suffix


def gemma_card(
    tokenizer: Any, query: str, passage: str, most: int, instruction: str | None = None
) -> list[int]:
    """``get_inputs`` of bge-reranker-v2-gemma's card; the prompt stands behind its length."""
    prompt = instruction or (
        "Given a query A and a passage B, determine whether the passage contains an answer to the "
        "query by providing a prediction of either 'Yes' or 'No'."
    )
    sep, told = ids_of(tokenizer, "\n"), ids_of(tokenizer, prompt)
    room = most - len(sep) - len(told)
    asked = ids_of(tokenizer, f"A: {query}")[: room * 3 // 4]
    if tokenizer.bos_token_id is not None:
        asked = [tokenizer.bos_token_id, *asked]
    text = [*sep, *ids_of(tokenizer, f"B: {passage}")[:room]]
    return [*asked, *text[: room - len(asked)], *sep, *told]


def mxbai_library(
    tokenizer: Any, query: str, passage: str, most: int, instruction: str | None = None
) -> list[int]:
    """``prepare_inputs`` of mxbai-rerank's library; its template stands outside its length."""
    head = ids_of(
        tokenizer,
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        "<|im_end|>\n<|im_start|>user\n",
    )
    task = ids_of(
        tokenizer,
        "You are a search relevance expert who evaluates how well documents match search queries. "
        "For each query-document pair, carefully analyze the semantic relationship between them, "
        "then provide your binary relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:",
    )
    end, sep = ids_of(tokenizer, "<|im_end|>\n<|im_start|>assistant\n"), ids_of(tokenizer, "\n")
    room = most - len(head) - len(sep) - len(task) - len(end)
    prompt = f"query: {query}"
    if instruction:
        prompt = f"instruction: {instruction}\n{prompt}"
    asked = ids_of(tokenizer, prompt)[: room * 3 // 4]
    text = [*sep, *ids_of(tokenizer, f"document: {passage}")]
    return [*head, *asked, *text[: room - len(asked)], *sep, *task, *end]


FORMS: dict[str, tuple[Callable[..., list[int]], tuple[str, ...]]] = {
    "qwen3-reranker": (qwen3_card, ("yes", "no")),
    "bge-reranker-gemma": (gemma_card, ("Yes",)),
    "mxbai-rerank-v2": (mxbai_library, ("1", "0")),
}


def by_the_card(
    folder: Path,
    form: str,
    pairs: list[tuple[str, str]],
    most: int,
    instruction: str | None = None,
) -> np.ndarray:
    """One row at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    render, words = FORMS[form]
    answers = [tokenizer.convert_tokens_to_ids(word) for word in words]
    scores = []
    for query, passage in pairs:
        row = render(tokenizer, query, passage, most, instruction)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row])).logits[0, -1, answers].double()
        scores.append(float(logits[0] - (logits[1] if len(answers) > 1 else 0)))
    return np.asarray(scores)


@pytest.mark.parametrize("body", ["bare_causal", "bare_gemma"])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_scores_as_its_card_does(
    tiny_cross_encoders: Mapping[str, Path], form: str, body: str
) -> None:
    """Short pairs and cut ones."""
    folder = tiny_cross_encoders[body]
    scorer = load_scorer(folder, form=form, precision="fp32", device="cpu")
    for pairs, most in ((SHORT, 8000), (LONG, 500)):
        limited = load_scorer(
            folder,
            form=form,
            precision="fp32",
            device="cpu",
            max_length=most if most < 1000 else None,
        )
        expected = by_the_card(folder, form, pairs, most)
        scores = limited.score(pairs, ScoreOptions())
        np.testing.assert_allclose(scores.logits, expected, atol=TOLERANCE)
        assert scores.truncated.all() == (most == 500)
    assert np.std(by_the_card(folder, form, SHORT, 8000)) > 0.05
    assert scorer.describe()["form"] == form
    assert scorer.describe()["engine"] == "torch"


@pytest.mark.parametrize("form", FORMS)
def test_an_instruction_takes_the_place_of_the_form_s_own(
    tiny_cross_encoders: Mapping[str, Path], form: str
) -> None:
    """Where the card has it."""
    folder, told = tiny_cross_encoders["bare_causal"], "Find the law that applies"
    options = {"form": form, "precision": "fp32", "device": "cpu"}
    scorer = load_scorer(folder, instruction=told, **options)
    found = scorer.score(SHORT, ScoreOptions()).logits
    np.testing.assert_allclose(found, by_the_card(folder, form, SHORT, 8000, told), atol=TOLERANCE)
    without = load_scorer(folder, **options).score(SHORT, ScoreOptions()).logits
    assert np.abs(found - without).max() > 0.01


def test_the_beginning_that_a_query_s_rows_share_is_computed_once(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """Fewer tokens, the same logits, whatever the batch."""
    folder = tiny_cross_encoders["bare_causal"]
    scorer = load_scorer(folder, form="qwen3-reranker", precision="fp32", device="cpu")
    engine = scorer._load()[0].engine
    assert engine.reuse
    pairs = [(query, passage) for query in QUESTIONS.values() for passage in ALL_PASSAGES]
    for budget in (64, 8192):
        engine.computed_tokens = 0
        engine._kept.clear()
        scores = scorer.score(pairs, ScoreOptions(batch_tokens=budget)).logits
        reused = engine.computed_tokens
        engine.reuse, engine.computed_tokens = False, 0
        plain = scorer.score(pairs, ScoreOptions(batch_tokens=budget)).logits
        engine.reuse = True
        np.testing.assert_allclose(scores, plain, atol=TOLERANCE)
        assert reused < 0.6 * engine.computed_tokens


def test_prefixes_are_the_common_beginning_of_all_rows_of_a_query() -> None:
    """Also of rows that come later, one at a time; never a whole row."""
    prefixes = Prefixes(most=2)
    head = list(range(10))
    prefixes.note("q", [[*head, 1, 2]])
    prefixes.note("q", [[*head, 3]])
    assert prefixes.of([*head, 9, 9]) == tuple(head)
    assert prefixes.of([5, *head]) == ()
    assert prefixes.of(head) == ()
    prefixes.note("short", [[1, 2, 3], [1, 2, 4]])
    assert prefixes.of([1, 2, 5]) == ()
    prefixes.note("third", [[7] * 20])
    assert prefixes.of([*head, 9]) == ()


def test_a_form_may_stand_in_the_checkpoint(
    tiny_cross_encoders: Mapping[str, Path], tmp_path: Path
) -> None:
    """Under ``rerank_plugins`` in config.json."""
    folder = Path(shutil.copytree(tiny_cross_encoders["bare_causal"], tmp_path / "x"))
    config = json.loads((folder / "config.json").read_text())
    config["rerank_plugins"] = {"form": "mxbai-rerank-v2"}
    (folder / "config.json").write_text(json.dumps(config))
    scorer = load_scorer(folder, precision="fp32", device="cpu")
    expected = by_the_card(folder, "mxbai-rerank-v2", SHORT, 8000)
    np.testing.assert_allclose(scorer.score(SHORT, ScoreOptions()).logits, expected, atol=TOLERANCE)


def test_a_wrong_form_is_named(tiny_cross_encoders: Mapping[str, Path]) -> None:
    """Unknown, or for another kind of model."""
    with pytest.raises(UnsupportedModelError, match=r"form must be one of .* got 'qwen'"):
        load_scorer(tiny_cross_encoders["bare_causal"], form="qwen").describe()
    with pytest.raises(UnsupportedModelError, match="form='qwen3-reranker' is for causal"):
        load_scorer(tiny_cross_encoders["bert"], form="qwen3-reranker").describe()


def test_an_instruction_where_none_is_taken_is_named(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """Never left out without a word."""
    with pytest.raises(InvalidInputError, match="takes none"):
        load_scorer(tiny_cross_encoders["bert"], instruction="Find").describe()
    with pytest.raises(InvalidInputError, match="must be text"):
        load_scorer(tiny_cross_encoders["prompted"], instruction=3).describe()


@pytest.mark.parametrize("name", ["prompted", "causal_chat"])
def test_an_instruction_is_the_prompt_of_what_sentence_transformers_saved(
    tiny_cross_encoders: Mapping[str, Path], name: str
) -> None:
    """By its text, or by the name of a saved prompt."""
    from cross_encoders import loaded

    folder = tiny_cross_encoders[name]
    model = loaded(folder)
    told = "Which law? "
    expected = model.predict(SHORT, prompt=told, activation_fn=torch.nn.Identity())
    for instruction in (told, *(["law"] if name == "prompted" else [])):
        scorer = load_scorer(folder, instruction=instruction, precision="fp32", device="cpu")
        np.testing.assert_allclose(
            scorer.score(SHORT, ScoreOptions()).logits, expected, atol=TOLERANCE
        )


def test_a_causal_reranker_ranks_under_deadline_and_windows(
    tiny_cross_encoders: Mapping[str, Path],
) -> None:
    """Everything that the core gives."""
    reranker = load_reranker(
        tiny_cross_encoders["causal_chat"], precision="fp32", long_passages="max"
    )
    long = " ".join(ALL_PASSAGES)
    plain = reranker.rerank(QUESTIONS["en"], [*ALL_PASSAGES, long])
    timed = reranker.rerank(QUESTIONS["en"], [*ALL_PASSAGES, long], deadline_ms=60_000)
    assert timed.keys == plain.keys
    np.testing.assert_allclose(timed.scores, plain.scores, atol=TOLERANCE)
    start, end = next(item.span for item in plain if item.text == long)
    assert 0 < end - start < len(long) / 2
