"""Reading pairs, judgements and runs: every form, and errors that name the line."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.evaluation import read_pairs, read_qrels, read_run, sample_queries
from rerank_plugins.evaluation.labelled import labelled_lists
from rerank_plugins.first_stage import BM25
from rerank_plugins.training import QuestionSet

PAIRS = [
    ("متى يفتح المتحف؟", "في التاسعة، عدا الاثنين", 1),
    ("متى يفتح المتحف؟", 'كلمة "أخرى"', 0),
    ("where is it?", "near the station,\tthey say", 1),
    ("where is it?", "nobody knows", 0),
    ("where is it?", "in the old town", 0),
    ("no answer here", "nobody knows", 0),
]


def write(path, pairs=PAIRS):
    """The pairs in the format of the file's ending."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if ".jsonl" in path.suffixes:
            for query, passage, label in pairs:
                record = {"query": query, "passage": passage, "label": label}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        else:
            writer = csv.writer(file, delimiter="\t" if ".tsv" in path.suffixes else ",")
            writer.writerows([("query", "passage", "label"), *pairs])
    return path


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.tsv", "p.jsonl.gz", "p.csv.gz"])
def test_pairs_are_the_same_from_every_format(name, tmp_path):
    """Grouped by query; a query without a 1 is left out; texts are whole, in any script."""
    pairs = read_pairs(write(tmp_path / name))
    data = pairs.questions
    assert list(data.queries.values()) == ["متى يفتح المتحف؟", "where is it?"]
    graded = {
        (data.queries[query], data.corpus[passage], int(grade))
        for query, of in data.qrels.items()
        for passage, grade in of.items()
    }
    assert graded == set(PAIRS[:5])
    assert {q: set(of) for q, of in pairs.candidates.items()} == {
        q: set(of) for q, of in data.qrels.items()
    }


def test_the_right_passage_does_not_stand_first_because_the_file_has_it_first(tmp_path):
    """Else a reranker whose scores all tie would look perfect."""
    pairs = [
        (f"q{n}", f"{n} {label} {at}", label)
        for n in range(50)
        for at, label in enumerate([1, 0, 0, 0])
    ]
    read = read_pairs(write(tmp_path / "p.jsonl", pairs))
    first = [read.questions.qrels[query][of[0]] for query, of in read.candidates.items()]
    assert 3 <= sum(first) <= 25
    assert read_pairs(tmp_path / "p.jsonl").candidates == read.candidates


def test_lists_of_positives_and_negatives_are_pairs_too(tmp_path):
    """The form in which MTEB's reranking tasks come."""
    path = tmp_path / "task.jsonl"
    path.write_text(json.dumps({"query": "q", "positive": ["a", "b"], "negative": ["c"]}))
    data = read_pairs(path).questions
    assert {data.corpus[p]: g for p, g in data.qrels["q0"].items()} == {"a": 1, "b": 1, "c": 0}


def test_columns_can_have_other_names(tmp_path):
    """Other people's files are not rewritten first."""
    path = tmp_path / "p.tsv"
    path.write_text("question\tdoc\trel\nq\tone\t1\nq\ttwo\t0\n", encoding="utf-8-sig")
    pairs = read_pairs(path, columns=("question", "doc", "rel"))
    assert pairs.questions.queries == {"q0": "q"}


