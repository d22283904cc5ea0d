"""Reading question sets, and holding a part of them back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import write_set

from rerank_plugins.errors import InvalidInputError
from rerank_plugins.training import QuestionSet, hold_back, read_question_set


def small(folder: Path) -> Path:
    """Two questions, two passages."""
    return write_set(
        folder / "set" / "train",
        {"d1": "one", "d2": "two"},
        {"q1": "first?", "q2": "second?"},
        [("q1", "d1", 1), ("q1", "d2", 0), ("q2", "d2", 2)],
    )


def test_reads_what_the_files_say(tmp_path: Path) -> None:
    """Texts, grades and judged non-relevant passages come back as written."""
    data = read_question_set(small(tmp_path))
    assert data.name == "set/train"
    assert dict(data.corpus) == {"d1": "one", "d2": "two"}
    assert dict(data.queries) == {"q1": "first?", "q2": "second?"}
    assert data.qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}
    assert data.positives("q1") == ["d1"]


def test_reads_gzip_beir_ids_answers_and_teacher_scores(tmp_path: Path) -> None:
    """Packed files, BEIR's ``_id``, answers and a teacher's column are understood."""
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"_id": "d", "title": "not read", "text": "نص"}\n\n')
    with gzip.open(tmp_path / "queries.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"_id": "q", "text": "سؤال", "answers": ["نص"]}\n')
    rows = "query-id\tcorpus-id\tscore\tteacher-score\r\nq\td\t1\t-3.5\r\n"
    (tmp_path / "qrels.tsv").write_bytes(rows.encode())
    data = read_question_set(tmp_path, name="mine")
    assert data.corpus["d"] == "نص"
    assert data.answers == {"q": ("نص",)}
    assert data.teacher_scores == {"q": {"d": -3.5}}


def beir(folder: Path, **splits: list[tuple[str, str, float]]) -> Path:
    """A folder as BEIR's archives unpack: judgements by split in ``qrels/``."""
    write_set(folder, {"d1": "one", "d2": "two"}, {"q1": "first?", "q2": "second?"}, [])
    (folder / "qrels.tsv").unlink()
    (folder / "qrels").mkdir()
    for split, rows in splits.items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_beir_folder_is_read_as_it_is(tmp_path: Path) -> None:
    """Judgements in qrels/, test before others unless another split is asked for."""
    folder = beir(tmp_path / "b", train=[("q1", "d1", 1)], test=[("q2", "d2", 1)])
    assert list(read_question_set(folder).queries) == ["q2"]
    assert list(read_question_set(folder, split="train").queries) == ["q1"]
    with pytest.raises(InvalidInputError, match=r"no qrels/dev\.tsv; its splits: test, train"):
        read_question_set(folder, split="dev")
    only = beir(tmp_path / "only", dev=[("q1", "d1", 1)])
    assert list(read_question_set(only).queries) == ["q1"]
    several = beir(tmp_path / "two", dev=[("q1", "d1", 1)], train=[("q1", "d1", 1)])
    with pytest.raises(InvalidInputError, match="choose one: dev, train"):
        read_question_set(several)


