"""The same logits, to 1e-4 in fp32, as four independent ways of scoring the same pairs.

Each reference is slow and plain: one pair at a time, no batches, no padding, or another
library's own loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES
from texts import ALL_PASSAGES, PAIRS, PASSAGES, QUESTIONS
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rerank_plugins.models.loading import load_scorer
from rerank_plugins.reranking.reranker import Reranker
from rerank_plugins.scoring.base import ScoreOptions

TOLERANCE = 1e-4
# The smallest that holds no two rows, one that cuts the pairs unevenly, one that holds all.
BUDGETS = (1, 777, 100_000)

LONG_QUERY = " ".join(QUESTIONS.values()) * 3
LONG_PASSAGE = " ".join(ALL_PASSAGES)
LONG_PAIRS = [
    (QUESTIONS["ar"], LONG_PASSAGE),
    (QUESTIONS["fr"], " ".join(PASSAGES["pl"])),
    (LONG_QUERY, LONG_PASSAGE),
    (LONG_QUERY, PASSAGES["ar"][0]),
    (LONG_QUERY, "Nine."),
    (QUESTIONS["en"], "Nine."),
    (QUESTIONS["pl"], PASSAGES["pl"][2]),
]


@cache
def reference(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and fp32 model, straight from transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder), model.eval()


def forward(model: PreTrainedModel, ids: Sequence[int], types: Sequence[int] | None) -> np.ndarray:
    """Logits of one unpadded row."""
    extra = {} if types is None else {"token_type_ids": torch.tensor([list(types)])}
    with torch.inference_mode():
        output = model(
            input_ids=torch.tensor([list(ids)]), attention_mask=torch.ones(1, len(ids)), **extra
        )
    return output.logits[0].double().numpy()


def one_pair_at_a_time(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, pairs: Sequence[tuple[str, str]]
) -> np.ndarray:
    """What a careful user of transformers writes: shape (pairs, labels)."""
    rows = []
    for query, passage in pairs:
        with torch.inference_mode():
            inputs = tokenizer(query, passage, return_tensors="pt")
            rows.append(model(**inputs).logits[0].double().numpy())
    return np.stack(rows)


@cache
def logits_of_all_pairs(folder: Path) -> np.ndarray:
    """`one_pair_at_a_time` over `PAIRS`."""
    return one_pair_at_a_time(*reference(folder), PAIRS)


def join(
    tokenizer: PreTrainedTokenizerBase, query: Sequence[int], passage: Sequence[int]
) -> tuple[list[int], list[int] | None]:
    """Ids and types of a pair, from the models' published pair forms."""
    if "token_type_ids" in tokenizer.model_input_names:
        cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
        ids = [cls, *query, sep, *passage, sep]
        return ids, [0] * (len(query) + 2) + [1] * (len(passage) + 1)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return [bos, *query, eos, eos, *passage, eos], None