def test_a_pair_with_both_labels_is_relevant_and_the_log_says_so(tmp_path, caplog):
    """Real files hold such pairs."""
    pairs = read_pairs(write(tmp_path / "p.csv", [("q", "a", 0), ("q", "a", 1), ("q", "b", 0)]))
    assert list(pairs.questions.qrels["q0"].values()) == [1.0, 0.0]
    assert "1 pairs have both labels" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.parquet", "", r"\.jsonl, \.csv or \.tsv"),
        ("p.jsonl", '{"query": "q", "passage": "p", "label": 1}\n{"query": 5}', "line 2"),
        ("p.jsonl", '{"query": "q", "passage": "p", "label": 2}', "must be 0 or 1"),
        ("p.jsonl", '{"query": "q", "passage": "p"}', "must be 0 or 1"),
        ("p.jsonl", "[1]", "line 1: every line must be a JSON object"),
        ("p.jsonl", "{", "line 1: invalid JSON"),
        ("p.jsonl", '{"query": "q", "positive": "p"}', "list of texts"),
        ("p.csv", "query,text,label\n", "lacks passage"),
        ("p.csv", "query,passage,label\nq,p,0\n", "no pair with the label 1"),
        ("p.csv", "", "lacks"),
    ],
)
def test_a_broken_file_of_pairs_is_refused(name, content, message, tmp_path):
    """The message has the rule, and the line where there is one."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=message):
        read_pairs(tmp_path / name)


def test_qrels_in_trec_s_and_in_beir_s_form(tmp_path):
    """Four columns without a header, or three with tabs and one."""
    (tmp_path / "a").write_text("q1 0 d1 1\nq1 0 d2 0\n\nq2 0 d1 2\n")
    (tmp_path / "b.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td1\t2\n")
    expected = {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}
    assert read_qrels(tmp_path / "a") == read_qrels(tmp_path / "b.tsv") == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30))
def test_a_run_comes_back_by_score_with_ties_in_the_file_s_order(tmp_path_factory, rows):
    """Whatever its rank column says; scores decide, as in trec_eval."""
    rows.sort(key=lambda row: row[0])
    path = tmp_path_factory.mktemp("run") / "r.trec"
    lines = [f"q{q} Q0 d{at} 1 {score} tag\n" for at, (q, score) in enumerate(rows)]
    path.write_text("".join(lines))
    expected = [
        (f"q{q}", [f"d{at}" for at, (of, score) in enumerate(rows) if of == q for _ in (score,)])
        for q in dict.fromkeys(q for q, _ in rows)
    ]
    found = list(read_run(path))
    assert [query for query, _ in found] == [query for query, _ in expected]
    for (_, ids), (_, all_of_them) in zip(found, expected, strict=True):
        assert set(ids) == set(all_of_them)
        keys = [(-rows[int(one[1:])][1], int(one[1:])) for one in ids]
        assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (read_qrels, "q 0 d 1\nq d\n"),
        (read_qrels, "q 0 d 1\nq 0 d high\n"),
        (lambda path: list(read_run(path)), "q Q0 d 1 2.0 tag\nq Q0 d\n"),
        (lambda path: list(read_run(path)), "q Q0 d 1 2.0 tag\nq Q0 e 2 nan tag\n"),
    ],
)
def test_a_broken_line_is_named(read, content, tmp_path):
    """File and number of the line."""
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(InvalidInputError, match="file, line 2"):
        read(path)


def test_a_damaged_gzip_is_an_error_of_ours(tmp_path):
    """Cut off in the middle of a download."""
    path = tmp_path / "run.gz"
    path.write_bytes(gzip.compress(b"q Q0 d 1 2.0 tag\n" * 999)[:40])
    with pytest.raises(InvalidInputError, match="damaged gzip"):
        list(read_run(path))


def test_a_sample_is_seeded_and_keeps_order_and_passages(samples):
    """The same draw each time, another with another seed; all passages stay."""
    drawn = sample_queries(samples, 5, seed=1)
    assert list(drawn.queries) == [q for q in samples.queries if q in drawn.queries]
    assert len(drawn.queries) == len(drawn.qrels) == 5
    assert drawn.corpus == samples.corpus
    assert sample_queries(samples, 5, seed=1) == drawn
    assert sample_queries(samples, 5, seed=2) != drawn
    assert sample_queries(samples, None) is samples
    with pytest.raises(InvalidInputError, match="at least 1"):
        sample_queries(samples, 0)


def test_labelled_lists_hold_what_is_found_and_what_is_missed():
    """Candidates in their order, then relevant passages that were not found; grades from 0."""
    corpus = {"a": "the museum opens", "b": "bread", "c": "museum and museum", "d": "أين المتحف"}
    data = QuestionSet(
        "museum",
        corpus,
        {"q": "museum", "r": "bread"},
        {"q": {"a": 1.0, "d": 2.0, "c": -1.0}, "r": {"b": 1.0}},
    )
    first, second = labelled_lists(data, BM25(corpus.values(), language="en"), 3)
    assert first.query == "museum"
    assert list(first.passages) == [corpus["c"], corpus["a"], corpus["d"]]
    assert list(first.grades) == [0.0, 1.0, 2.0]
    assert (list(second.passages), list(second.grades)) == (["bread"], [1.0])
