"""Hard negatives: what is drawn, and above all what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from toys import Overlap

from rerank_plugins.candidates import Candidate
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training import Group, best_window, mine_hard_negatives

RIGHT = "the lighthouse of alexandria was built in egypt under ptolemy the second"
CORPUS = {
    "right": RIGHT,
    "copy": RIGHT.upper() + " .",
    "chunk": "lighthouse of alexandria was built in egypt under ptolemy",
    "answer": "another text on egypt that also says Ptolemy II was king",
    "judged": "a text on an alexandria that was judged relevant too",
    "hard": "egypt has a lighthouse today",
    "harder": "who built what in egypt and when",
    "easy": "alexandria is also a town in virginia",
    "other": "bread and olives",
}
QUERY = {"q": "who built the lighthouse of alexandria in egypt"}


class Ranked(Overlap):
    """A first stage with fixed scores by passage."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores = [scores.get(doc, 0.0) for doc in CORPUS]

    def __len__(self) -> int:
        return len(self._scores)

    def search(
        self, query: str, k: int, *, mask: NDArray[np.bool_] | None = None
    ) -> list[Candidate]:
        """By score; 0 means no match."""
        found = [
            (score, key)
            for key, score in enumerate(self._scores)
            if score != 0 and (mask is None or mask[key])
        ]
        found.sort(key=lambda pair: (-pair[0], pair[1]))
        return [Candidate(key, "", score, rank) for rank, (score, key) in enumerate(found[:k], 1)]


def mine(first_stage: Any = None, qrels: Any = None, **options: Any) -> list[Group]:
    """Mines for the one question."""
    return mine_hard_negatives(
        CORPUS,
        QUERY,
        qrels or {"q": {"right": 1, "judged": 1}},
        first_stage or Overlap(list(CORPUS.values())),
        **options,
    )


def ids(groups: list[Group]) -> set[str]:
    """Which passages serve as negatives."""
    by_text = {text: doc for doc, text in CORPUS.items()}
    return {by_text[text] for group in groups for text in group.negatives}


def test_likely_right_answers_are_passed_over() -> None:
    """Copies, overlapping chunks, passages with the answer and judged ones are not negatives."""
    groups = mine(answers={"q": ["ptolemy ii"]})
    assert ids(groups) == {"hard", "harder", "easy"}
    assert [group.positive for group in groups] == [CORPUS["right"], CORPUS["judged"]]


def test_each_filter_is_what_keeps_its_passage_out() -> None:
    """Each passage comes in when its own check is off, but the copy of the very text never."""
    assert ids(mine()) == {"answer", "hard", "harder", "easy"}
    assert ids(mine(near_duplicate=1.1)) == {"answer", "hard", "harder", "easy", "chunk"}


def test_an_answer_counts_as_whole_words_only() -> None:
    """The answer ``virgin`` does not pass over a passage that says ``virginia``."""
    assert "easy" in ids(mine(answers={"q": ["virgin"]}))
    assert "easy" not in ids(mine(answers={"q": ["Virginia"]}))


def test_the_rank_window_bounds_where_negatives_come_from() -> None:
    """Only finds from the first to the last rank, both inside, are drawn."""
    stage = Ranked({"easy": 9, "hard": 8, "right": 7, "harder": 6, "answer": 5})
    assert ids(mine(stage, ranks=(2, 4))) == {"hard", "harder"}
    assert ids(mine(stage, ranks=(5, 5))) == {"answer"}


def test_the_margin_is_relative_to_the_relevant_passage() -> None:
    """Finds above (1 - margin) of the relevant passage's own score are passed over.

    That holds whether or not it is in the window, and with negative scores too.
    """
    up = {"easy": 11.0, "right": 10.0, "hard": 9.1, "harder": 8.9, "answer": 2.0}
    one = {"q": {"right": 1}}
    assert ids(mine(Ranked(up), one, margin=0.1)) == {"harder", "answer"}
    assert ids(mine(Ranked(up), one, margin=0.0)) == {"hard", "harder", "answer"}
    assert ids(mine(Ranked(up), one, margin=0.1, ranks=(3, 50))) == {"harder", "answer"}
    down = {"easy": -9.0, "right": -10.0, "hard": -10.5, "harder": -11.5}
    assert ids(mine(Ranked(down), one, margin=0.1)) == {"harder"}


def test_of_several_relevant_passages_the_lowest_score_sets_the_margin() -> None:
    """A find may be below the best of them and still above another."""
    scores = {"easy": 9.5, "right": 10.0, "hard": 5.5, "judged": 6.0, "harder": 5.0}
    both = {"q": {"right": 1, "judged": 1}}
    assert ids(mine(Ranked(scores), both, margin=0.1)) == {"harder"}