def flag_embedding(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    pairs: Sequence[tuple[str, str]],
    max_length: int,
) -> np.ndarray:
    """FlagEmbedding's ``FlagReranker.compute_score``, a pair at a time.

    The query without specials is capped at ``max_length * 3 // 4`` tokens, the passage at
    ``max_length``; then the two are joined by what ``prepare_for_model(query, passage,
    truncation="only_second", max_length=max_length)`` did in transformers 4: as many tokens as
    are too many, specials counted, go from the passage's end.
    """

    def alone(text: str, limit: int) -> list[int]:
        encoded = tokenizer(text, add_special_tokens=False, max_length=limit, truncation=True)
        return encoded["input_ids"]

    rows = []
    for query, passage in pairs:
        query_ids = alone(query, max_length * 3 // 4)
        passage_ids = alone(passage, max_length)
        whole, _ = join(tokenizer, query_ids, passage_ids)
        too_many = len(whole) - max_length
        if too_many > 0:
            assert len(passage_ids) > too_many, "the reference itself cannot cut this pair"
            passage_ids = passage_ids[:-too_many]
        rows.append(forward(model, *join(tokenizer, query_ids, passage_ids)))
    return np.stack(rows)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_logits_as_transformers_one_pair_at_a_time(
    tiny_checkpoints: Mapping[str, Path], name: str, budget: int
) -> None:
    """Batching and padding change no logit, whatever the budget."""
    folder = tiny_checkpoints[name]
    expected = logits_of_all_pairs(folder)[:, 0]
    scores = load_scorer(folder, device="cpu").score(PAIRS, ScoreOptions(batch_tokens=budget))
    assert expected.std() > 0.1, "the checkpoint does not tell pairs apart"
    np.testing.assert_allclose(scores.logits, expected, atol=TOLERANCE)
    assert not scores.truncated.any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_probabilities_as_the_cross_encoder_of_sentence_transformers(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """Where nothing is truncated, a probability is what ``CrossEncoder.predict`` gives."""
    from sentence_transformers import CrossEncoder

    folder = tiny_checkpoints[name]
    encoder = CrossEncoder(
        str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True
    )
    expected = encoder.predict(PAIRS, batch_size=7)
    scores = load_scorer(folder, device="cpu").score(PAIRS, ScoreOptions(batch_tokens=501))
    np.testing.assert_allclose(1 / (1 + np.exp(-scores.logits)), expected, atol=TOLERANCE)


def test_reranker_gives_the_probabilities_of_sentence_transformers_in_their_order(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """What a user sees is ``CrossEncoder.rank``: the same order, the same scores."""
    from sentence_transformers import CrossEncoder

    from rerank_plugins import load_reranker

    encoder = CrossEncoder(str(tiny_checkpoints["ara"]), device="cpu", local_files_only=True)
    expected = encoder.rank(QUESTIONS["ar"], ALL_PASSAGES)
    ranking = load_reranker(tiny_checkpoints["ara"]).rerank(QUESTIONS["ar"], ALL_PASSAGES)
    assert ranking.keys == [row["corpus_id"] for row in expected]
    np.testing.assert_allclose(ranking.scores, [row["score"] for row in expected], atol=TOLERANCE)


def test_a_checkpoint_without_activation_has_the_logits_of_sentence_transformers(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """Where the config says Identity, ``predict`` gives logits, and so do ours."""
    from sentence_transformers import CrossEncoder

    folder = tiny_checkpoints["identity"]
    encoder = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    scorer = load_scorer(folder, device="cpu")
    expected = encoder.predict(PAIRS)
    assert expected.min() < 0, "predict() put an activation over the logits after all"
    np.testing.assert_allclose(scorer.score(PAIRS, ScoreOptions()).logits, expected, atol=TOLERANCE)
    assert scorer.describe()["activation"] == "identity"


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("max_length", [48, 101])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_same_logits_as_flag_embedding_with_truncated_pairs(
    tiny_checkpoints: Mapping[str, Path], name: str, max_length: int, budget: int
) -> None:
    """The query capped at three quarters, the passage cut to what is left."""
    folder = tiny_checkpoints[name]
    expected = flag_embedding(*reference(folder), LONG_PAIRS, max_length)[:, 0]
    scores = load_scorer(folder, max_length=max_length, device="cpu").score(
        LONG_PAIRS, ScoreOptions(batch_tokens=budget)
    )
    np.testing.assert_allclose(scores.logits, expected, atol=TOLERANCE)
    assert scores.truncated.tolist()[:5] == [True] * 5
    assert not scores.truncated[5]


@pytest.mark.parametrize("name", ["bge", "rstar", "camembert"])
def test_same_logits_as_flag_embedding_at_the_model_s_own_length(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """At 512 tokens too, where one more token would index past the positions."""
    folder = tiny_checkpoints[name]
    pairs = [(QUESTIONS["ar"], LONG_PASSAGE * 2), (LONG_QUERY * 4, LONG_PASSAGE)]
    expected = flag_embedding(*reference(folder), pairs, 512)[:, 0]
    scores = load_scorer(folder, device="cpu").score(pairs, ScoreOptions())
    np.testing.assert_allclose(scores.logits, expected, atol=TOLERANCE)
    assert scores.truncated.all()


def test_the_polish_card_s_joined_string_is_the_pair_when_nothing_is_truncated(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """``f"{query}</s></s>{answer}"``, the Polish card's form, gives the same ids and logits."""
    folder = tiny_checkpoints["polish"]
    tokenizer, model = reference(folder)
    expected = []
    for query, passage in PAIRS:
        joined = tokenizer(f"{query}</s></s>{passage}")["input_ids"]
        assert joined == tokenizer(query, passage)["input_ids"]
        expected.append(forward(model, joined, None)[0])
    scores = load_scorer(folder, device="cpu").score(PAIRS, ScoreOptions(batch_tokens=777))
    np.testing.assert_allclose(scores.logits, expected, atol=TOLERANCE)


def test_the_polish_model_reads_eight_thousand_tokens(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """A passage of thousands of tokens is read whole by the model whose length allows it."""
    folder = tiny_checkpoints["polish"]
    tokenizer, model = reference(folder)
    passage = " ".join(ALL_PASSAGES * 4)
    length = len(tokenizer(QUESTIONS["pl"], passage)["input_ids"])
    assert 2000 < length < 8192
    scores = load_scorer(folder, device="cpu").score([(QUESTIONS["pl"], passage)], ScoreOptions())
    expected = one_pair_at_a_time(tokenizer, model, [(QUESTIONS["pl"], passage)])[0, 0]
    np.testing.assert_allclose(scores.logits, [expected], atol=TOLERANCE)
    assert not scores.truncated.any()


@pytest.mark.parametrize(("name", "relevant"), [("two_labels", 1), ("two_labels_reversed", 0)])
def test_two_label_heads_score_by_the_relevant_class(
    tiny_checkpoints: Mapping[str, Path], name: str, relevant: int
) -> None:
    """The probability is the softmax of the class whose name says relevant."""
    folder = tiny_checkpoints[name]
    logits = torch.tensor(logits_of_all_pairs(folder))
    expected = logits.softmax(dim=1)[:, relevant].numpy()
    ranking = Reranker(load_scorer(folder, device="cpu"), deduplicate=False).rerank(
        QUESTIONS["ar"], [passage for query, passage in PAIRS if query == QUESTIONS["ar"]]
    )
    rows = [row for row, (query, _) in enumerate(PAIRS) if query == QUESTIONS["ar"]]
    found = {item.candidate.key: item.score for item in ranking}
    assert len(ranking) == len(rows)
    np.testing.assert_allclose(
        [found[key] for key in range(len(rows))], expected[rows], atol=TOLERANCE
    )


def test_token_types_reach_a_model_that_has_them(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """R-star is a BERT: without its token types every score would be another one."""
    folder = tiny_checkpoints["rstar"]
    tokenizer, model = reference(folder)
    with_types, without = [], []
    for query, passage in PAIRS:
        encoded = tokenizer(query, passage)
        with_types.append(forward(model, encoded["input_ids"], encoded["token_type_ids"])[0])
        without.append(forward(model, encoded["input_ids"], None)[0])
    scores = load_scorer(folder, device="cpu").score(PAIRS, ScoreOptions()).logits
    np.testing.assert_allclose(scores, with_types, atol=TOLERANCE)
    assert np.median(np.abs(scores - np.asarray(without))) > 100 * TOLERANCE


def test_a_half_precision_checkpoint_is_scored_in_fp32_on_a_cpu(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """On its own, transformers would keep fp16 weights in fp16, slow and coarse."""
    folder = tiny_checkpoints["fp16"]
    stored = AutoModelForSequenceClassification.from_pretrained(folder)
    assert stored.dtype == torch.float16, "the fixture is not stored in half precision"
    scorer = load_scorer(folder, device="cpu")
    expected = logits_of_all_pairs(folder)[:, 0]
    np.testing.assert_allclose(scorer.score(PAIRS, ScoreOptions()).logits, expected, atol=TOLERANCE)
    assert scorer.describe()["precision"] == "fp32"


@pytest.mark.parametrize("name", ["no_limit", "sentencepiece_only", "pickle_only"])
def test_the_same_model_saved_in_another_way_scores_the_same(
    tiny_checkpoints: Mapping[str, Path], name: str
) -> None:
    """No stated length, no tokenizer.json, pickled weights: the original's scores."""
    original = load_scorer(tiny_checkpoints["bge"], device="cpu")
    other = load_scorer(tiny_checkpoints[name], device="cpu", allow_pickle_weights=True)
    np.testing.assert_allclose(
        other.score(PAIRS, ScoreOptions()).logits,
        original.score(PAIRS, ScoreOptions()).logits,
        atol=TOLERANCE,
    )
    assert other.describe()["max_length"] == 512


def test_a_vocabulary_file_is_as_good_as_a_tokenizer_json(
    tiny_checkpoints: Mapping[str, Path],
) -> None:
    """Older BERT checkpoints ship vocab.txt alone; case and accents are kept."""
    original = load_scorer(tiny_checkpoints["rstar"], device="cpu")
    older = load_scorer(tiny_checkpoints["vocabulary_only"], device="cpu")
    np.testing.assert_allclose(
        older.score(PAIRS, ScoreOptions()).logits,
        original.score(PAIRS, ScoreOptions()).logits,
        atol=TOLERANCE,
    )


WINDOW_LENGTH = 64


def windows_of(
    tokenizer: PreTrainedTokenizerBase, query: str, passage: str
) -> list[tuple[list[int], list[int]]]:
    """The fewest windows that fit, their sizes as equal as whole numbers can be."""
    query_ids = tokenizer(query, add_special_tokens=False)["input_ids"][: WINDOW_LENGTH * 3 // 4]
    passage_ids = tokenizer(passage, add_special_tokens=False)["input_ids"]
    specials = len(join(tokenizer, [], [])[0])
    room = WINDOW_LENGTH - specials - len(query_ids)
    if len(passage_ids) <= room:
        return [(query_ids, passage_ids)]
    count = 1
    while len(passage_ids) > count * room:
        count += 1
    # Each window ends where its exact share of the passage ends, rounded down.
    windows, start = [], 0
    for number in range(1, count + 1):
        end = int(number * len(passage_ids) / count)
        windows.append((query_ids, passage_ids[start:end]))
        start = end
    return windows


@pytest.mark.parametrize("mode", ["max", "mean", "first"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_windows_join_as_a_plain_loop_over_them_does(
    tiny_checkpoints: Mapping[str, Path], name: str, mode: str
) -> None:
    """Long passages by max, mean or first window, against one forward pass a window."""
    folder = tiny_checkpoints[name]
    tokenizer, model = reference(folder)
    expected, parts = [], []
    for query, passage in LONG_PAIRS:
        windows = windows_of(tokenizer, query, passage)
        if mode == "first" and len(windows) > 1:
            query_ids, _ = windows[0]
            whole = [token for _, window in windows for token in window]
            room = WINDOW_LENGTH - len(join(tokenizer, query_ids, [])[0])
            windows = [(query_ids, whole[:room])]
        logits = [
            forward(model, *join(tokenizer, query_ids, window))[0] for query_ids, window in windows
        ]
        parts.append(len(windows))
        expected.append({"max": max, "mean": np.mean, "first": lambda some: some[0]}[mode](logits))
    scores = load_scorer(folder, max_length=WINDOW_LENGTH, device="cpu").score(
        LONG_PAIRS, ScoreOptions(batch_tokens=333, long_passages=mode)
    )
    assert mode == "first" or max(parts) > 3
    cut = load_scorer(folder, max_length=WINDOW_LENGTH, device="cpu").score(
        LONG_PAIRS, ScoreOptions(long_passages="truncate")
    )
    assert mode == "first" or np.abs(cut.logits - expected).max() > 0.01
    np.testing.assert_allclose(scores.logits, expected, atol=TOLERANCE)
