"""Packing a ranking into a prompt: the budget, the account of every passage, and the cut."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.candidates import Candidate, Ranked, Ranking
from rerank_plugins.context import Context, ContextBuilder, ContextPassage, context_passages
from rerank_plugins.context import builder as builder_module
from rerank_plugins.context.sentences import sentence_ends
from rerank_plugins.errors import InvalidInputError
from rerank_plugins.models.catalog import bundled_folder
from rerank_plugins.samples import LANGUAGES, load_passages, load_questions
from rerank_plugins.scoring.long_texts import BLOCK

CUT_MARK = " […]"


def count_words(text: str) -> int:
    """White-space words: a counter that adds up."""
    return len(text.split())


def count_with_special_tokens(text: str) -> int:
    """Pieces of three characters and two special tokens: a counter that does not add up."""
    return 2 + (len(text) + 2) // 3


COUNTERS = (count_words, len, count_with_special_tokens)


def ranking_of(*scores: float, source: str = "model") -> Ranking:
    """A ranking whose passages are named after their rank."""
    items = tuple(
        Ranked(Candidate(key=i, text=f"passage number {i}"), score, None, i + 1, source=source)
        for i, score in enumerate(scores)
    )
    scale = "probability" if source == "model" else "first_stage"
    return Ranking("query", items, "model", scale, len(items))


# --- properties -------------------------------------------------------------------------------

SENTENCES = [
    sentence + stop
    for passage in load_passages()
    for stop in [passage.text[-1]]
    for sentence in passage.text.replace("\n", " ").replace("؟", ".").split(".")
    if sentence.strip()
]
passage_texts = st.one_of(
    st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=4).map("".join),
    st.sampled_from([passage.text for passage in load_passages()]),
    st.text(max_size=60),
)
passages_lists = st.lists(
    st.builds(
        ContextPassage,
        text=passage_texts,
        source=st.none()
        | st.sampled_from(["guide.pdf", "كتاب الطبخ", "a\nb", ""])
        | st.text(max_size=8),
        score=st.none() | st.floats(-5, 5),
    ),
    max_size=8,
)
builders = st.builds(
    ContextBuilder,
    st.integers(0, 400),
    count_tokens=st.sampled_from(COUNTERS),
    min_score=st.none() | st.floats(-5, 5),
    order=st.sampled_from(["relevance", "edges"]),
    near_duplicates=st.none() | st.floats(0.1, 1),
    label=st.sampled_from(["[{}]".format, "({})".format, "<doc {}>".format]),
    separator=st.sampled_from(["\n\n", "\n---\n"]),
)


@given(builders, passages_lists)
def test_the_budget_covers_the_whole_text_and_is_never_exceeded(
    builder: ContextBuilder, passages: list[ContextPassage]
) -> None:
    """Whatever the counter, the order and the passages, the text stays within the budget."""
    context = builder.build(passages)
    assert context.tokens <= context.max_tokens == builder.max_tokens
    assert builder.count_tokens is not None
    assert context.tokens == (builder.count_tokens(context.text) if context.text else 0)


@given(builders, passages_lists)
def test_every_passage_is_either_in_the_context_or_reported(
    builder: ContextBuilder, passages: list[ContextPassage]
) -> None:
    """Included and omitted passages together are the input, each once, unchanged."""
    before = list(passages)
    context = builder.build(passages)
    account = {p.position: p.passage for p in (*context.passages, *context.omitted)}
    assert len(context.passages) + len(context.omitted) == len(passages)
    assert account == dict(enumerate(passages))
    assert [left.position for left in context.omitted] == sorted(
        left.position for left in context.omitted
    )
    assert passages == before


@given(builders, passages_lists)
def test_passages_are_whole_unless_a_single_one_is_cut(
    builder: ContextBuilder, passages: list[ContextPassage]
) -> None:
    """A passage is in the text from end to end; only one that stands alone may be cut."""
    context = builder.build(passages)
    for packed in context.passages:
        assert packed.text in context.text
        if packed.cut:
            assert len(context.passages) == 1
            kept = packed.text.removesuffix(CUT_MARK)
            assert kept != packed.text
            assert kept
            assert packed.passage.text.strip().startswith(kept)
        else:
            assert packed.text == packed.passage.text.strip()


@given(builders, passages_lists)
def test_the_text_is_the_labelled_passages_and_nothing_else(
    builder: ContextBuilder, passages: list[ContextPassage]
) -> None:
    """Labels ascend from 1 in the order of the text, each on a separate line."""
    context = builder.build(passages)
    assert [p.label for p in context.passages] == [
        builder.label(number) for number in range(1, len(context.passages) + 1)
    ]
    rest = context.text
    for number, packed in enumerate(context.passages):
        if number:
            assert rest.startswith(builder.separator)
            rest = rest[len(builder.separator) :]
        header, _, rest = rest.partition("\n")
        assert header.split() == [*packed.label.split(), *(packed.passage.source or "").split()]
        assert rest.startswith(packed.text)
        rest = rest[len(packed.text) :]
    assert rest == ""


@given(builders, passages_lists)
def test_the_same_input_gives_the_same_context(
    builder: ContextBuilder, passages: list[ContextPassage]
) -> None:
    """Building twice changes nothing."""
    assert builder.build(passages) == builder.build(iter(passages))


@given(st.integers(0, 300), passages_lists, st.sampled_from(["relevance", "edges"]))
def test_what_was_left_out_for_the_budget_would_not_have_fitted(
    max_tokens: int, passages: list[ContextPassage], order: str
) -> None:
    """With a counter that adds up, no passage omitted for the budget has room at the end."""
    builder = ContextBuilder(max_tokens, count_tokens=count_words, order=order)
    context = builder.build(passages)
    if any(p.cut for p in context.passages):
        return
    for left in context.omitted:
        if left.reason == "budget":
            alone = ContextBuilder(10**6, count_tokens=count_words).build([left.passage])
            assert context.tokens + alone.tokens > max_tokens


def jaccard(first: str, second: str) -> float:
    """Resemblance of lower-case unaccented three-word shingles, written a second time."""

    def shingles(text: str) -> set[str]:
        folded = unicodedata.normalize("NFKD", text).casefold().replace("\N{ARABIC TATWEEL}", "")
        folded = "".join(c for c in folded if not unicodedata.combining(c))
        words = "".join(c if c.isalnum() or c == "_" else " " for c in folded).split()
        if len(words) < 3:
            return {" ".join(words) or folded}
        return {" ".join(words[i : i + 3]) for i in range(len(words) - 2)}

    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


@given(passages_lists, st.floats(0.1, 1), st.floats(-5, 5))
def test_scores_and_resemblance_decide_who_comes_in(
    passages: list[ContextPassage], limit: float, minimum: float
) -> None:
    """With room for all, exactly the low-scored, the blank and the resembling stay out."""
    builder = ContextBuilder(10**6, count_tokens=len, near_duplicates=limit, min_score=minimum)
    context = builder.build(passages)
    inside = [p.passage for p in context.passages]
    for first, second in combinations(inside, 2):
        assert jaccard(first.text.strip(), second.text.strip()) < limit
    for left in context.omitted:
        text, score = left.passage.text, left.passage.score
        earlier = [p.passage.text for p in context.passages if p.position < left.position]
        expected = (
            "empty"
            if not text.strip()
            else "score"
            if score is not None and score < minimum
            else "duplicate"
        )
        assert left.reason == expected
        if expected == "duplicate":
            assert max(jaccard(text.strip(), other.strip()) for other in earlier) >= limit
    assert all(p.score is None or p.score >= minimum for p in inside)


@given(st.integers(0, 12))
def test_edges_puts_the_best_at_both_ends(count: int) -> None:
    """The order is LlamaIndex's on the same scores, turned so that the best is always first.

    Its LongContextReorder puts the best last when the number of passages is even.
    """
    postprocessor = pytest.importorskip("llama_index.core.postprocessor")
    schema = pytest.importorskip("llama_index.core.schema")
    ranking = ranking_of(*(1 - i / 20 for i in range(count)))
    context = ContextBuilder(10**6, count_tokens=len, order="edges").build(ranking)
    nodes = [
        schema.NodeWithScore(node=schema.TextNode(text=item.text), score=item.score)
        for item in ranking
    ]
    expected = [n.text for n in postprocessor.LongContextReorder().postprocess_nodes(nodes)]
    if count % 2 == 0:
        expected.reverse()
    assert [p.text for p in context.passages] == expected
    assert [p.position for p in context.passages[:1]] == [0][:count]


# --- examples ---------------------------------------------------------------------------------


def test_the_layout_is_a_label_line_and_the_passage() -> None:
    """The whole text of a small context, with and without sources, over two languages."""
    context = ContextBuilder(50, count_tokens=count_words).build(
        [("أسس إدريس الأول مدينة فاس.", "history/fez.md", 0.9), " Fez lies on a river.\n"]
    )
    assert str(context) == (
        "[1] history/fez.md\nأسس إدريس الأول مدينة فاس.\n\n[2]\nFez lies on a river."
    )
    assert context.tokens == 13
    assert context.omitted == ()


def test_a_ranking_is_packed_best_first_with_its_scores() -> None:
    """Ranked items keep order, score and position, and sources can be given beside them."""
    ranking = ranking_of(0.9, 0.5, 0.1)
    passages = context_passages(ranking, sources=["a", None, "c"])
    assert [p.source for p in passages] == ["a", None, "c"]
    context = ContextBuilder(8, count_tokens=count_words).build(ranking)
    assert [(p.label, p.position, p.passage.score) for p in context.passages] == [
        ("[1]", 0, 0.9),
        ("[2]", 1, 0.5),
    ]
    assert [(left.position, left.reason) for left in context.omitted] == [(2, "budget")]


def test_a_slice_of_a_ranking_and_a_mix_of_kinds_are_accepted() -> None:
    """Everything that stands for a passage may stand in one list."""
    ranking = ranking_of(0.9, 0.5)
    context = ContextBuilder(100, count_tokens=count_words).build(
        [ranking[0], "plain text here", ("with source", "s", np.float32(0.25)), ContextPassage("x")]
    )
    assert [p.passage.score for p in context.passages] == [0.9, None, 0.25, None]
    assert type(context.passages[2].passage.score) is float
    assert len(ContextBuilder(100, count_tokens=count_words).build(ranking[:1]).passages) == 1


def test_shorter_passages_fill_the_room_that_a_long_one_left() -> None:
    """A passage that does not fit is passed over, not cut, while others can go in."""
    long = ("word " * 50).strip() + "."
    context = ContextBuilder(12, count_tokens=count_words).build(
        ["one two three", long, "four five"]
    )
    assert [p.position for p in context.passages] == [0, 2]
    assert not any(p.cut for p in context.passages)
    assert [(left.position, left.reason) for left in context.omitted] == [(1, "budget")]


def test_the_minimum_score_is_inclusive_and_zero_is_a_minimum() -> None:
    """A score equal to the minimum stays; 0.0 does not count as missing."""
    passages: list[tuple[str, str | None, float | None]] = [
        ("first", None, 0.0),
        ("second", None, -0.5),
        ("third", None, None),
    ]
    context = ContextBuilder(100, count_tokens=count_words, min_score=0.0).build(passages)
    assert [p.position for p in context.passages] == [0, 2]
    assert [left.reason for left in context.omitted] == ["score"]


def test_first_stage_scores_are_not_held_to_a_minimum_meant_for_the_model() -> None:
    """After a fallback to the first-stage order, every passage stays in the running."""
    builder = ContextBuilder(100, count_tokens=count_words, min_score=0.6)
    assert len(builder.build(ranking_of(1, 1 / 2, 1 / 3)).passages) == 1
    assert len(builder.build(ranking_of(1, 1 / 2, 1 / 3, source="first_stage")).passages) == 3


def test_the_same_words_with_other_marks_are_a_duplicate() -> None:
    """Vowel signs, tatweel, case, accents and punctuation make no new passage."""
    builder = ContextBuilder(1000, count_tokens=count_words)
    for first, second in [
        ("يكتب الطالب الدرس في دفتره", "يَكْتُبُ الطَّالِبُ الدَّرْسَ فِي دَفْتَـــرِهِ."),
        ("L'été à la mer, toujours", "L’ÉTÉ À LA MER — TOUJOURS !"),
        ("Zażółć gęślą jaźń teraz", "zażółć gęślą jaźń TERAZ"),
    ]:
        context = builder.build([first, second])
        assert [left.reason for left in context.omitted] == ["duplicate"]
        kept = ContextBuilder(1000, count_tokens=count_words, near_duplicates=None)
        assert len(kept.build([first, second]).passages) == 2


def test_by_default_a_passage_that_differs_in_one_number_stays() -> None:
    """Only a lower limit, chosen by the caller, drops lightly edited copies."""
    first = load_passages("en")[0].text
    second = first.replace("ten minutes", "nine minutes")
    assert second != first
    assert len(ContextBuilder(1000, count_tokens=count_words).build([first, second]).passages) == 2
    strict = ContextBuilder(1000, count_tokens=count_words, near_duplicates=0.8)
    assert [left.reason for left in strict.build([first, second]).omitted] == ["duplicate"]


@pytest.mark.parametrize(
    ("text", "max_tokens", "expected"),
    [
        ("هل تعلم؟ نعم، أعلم ذلك جيدًا. ثم مضى الرجل.", 5, "هل تعلم؟"),
        ("الماء نافع؛ والهواء نافع كذلك. ثم مضى الرجل.", 5, "الماء نافع؛"),
        ("وصل الضيوف. زار د. أحمد المدينة القديمة معهم.", 6, "وصل الضيوف."),
        ("Il a dit : « Bonjour ! » Puis il est parti.", 11, "Il a dit : « Bonjour ! »"),
        ("Il pleut. M. Dupont vient tout de même.", 6, "Il pleut."),
        ("Zaczęło padać. Przyszedł prof. Nowak z żoną.", 6, "Zaczęło padać."),
        ("Wrócił późno. Czytał m.in. Mickiewicza i Prusa.", 6, "Wrócił późno."),
        ("He paid $3.50. It was Dr. Smith who left.", 8, "He paid $3.50."),
        ("They had met before. She liked J. Doe more.", 9, "They had met before."),
        ('He said "Stop!" Then he ran away from us all.', 7, 'He said "Stop!"'),
        ('Nobody moved. "Stop!" he said to all of us.', 7, "Nobody moved."),
        ("Wash it twice. 2. Dry it well in the shade.", 6, "Wash it twice."),
        ("A heading\n\nThe first line of the body goes on.", 6, "A heading"),
        ("wrapped by a file\nthat breaks lines anywhere. End of it.", 11,
         "wrapped by a file\nthat breaks lines anywhere."),
    ],
)  # fmt: skip
def test_a_passage_that_stands_alone_is_cut_at_the_end_of_a_sentence(
    text: str, max_tokens: int, expected: str
) -> None:
    """The last sentence that fits with label and mark is the last one kept, in four languages."""
    context = ContextBuilder(max_tokens, count_tokens=count_words).build([text])
    (packed,) = context.passages
    assert packed.cut
    assert packed.text == expected + CUT_MARK
    assert context.text == f"[1]\n{expected}{CUT_MARK}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_cutting_a_long_passage_keeps_as_many_sentences_as_fit(language: str) -> None:
    """At every budget the cut is the longest run of whole sentences that the budget allows."""
    text = max((p.text for p in load_passages(language)), key=len)
    ends = sentence_ends(text)
    assert len(ends) > 8
    for max_tokens in range(20, count_words(text), 7):
        context = ContextBuilder(max_tokens, count_tokens=count_words).build([text])
        room = max_tokens - 2  # label and mark
        fitting = [end for end in ends if count_words(text[:end]) <= room]
        if fitting:
            assert context.passages[0].text == text[: fitting[-1]].rstrip() + CUT_MARK


def test_without_a_sentence_that_fits_the_cut_is_after_a_word() -> None:
    """A long first sentence is cut between words, and a first word too long is left out."""
    context = ContextBuilder(5, count_tokens=count_words).build(
        ["كلمة بعد كلمة بعد كلمة بعد كلمة."]
    )
    assert context.passages[0].text == "كلمة بعد كلمة […]"
    nothing = ContextBuilder(10, count_tokens=len).build(["unbreakable" * 3, "another" * 9])
    assert nothing.text == ""
    assert nothing.tokens == 0
    assert [left.reason for left in nothing.omitted] == ["budget", "budget"]


def test_the_best_passage_is_the_one_cut() -> None:
    """When none fits, the first that no other rule left out is cut; the rest are reported."""
    sentence = "One two three four five. "
    context = ContextBuilder(8, count_tokens=count_words, min_score=0.5).build(
        [(sentence * 3, "low", 0.1), (sentence * 4, "best", 0.9), (sentence * 5, "next", 0.8)]
    )
    assert [(p.position, p.cut) for p in context.passages] == [(1, True)]
    assert [(left.position, left.reason) for left in context.omitted] == [
        (0, "score"),
        (2, "budget"),
    ]


def test_arabic_lines_reach_the_prompt_untouched() -> None:
    """No direction marks are added, and no label or Latin source shares a line with a passage."""
    passages = load_passages("ar")
    context = ContextBuilder(10**6, count_tokens=len).build(
        [(p.text, f"file-{p.id}.pdf", 1.0) for p in passages]
    )
    lines = context.text.split("\n")
    for number, passage in enumerate(passages, start=1):
        header = f"[{number}] file-{passage.id}.pdf"
        body = passage.text.split("\n")
        start = lines.index(header)
        assert lines[start + 1 : start + 1 + len(body)] == body
    assert not any(unicodedata.category(c) == "Cf" for c in context.text)


def test_labels_and_separators_are_the_callers() -> None:
    """A label can be any text of the number, or none at all."""
    builder = ContextBuilder(
        100, count_tokens=count_words, label="<doc {}>".format, separator="\n***\n"
    )
    assert builder.build(["one", "two"]).text == "<doc 1>\none\n***\n<doc 2>\ntwo"
    bare = ContextBuilder(100, count_tokens=count_words, label=lambda _: "")
    assert bare.build(["one", ("two", "source", None)]).text == "one\n\nsource\ntwo"


def test_the_account_is_json() -> None:
    """`to_dict` holds native types only, numpy budgets and scores included."""
    context = ContextBuilder(np.int64(3), count_tokens=lambda t: np.int64(len(t.split()))).build(
        [("one two", "s", np.float32(0.5)), "three"]
    )
    assert json.loads(json.dumps(context.to_dict())) == {
        "text": "[1]\nthree",
        "tokens": 2,
        "max_tokens": 3,
        "passages": [
            {
                "label": "[1]",
                "position": 1,
                "source": None,
                "score": None,
                "text": "three",
                "cut": False,
            }
        ],
        "omitted": [{"position": 0, "source": "s", "score": 0.5, "reason": "budget"}],
    }


@pytest.mark.parametrize("items", [[], iter([]), ranking_of()])
def test_no_passages_give_an_empty_context(items: object) -> None:
    """Nothing in, nothing out, and no tokens."""
    context = ContextBuilder(10, count_tokens=count_with_special_tokens).build(items)
    assert context == Context("", (), (), 0, 10)


def test_a_budget_of_zero_leaves_everything_out() -> None:
    """`max_tokens=0` is a budget, not a missing option."""
    context = ContextBuilder(0, count_tokens=count_words).build(["one", "two"])
    assert context.text == ""
    assert [left.reason for left in context.omitted] == ["budget", "budget"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": -1}, "max_tokens must be a whole number of at least 0, but got -1"),
        ({"max_tokens": True}, "max_tokens must be a whole number"),
        ({"order": "random"}, "order must be 'relevance' or 'edges', but got 'random'"),
        ({"min_score": float("nan")}, "min_score must be a finite number, but got nan"),
        ({"near_duplicates": 0}, "near_duplicates must be above 0 and at most 1"),
        ({"near_duplicates": 1.5}, "near_duplicates must be above 0 and at most 1"),
    ],
)
def test_bad_options_are_named_with_their_rule(options: dict[str, object], message: str) -> None:
    """An option out of range says what it must be and what it was."""
    with pytest.raises(InvalidInputError, match=message):
        ContextBuilder(**options)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("one passage", "got one string"),
        ([None], "number 0 is NoneType"),
        ([("text", "source")], "number 0 is tuple"),
        (["fine", (3, None, None)], "that of number 1 is int"),
        ([("text", 3, None)], "source must be a string or None, but that of number 0 is int"),
        ([("text", None, float("inf"))], "the score of passage 0 must be a finite number"),
        ([("text", None, "high")], "the score of passage 0 must be a finite number"),
    ],
)
def test_bad_passages_are_named_by_their_number(items: object, message: str) -> None:
    """Anything but a passage is refused before anything is packed."""
    with pytest.raises(InvalidInputError, match=message):
        ContextBuilder(10, count_tokens=count_words).build(items)


def test_sources_must_match_the_passages_in_number() -> None:
    """A list of sources of another length is an error with both lengths."""
    with pytest.raises(InvalidInputError, match="1 sources for 2 passages"):
        context_passages(["one", "two"], sources=["a"])


@pytest.mark.parametrize("answer", [-1, 2.5, None])
def test_a_counter_that_gives_no_count_is_an_error(answer: object) -> None:
    """The counter's answer must be a whole number of at least 0."""
    with pytest.raises(InvalidInputError, match="what count_tokens returns"):
        ContextBuilder(10, count_tokens=lambda _: answer).build(["text"])