def test_a_relevant_passage_without_a_score_has_no_margin() -> None:
    """When the first stage does not match the relevant passage there is nothing to compare."""
    assert ids(mine(Ranked({"easy": 5, "hard": 1}), {"q": {"right": 1}}, margin=0.5)) == {
        "easy",
        "hard",
    }


def test_passages_judged_not_relevant_come_first() -> None:
    """A qrels score of 0 is used even where the first stage finds nothing, and before finds."""
    qrels = {"q": {"right": 1, "other": 0, "answer": 0}}
    assert ids(mine(qrels=qrels, negatives=1)) <= {"other", "answer"}
    assert ids(mine(qrels=qrels, negatives=2)) == {"other", "answer"}
    assert ids(mine(qrels=qrels, negatives=3)) > {"other", "answer"}


def test_drawing_is_seeded_and_does_not_depend_on_other_questions() -> None:
    """A question draws the same passages alone and among others; another seed draws others."""
    corpus = {f"d{i}": f"egypt number {i} of many words {i * 7} {i * 11}" for i in range(40)}
    queries = {f"q{i}": f"egypt question {i}" for i in range(10)}
    qrels = {f"q{i}": {f"d{i}": 1.0} for i in range(10)}
    stage = Overlap(list(corpus.values()))

    def mined(queries: Mapping[str, str], seed: int) -> dict[str, Group]:
        groups = mine_hard_negatives(
            corpus, queries, qrels, stage, negatives=3, ranks=(1, 40), seed=seed
        )
        return {group.query: group for group in groups}

    all_of_them = mined(queries, 1)
    assert all_of_them == mined(dict(reversed(queries.items())), 1)
    assert mined({"q3": queries["q3"]}, 1)[queries["q3"]] == all_of_them[queries["q3"]]
    assert all_of_them != mined(queries, 2)


def test_teacher_scores_travel_with_their_passages() -> None:
    """Each group gets the scores in the order of its passages; one missing score gives none."""
    scores = {"right": 3.0, "hard": 1.0, "harder": 0.5, "easy": -1.0, "answer": 0.1}
    qrels = {"q": {"right": 1}}
    (group,) = mine(qrels=qrels, ranks=(1, 50), teacher_scores={"q": {**scores, "judged": 0.0}})
    by_text = {CORPUS[doc]: score for doc, score in {**scores, "judged": 0.0}.items()}
    assert group.teacher_scores == tuple(by_text[text] for text in group.passages)
    (group,) = mine(qrels=qrels, teacher_scores={"q": {"right": 1.0}})
    assert group.teacher_scores is None


def test_questions_with_nothing_left_have_no_group() -> None:
    """No relevant passage, or no negative, gives no group instead of an empty one."""
    assert mine(qrels={"q": {"hard": 0}}) == []
    assert mine(Ranked({"right": 1.0, "copy": 0.5}), {"q": {"right": 1}}) == []


@pytest.mark.parametrize(
    "options",
    [{"ranks": (0, 5)}, {"ranks": (6, 5)}, {"negatives": 0}, {"margin": 1.0}, {"margin": -0.1}],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """The message gives the rule and the value."""
    with pytest.raises(InvalidInputError, match="must be"):
        mine(**options)


def test_a_first_stage_over_another_corpus_is_refused() -> None:
    """Keys would point at the wrong passages."""
    with pytest.raises(InvalidInputError, match="must index the corpus"):
        mine(Overlap(["one", "two"]))


WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "ω", "خبز"]), min_size=1)


@given(query=WORDS, passage=WORDS, size=st.integers(2, 6))
def test_a_window_is_a_slice_of_whole_words(
    query: list[str], passage: list[str], size: int
) -> None:
    """The window stands in the passage as it is and has as many words as asked for."""
    text = "  ".join(passage)
    window = best_window(" ".join(query), text, size)
    assert window in text
    assert window.split() == window.strip().split()
    assert len(window.split()) == min(size, len(passage))


def test_the_window_holds_what_the_question_asks_for() -> None:
    """Wherever the rare word of the question stands, inflected or not, the window has it."""
    filler = [f"mot{i}" for i in range(60)]
    for place in (0, 17, 31, 59):
        words = list(filler)
        words[place] = "Poznańskiego,"
        window = best_window("kto mieszkał w Poznaniu", " ".join(words), 12)
        assert "Poznańskiego" in window