def test_a_passage_that_has_a_title_alone_is_that_title(tmp_path: Path) -> None:
    """BEIR's collections have such passages, and some with neither."""
    folder = beir(tmp_path / "b", test=[("q1", "d1", 1), ("q1", "d3", 1)])
    lines = [
        '{"_id": "d1", "title": "One", "text": ""}',
        '{"_id": "d2", "title": "Two", "text": "two"}',
        '{"_id": "d3", "title": "", "text": " "}',
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = read_question_set(folder)
    assert dict(data.corpus) == {"d1": "One", "d2": "two"}
    assert data.qrels == {"q1": {"d1": 1.0}}


def test_questions_without_a_relevant_passage_are_left_out(tmp_path: Path) -> None:
    """A question that only has judged non-relevant passages, or none, teaches nothing."""
    folder = write_set(
        tmp_path / "s",
        {"d": "text"},
        {"a": "a?", "b": "b?", "c": "c?"},
        [("a", "d", 1), ("b", "d", 0)],
    )
    assert list(read_question_set(folder).queries) == ["a"]


@pytest.mark.parametrize(
    ("file", "line", "text", "says"),
    [
        ("corpus.jsonl", 2, "{not json", "invalid JSON"),
        ("corpus.jsonl", 2, "[1]", "must be a JSON object"),
        ("corpus.jsonl", 2, '{"id": "d1", "text": "again"}', "duplicate id"),
        ("corpus.jsonl", 2, '{"id": "d2", "text": " "}', "'text' must be a non-empty string"),
        ("queries.jsonl", 1, '{"text": "no id"}', "'id' must be a non-empty string"),
        ("queries.jsonl", 2, '{"id": "q2", "text": "x", "answers": "y"}', "list of strings"),
        ("qrels.tsv", 1, "q d s", "header must be"),
        ("qrels.tsv", 3, "q1\td2", "needs 3 columns"),
        ("qrels.tsv", 2, "q9\td1\t1", "no query has the id 'q9'"),
        ("qrels.tsv", 2, "q1\td9\t1", "no passage has the id 'd9'"),
        ("qrels.tsv", 2, "q1\td1\tnan", "must be a finite number"),
        ("qrels.tsv", 2, "q1\td1\tyes", "must be a finite number"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, file: str, line: int, text: str, says: str) -> None:
    """The message of a broken line names its file, its number and the rule."""
    path = small(tmp_path) / file
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        read_question_set(path.parent)
    assert f"{path}, line {line}" in str(caught.value)
    assert says in str(caught.value)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    """No folder, no corpus, a cut gzip and not UTF-8 each say so."""
    with pytest.raises(InvalidInputError, match="folder not found"):
        read_question_set(tmp_path / "nowhere")
    folder = small(tmp_path)
    packed = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(InvalidInputError, match=r"needs corpus\.jsonl"):
        read_question_set(folder)
    (folder / "corpus.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InvalidInputError, match="damaged gzip"):
        read_question_set(folder)
    (folder / "corpus.jsonl.gz").unlink()
    (folder / "corpus.jsonl").write_bytes(b'{"id": "d1", "text": "\xff"}\n')
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        read_question_set(folder)


def test_a_set_without_anything_relevant_is_refused(tmp_path: Path) -> None:
    """All grades 0 leave nothing to learn from."""
    folder = write_set(tmp_path / "s", {"d": "t"}, {"q": "q?"}, [("q", "d", 0)])
    with pytest.raises(InvalidInputError, match="nothing to measure or to learn from"):
        read_question_set(folder)


def question_set(passages: int, owners: list[int]) -> QuestionSet:
    """Question i is answered by passage ``owners[i]``."""
    return QuestionSet(
        "generated",
        {f"d{i}": f"text {i}" for i in range(passages)},
        {f"q{i}": f"question {i}" for i in range(len(owners))},
        {f"q{i}": {f"d{owner}": 1.0} for i, owner in enumerate(owners)},
    )


@given(
    owners=st.lists(st.integers(0, 30), min_size=20, max_size=80),
    wanted=st.integers(1, 9),
    seed=st.integers(0, 5),
)
def test_held_back_parts_are_disjoint(owners: list[int], wanted: int, seed: int) -> None:
    """Parts share no question, lose none, and share no relevant passage where they need not."""
    data = question_set(31, owners)
    kept, held = hold_back(data, wanted, seed=seed)
    assert held is not None
    assert set(kept.queries) | set(held.queries) == set(data.queries)
    assert not set(kept.queries) & set(held.queries)
    assert 0 < len(held.queries) <= wanted
    assert dict(held.corpus) == dict(data.corpus)
    assert all(set(grades) <= set(kept.corpus) for grades in kept.qrels.values())
    ties = [owners.count(owner) for owner in set(owners)]
    if min(ties) <= wanted and sum(tie for tie in ties if tie <= wanted) >= 2 * wanted:
        positives = {doc for query in held.queries for doc in held.positives(query)}
        assert not positives & set(kept.corpus)


def test_holding_back_is_seeded() -> None:
    """One seed gives one split, another seed another."""
    data = question_set(50, list(range(50)))
    first = hold_back(data, 10, seed=1)[1]
    assert first == hold_back(data, 10, seed=1)[1]
    assert first != hold_back(data, 10, seed=2)[1]


def test_same_wording_and_same_text_tie_questions_together() -> None:
    """Copies in other letters or without diacritics never stand on both sides."""
    data = QuestionSet(
        "copies",
        {"d1": "الكِتَاب هنا", "d2": "الكتاب هنا!", "d3": "x", "d4": "y", "d5": "z"},
        {"a": "one?", "b": "two?", "c": "Three", "d": "three?", "e": "five"},
        {q: {d: 1.0} for q, d in zip("abcde", ["d1", "d2", "d3", "d4", "d5"], strict=True)},
    )
    for seed in range(20):
        held = hold_back(data, 2, seed=seed)[1]
        assert held is not None
        assert set(held.queries) in ({"a", "b"}, {"c", "d"}, {"e"})


def test_a_set_that_hangs_together_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Where all questions share a passage some are held back all the same, and the log says so."""
    data = question_set(1, [0] * 30)
    kept, held = hold_back(data, 5)
    assert held is not None
    assert len(held.queries) == 5
    assert len(kept.queries) == 25
    assert "some relevant passages stand in both parts" in caplog.text


@pytest.mark.parametrize("wanted", [-1, 3, 4])
def test_all_or_fewer_than_none_cannot_be_held_back(wanted: int) -> None:
    """The number must leave something to train on."""
    with pytest.raises(InvalidInputError, match="at least 0 and fewer than"):
        hold_back(question_set(3, [0, 1, 2]), wanted)


def test_nothing_held_back_leaves_the_set_as_it_is() -> None:
    """Zero questions give the set itself and no second part."""
    data = question_set(3, [0, 1, 2])
    assert hold_back(data, 0) == (data, None)


def test_records_are_json(tmp_path: Path) -> None:
    """The helper that writes sets writes what the layout asks for."""
    first = (small(tmp_path) / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(first) == {"id": "d1", "text": "one"}
