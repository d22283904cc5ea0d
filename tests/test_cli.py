"""The command line: what it prints, what it refuses, and the exit codes that scripts see."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from rerank_plugins.cli import EXIT_BAD_INPUT, EXIT_MODEL, EXIT_NOTHING_FOUND, main, parser
from rerank_plugins.models.catalog import CATALOG
from rerank_plugins.samples import corpus_path, load_questions

LANGUAGES = ("ar", "fr", "pl", "en")


@pytest.fixture
def model(tiny_checkpoints: Mapping[str, Path]) -> str:
    """A folder that --model takes."""
    return str(tiny_checkpoints["bge"])


def feed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Gives a command its standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_search_prints_reranked_json_lines(language, model, capsys):
    """The sample corpus as a file: one object a line, best first, native numbers, own fields."""
    question = load_questions(language)[0].text
    code = main(
        [
            "search",
            "--corpus",
            str(corpus_path()),
            "--query",
            question,
            "--model",
            model,
            "--top-k",
            "3",
            "--candidates",
            "10",
            "--first-stage",
            "bm25",  # the others also find what answers in another language
            "--language",
            language,
            "--json",
        ]
    )
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert code == 0
    assert [row["rank"] for row in rows] == [1, 2, 3]
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(row["id"].startswith(language) and row["title"] for row in rows)


def test_search_prints_text_for_people(model, capsys):
    """Without --json each passage has its rank, score, first-stage rank and id."""
    question = load_questions("en")[0].text
    code = main(["search", "--corpus", str(corpus_path()), "--query", question, "--model", model])
    out = capsys.readouterr().out
    assert code == 0
    assert out.lstrip().startswith("1  0.")
    assert len(re.findall(r"\(first stage: \d+\)", out)) == 5


@pytest.mark.parametrize("first_stage", ["faiss", "hybrid"])
def test_search_with_the_other_first_stages(first_stage, model, capsys):
    """FAISS over the embedded text encoder, alone and fused with BM25, needs no network."""
    code = main(
        [
            "search",
            "--corpus",
            str(corpus_path()),
            "--query",
            "Comment garder le pain frais ?",
            "--first-stage",
            first_stage,
            "--model",
            model,
            "--top-k",
            "4",
            "--json",
        ]
    )
    assert code == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_search_that_finds_nothing_says_so_by_its_exit_code(model, tmp_path, capsys):
    """Like grep: nothing found is 1, and nothing is printed."""
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"text": "a bus"}\n', encoding="utf-8")
    zebra = ["search", "--corpus", str(corpus), "--query", "zebra", "--model", model]
    assert main([*zebra, "--first-stage", "bm25"]) == EXIT_NOTHING_FOUND
    assert capsys.readouterr().out == ""


def test_search_finds_without_a_shared_word_in_a_corpus_that_is_quickly_encoded(
    model, tmp_path, monkeypatch, capsys
):
    """The default is the hybrid, and BM25 where encoding would take long."""
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"text": "a bus"}\n', encoding="utf-8")
    zebra = ["search", "--corpus", str(corpus), "--query", "zebra", "--model", model]
    assert main(zebra) == 0
    assert "a bus" in capsys.readouterr().out
    monkeypatch.setattr("rerank_plugins.cli.search._HYBRID_UP_TO", 0)
    assert main(zebra) == EXIT_NOTHING_FOUND


@pytest.mark.parametrize(
    ("content", "number", "said"),
    [
        ('{"text": "a"}\n{"text": \n', 2, "invalid JSON"),
        ('{"text": "a"}\n\n["a"]\n', 3, "object"),
        ('{"title": "a"}\n', 1, "text"),
        ('{"text": 5}\n', 1, "text"),
    ],
)
def test_a_malformed_corpus_line_is_named_by_its_number(content, number, said, tmp_path, capsys):
    """The message has the file, the line and the rule; no result is printed."""
    corpus = tmp_path / "c.jsonl"
    corpus.write_text(content, encoding="utf-8")
    code = main(["search", "--corpus", str(corpus), "--query", "a"])
    captured = capsys.readouterr()
    assert code == EXIT_BAD_INPUT
    assert f"line {number}" in captured.err
    assert said in captured.err
    assert captured.out == ""


def test_bad_options_fail_before_any_work(tmp_path, capsys):
    """A blank query, a wrong --top-n, no candidates, a missing file, one that is not UTF-8."""
    binary = tmp_path / "latin1.jsonl"
    binary.write_bytes('{"text": "café"}'.encode("latin-1"))
    corpus = str(corpus_path())
    for arguments in (
        ["--corpus", corpus, "--query", "  "],
        ["--corpus", corpus, "--query", "a", "--top-n", "-1"],
        ["--corpus", corpus, "--query", "a", "--candidates", "0"],
        ["--corpus", str(tmp_path / "none.jsonl"), "--query", "a"],
        ["--corpus", str(binary), "--query", "a"],
    ):
        assert main(["search", *arguments]) == EXIT_BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("rerank-plugins: ") == 5
    assert "none.jsonl: No such file" in captured.err


def test_an_empty_corpus_is_bad_input_and_not_a_search_without_matches(tmp_path, capsys):
    """The file is at fault, so no other first stage is advised."""
    corpus = tmp_path / "c.jsonl"
    corpus.write_text("\n", encoding="utf-8")
    assert main(["search", "--corpus", str(corpus), "--query", "a"]) == EXIT_BAD_INPUT
    assert "holds no passages" in capsys.readouterr().err


def test_a_corpus_of_windows_and_of_beir_is_read(model, tmp_path, capsys):
    """A byte order mark, CRLF, gzip; ``_id`` is the passage's name."""
    corpus = tmp_path / "c.jsonl.gz"
    corpus.write_bytes(gzip.compress('\ufeff{"_id": "m1", "text": "a bus"}\r\n'.encode()))
    arguments = ["--corpus", str(corpus), "--query", "bus", "--model", model, "--json"]
    assert main(["search", "--first-stage", "bm25", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "m1"


def test_rerank_reads_what_begins_with_a_byte_order_mark(model, monkeypatch, capsys):
    """PowerShell writes one."""
    feed(monkeypatch, '\ufeff{"query": "a", "passages": ["a b"]}\r\n')
    assert main(["rerank", "--model", model]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == "a"


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_closed_standard_streams_end_without_a_traceback(closed):
    """Services start programs so."""
    command = "rerank" if closed == "<&-" else "models"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m rerank_plugins {command} {closed}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (EXIT_BAD_INPUT if closed == "<&-" else 0)


def test_a_wrong_model_name_exits_with_the_models_code_and_lists_near_ones(capsys):
    """The name is checked before the corpus is read."""
    code = main(["search", "--corpus", "x", "--query", "a", "--model", "bge-reranker-larg"])
    assert code == EXIT_MODEL
    assert "BAAI/bge-reranker-large" in capsys.readouterr().err


def test_rerank_reads_and_writes_json_lines(model, monkeypatch, capsys):
    """Texts or objects in; each result has its position and keeps its own fields."""
    requests = [
        {"query": "متى يفتح المتحف؟", "passages": ["يفتح المتحف في التاسعة.", "خبز"]},
        {"query": "a", "passages": [{"id": "x", "text": "a b"}, {"id": "y", "text": "c"}]},
        {"query": "b", "passages": []},
    ]
    feed(monkeypatch, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in requests))
    assert main(["rerank", "--model", model]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["query"] for answer in answers] == [r["query"] for r in requests]
    assert sorted(row["index"] for row in answers[0]["results"]) == [0, 1]
    assert {row["id"] for row in answers[1]["results"]} == {"x", "y"}
    assert answers[2]["results"] == []


@pytest.mark.parametrize("option", ["--top-n", "--top-k"])
def test_rerank_keeps_top_n(option, model, monkeypatch, capsys):
    """Each list is cut, by either name of the option."""
    feed(monkeypatch, json.dumps({"query": "a", "passages": ["a", "b", "c"]}))
    assert main(["rerank", "--model", model, option, "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 2


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        '{"query": "a"}',
        '{"query": " ", "passages": []}',
        '{"query": "a", "passages": [1]}',
        '{"query": "a", "passages": [{"id": 1}]}',
    ],
)
def test_rerank_names_the_malformed_line_and_prints_nothing(line, model, monkeypatch, capsys):
    """A good line before the bad one is not scored either: all is checked first."""
    feed(monkeypatch, '{"query": "a", "passages": ["b"]}\n' + line + "\n")
    assert main(["rerank", "--model", model]) == EXIT_BAD_INPUT
    captured = capsys.readouterr()
    assert "line 2" in captured.err
    assert captured.out == ""


def test_rerank_prints_lone_surrogates_as_escapes(model, monkeypatch, capsys):
    """JSON can carry half a surrogate pair; no encoding of text can."""
    feed(monkeypatch, '{"query": "a", "passages": ["\\ud800 a"]}')
    assert main(["rerank", "--model", model]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["text"] == "\ud800 a"


def test_rerank_of_no_lines_finds_nothing(model, monkeypatch, capsys):
    """An empty standard input is not an error, but nothing came of it."""
    feed(monkeypatch, "\n")
    assert main(["rerank", "--model", model]) == EXIT_NOTHING_FOUND


def test_models_prints_every_model_of_the_catalog(capsys):
    """The table for people has every name; --json has every field."""
    assert main(["models"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in CATALOG)
    assert main(["models", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(CATALOG)
    assert all(row["licence"] and row["languages"] and row["headline"] for row in rows)


def test_usage_errors_exit_with_2():
    """The code of argparse is the one for bad input."""
    with pytest.raises(SystemExit) as caught:
        main(["search"])
    assert caught.value.code == EXIT_BAD_INPUT


def test_the_demo_answers_in_four_languages_with_an_assembled_context(capsys):
    """The README's first command: question, both orders, scores, context, in each language."""
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    for language in LANGUAGES:
        assert load_questions(language)[0].text in out
    assert out.count("Context for the LLM") == 4


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command's parser by name."""
    subparsers = next(
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return dict(subparsers.choices)


@pytest.mark.parametrize("name", commands())
def test_every_option_of_every_command_is_explained(name, capsys):
    """--help exits with 0 and says something of each option; the defaults are not left to guess."""
    options = [action for action in commands()[name]._actions if action.option_strings]
    assert [action.option_strings for action in options if not action.help] == []
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: rerank-plugins {name}")


def test_an_interrupt_has_the_shell_s_exit_code_and_no_traceback(model, monkeypatch, capsys):
    """130, and what the interrupted work says of resuming."""

    def interrupted(_):
        raise KeyboardInterrupt("run the same again to resume")

    monkeypatch.setattr("rerank_plugins.cli.models.run", interrupted)
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "rerank-plugins: run the same again to resume\n"


def test_warm_up_loads_models_and_says_what_they_run_on(model, capsys):
    """For the build of an image, or the start of a server; a wrong name is refused first."""
    arguments = ["warm-up", "--model", model, model, "--engine", "torch", "--precision", "fp32"]
    assert main([*arguments, "--json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["engine"], first["precision"], first["device"]) == ("torch", "fp32", "cpu")
    assert first["seconds"] >= 0
    assert main(["warm-up", "--model", model, "no such model"]) == EXIT_MODEL
    assert capsys.readouterr().out == ""


def test_analyze_prints_the_road_of_a_text(capsys):
    """Each piece with what it becomes, then the query's terms and the stop words."""
    assert main(["analyze", "--language", "fr", "Les œuvres de l’été, C++"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "analyzer: fr, version 3; read as: fr"
    assert [line.split() for line in lines[3:8]] == [
        ["Les", "Les", "Les", "le"],
        ["œuvres", "œuvres", "œuvres", "oeuvr"],
        ["de", "de", "de", "de"],
        ["l’été", "l'été", "été", "ete"],
        ["C++", "C++", "C", "C++", "c", "c++"],
    ]
    assert lines[-2:] == ["as a query: oeuvr ete c c++", "stop words: Les de"]


def test_analyze_reads_standard_input(monkeypatch, capsys):
    """Its language is detected; a blank text is an error."""
    feed(monkeypatch, "سيفتح المتحف في المدينة\n")
    assert main(["analyze"]) == 0
    out = capsys.readouterr().out
    assert "auto-ar" in out
    assert out.splitlines()[-1] == "stop words: في"
    feed(monkeypatch, " \n")
    assert main(["analyze"]) == EXIT_BAD_INPUT
    assert "text must not be blank" in capsys.readouterr().err