def test_ten_thousand_passages_cost_one_short_count_each() -> None:
    """Once the budget is full, a passage without room is counted alone and once."""
    lengths: list[int] = []

    def counter(text: str) -> int:
        lengths.append(len(text))
        return count_words(text)

    texts = [f"passage {i} has exactly nine words in all, yes" for i in range(10_000)]
    context = ContextBuilder(105, count_tokens=counter).build(texts)
    assert len(context.passages) == 10
    assert len(context.omitted) == 9_990
    assert len(lengths) == 10_000 + 9  # alone, the first is the whole text
    assert sum(lengths[-9_000:]) < 9_000 * 80


def test_cutting_a_megabyte_counts_little_more_than_the_megabyte() -> None:
    """The search for the cut tries only texts about as long as the budget."""
    lengths: list[int] = []

    def counter(text: str) -> int:
        lengths.append(len(text))
        return count_words(text)

    text = "هذه جملة قصيرة من خمس كلمات. " * 40_000
    context = ContextBuilder(100, count_tokens=counter).build([text])
    assert context.passages[0].cut
    assert 90 <= context.tokens <= 100
    assert sum(lengths) < 1.1 * len(text)


@pytest.mark.parametrize(
    "text",
    ["." * 300_000 + "x", '."' * 150_000, "\n \n" * 100_000, "a" * 300_000, "." + " " * 300_000],
    ids=["stops", "quotes", "blank lines", "one word", "spaces"],
)
def test_no_text_makes_the_search_for_sentences_slow(text: str) -> None:
    """Runs that a careless pattern would read once for every character come to an end."""
    ends = sentence_ends(text)
    assert ends == sorted(ends)
    assert all(0 <= end < len(text) for end in ends)


@pytest.mark.parametrize(
    "text", ["\ud800 lone. Surrogate", "nul\x00 byte. More", "\u202eturned. Back"]
)
def test_odd_characters_pass_through(text: str) -> None:
    """What came in comes out; packing does not clean."""
    assert ContextBuilder(50, count_tokens=count_words).build([text]).passages[0].text == text


# --- the default counter ----------------------------------------------------------------------


@pytest.fixture
def tokenizer_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small trained tokenizer in place of the model's, saved with truncation and padding."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=3000, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    )
    tokenizer.train_from_iterator([p.text for p in load_passages()], trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16, pad_id=3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(builder_module, "bundled_folder", lambda: tmp_path)
    builder_module._bundled_tokenizer.cache_clear()
    yield tmp_path
    builder_module._bundled_tokenizer.cache_clear()


@pytest.mark.usefixtures("tokenizer_folder")
def test_the_default_counts_the_whole_text_without_special_tokens(tokenizer_folder: Path) -> None:
    """A tokenizer file that truncates and pads must not hide what the text costs."""
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    reference.no_truncation()
    reference.no_padding()
    passages = load_passages("ar")[:6]
    context = ContextBuilder(400).build([p.text for p in passages])
    assert context.tokens == len(reference.encode(context.text).ids) - 2
    assert 200 < context.tokens <= 400
    assert context.omitted


@pytest.mark.usefixtures("tokenizer_folder")
def test_the_default_counts_what_cannot_be_encoded() -> None:
    """A lone surrogate is counted like a replacement character, and kept."""
    context = ContextBuilder(400).build(["\ud83d half an emoji"])
    assert context.passages[0].text == "\ud83d half an emoji"
    assert context.tokens > 0


@pytest.mark.skipif(
    not (bundled_folder() / "tokenizer.json").exists(), reason="the model that ships is not here"
)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_shipped_tokenizer_packs_the_samples(language: str) -> None:
    """With the real tokenizer a budget of 300 holds several passages of any language."""
    question = load_questions(language)[0]
    wanted = [*question.relevant, *question.distractors]
    texts = [p.text for p in load_passages(language) if p.id in wanted]
    context = ContextBuilder(300).build(texts)
    assert len(context.passages) >= 2
    assert 150 < context.tokens <= 300


def test_a_large_budget_is_filled_in_linear_time() -> None:
    """What is counted in all stays within a few times the text, at any number of passages."""
    lengths: list[int] = []

    def counter(text: str) -> int:
        lengths.append(len(text))
        return count_words(text)

    texts = [f"passage {i} " + "with some forty words of its own " * 6 for i in range(4000)]
    builder = ContextBuilder(10**6, count_tokens=counter)
    context = builder.build(texts)
    assert len(context.passages) == len(texts)
    assert context.tokens == count_words(context.text)
    assert sum(lengths) < 20 * len(context.text)


@pytest.mark.parametrize("extra", [-1, 0, 3], ids=["merging", "adding", "with special tokens"])
def test_a_long_context_never_exceeds_its_budget_and_leaves_little_of_it(extra: int) -> None:
    """Whether passages count more or less together than apart."""
    texts = [f"passage {i} " + "with some forty words of its own " * 6 for i in range(800)]

    def counter(text: str) -> int:
        return count_words(text) + extra

    context = ContextBuilder(20_000, count_tokens=counter).build(texts)
    assert context.tokens == counter(context.text) <= 20_000
    assert context.tokens > 19_800
    assert len(context.passages) + len(context.omitted) == len(texts)


def test_parts_that_count_more_together_go_until_all_fits() -> None:
    """The last ones in, which the account then has among the omitted."""

    def counter(text: str) -> int:
        return len(text) if len(text) < 1000 else len(text) * 2

    texts = [f"passage {i} " + "word " * 20 for i in range(800)]
    context = ContextBuilder(60_000, count_tokens=counter).build(texts)
    assert context.tokens == counter(context.text) <= 60_000
    assert 200 < len(context.passages) < 400
    positions = [p.position for p in context.passages]
    assert positions == list(range(len(positions)))
    assert [left.position for left in context.omitted] == list(range(len(positions), 800))
    assert {left.reason for left in context.omitted} == {"budget"}


@given(passages_lists, st.floats(0.1, 1), st.integers(0, 300))
def test_long_texts_are_packed_as_short_ones_are(
    passages: list[ContextPassage], limit: float, budget: int
) -> None:
    """With a counter that adds up, adding up gives what counting the whole gives."""
    builder = ContextBuilder(budget, count_tokens=count_words, near_duplicates=limit, label=str)
    whole = builder.build(passages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rerank_plugins.context.packing._SHORT", 0)
        assert builder.build(passages) == whole


def test_what_is_counted_of_a_long_text_changes_no_context() -> None:
    """The default counter stops once a text is over the budget, blocks later than it could."""
    long = " ".join(p.text for p in load_passages()) * 3
    assert len(long) > 2 * BLOCK
    for budget in (50, 60_000, 1_000_000):
        builder = ContextBuilder(budget)
        all_of_it = partial(builder_module._count_with_bundled, enough=10**9)
        texts = [long, "a short one", long[::-1]]
        expected = replace(builder, count_tokens=all_of_it).build(texts)
        assert builder.build(texts) == expected
        assert expected.tokens == all_of_it(expected.text)
