"""``rerank-plugins evaluate``: the table, JSON, the report, presets, finished runs, refusals."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser

import pytest
import torch

from rerank_plugins.cli import EXIT_BAD_INPUT, EXIT_MODEL, main
from rerank_plugins.evaluation import PRESETS, QuestionSet, compare, preset
from rerank_plugins.evaluation.report import html_report


@pytest.fixture
def model(tiny_checkpoints) -> str:
    """A folder that --model takes."""
    return str(tiny_checkpoints["bge"])


def test_the_table_compares_first_stages_and_models(folder, model, tmp_path, capsys):
    """LangChain's BM25 alone, ours, ours with a model; then means, the answer, the legend."""
    pytest.importorskip("langchain_community")
    arguments = ["evaluate", "--dataset", str(folder), "--dataset", str(folder)]
    arguments += ["--alone", "langchain-bm25", "--model", model, "--candidates", "4"]
    arguments += ["--queries", "5", "--runs", str(tmp_path / "runs")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[3:5] == ["nDCG@10", "MRR@10"]
    for start in (2, 8, 14):  # a table per set, and that of the means
        systems = [re.split(r"\s{2,}", line)[2] for line in lines[start : start + 3]]
        assert systems == ["bm25", f"bm25 + {model}", "langchain-bm25"]
    assert lines[14].startswith("mean of sets")
    assert f"Reranking bm25 with {model}" in lines[18]
    assert lines[-1].startswith("p50, p95: milliseconds per query")
    runs = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    assert len(runs) == 3
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()} == runs
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("stage", ["faiss", "hybrid"])
def test_json_has_every_query_s_values(stage, folder, model, capsys):
    """One object a data set, and nothing else on standard output."""
    arguments = ["evaluate", "--dataset", str(folder), "--first-stage", stage, "--model", model]
    arguments += ["--candidates", "3", "--queries", "4", "--measures", "MRR@10,Success@1"]
    code = main([*arguments, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert code == 0
    assert record["measures"] == ["MRR@10", "Success@1"]
    assert [row["system"] for row in record["systems"]] == [stage, f"{stage} + {model}"]
    assert len(record["queries"]) == 4
    mean = sum(q["values"][stage]["MRR@10"] for q in record["queries"]) / 4
    assert record["systems"][0]["MRR@10"] == pytest.approx(mean)


def test_given_candidates_come_from_a_run(folder, model, samples, tmp_path, capsys):
    """As in mMARCO's protocol: the run's passages are what is reranked."""
    run = tmp_path / "candidates.trec"
    passages = list(samples.corpus)[:5]
    lines = [f"{q} Q0 {p} 1 {9 - at} x\n" for q in samples.queries for at, p in enumerate(passages)]
    run.write_text("".join(lines), encoding="utf-8")
    arguments = ["evaluate", "--dataset", str(folder), "--first-stage", f"run:{run}"]
    code = main([*arguments, "--model", model, "--preset", "mmarco-fr", "--queries", "3"])
    out = capsys.readouterr().out
    assert code == 0
    assert "Recall@500" in out.splitlines()[0]
    assert "crossencoder-camembert-L2-mmarcoFR reports MRR@10 0.2126" in out


def test_labelled_pairs_follow_the_arabic_card_s_protocol(model, tmp_path, capsys):
    """Grouped by query, scored, ranked: MRR, MAP and nDCG@10 beside what the card reports."""
    path = tmp_path / "pairs.tsv"
    rows = [
        ("متى؟", "في التاسعة", 1),
        ("متى؟", "لا أدري", 0),
        ("أين؟", "هنا", 1),
        ("أين؟", "لا", 0),
    ]
    text = "query\tpassage\tlabel\n" + "".join(f"{q}\t{p}\t{label}\n" for q, p, label in rows)
    path.write_text(text, encoding="utf-8")
    arguments = ["evaluate", "--pairs", str(path), "--preset", "ara-pairs", "--model", model]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["measures"] == ["MRR", "MAP", "nDCG@10"]
    assert record["reported"] == {"MRR": 0.934, "MAP": 0.9335, "nDCG@10": 0.951}
    assert record["systems"][1]["MRR"] in (0.5, 0.75, 1.0)
    assert record["systems"][1]["bound"] == 1.0
    assert main([*arguments, "--first-stage", "bm25"]) == EXIT_BAD_INPUT
    assert "their own candidates" in capsys.readouterr().err


def test_presets_state_what_their_cards_report(capsys):
    """The figures of the measured facts, as text and as JSON."""
    assert main(["evaluate", "--presets"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and one.model in text for name, one in PRESETS.items())
    assert main(["evaluate", "--presets", "--json"]) == 0
    records = {r["name"]: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    assert records["pirb"]["reported"] == {"nDCG@10": 0.6421}
    assert records["cmteb-reranking"]["reported"] == {"MAP": 0.661}
    assert records["mmarco-fr"]["candidates"] == 1000
    assert records["ara-pairs"]["others"]["BAAI/bge-reranker-v2-m3"]["MRR"] == 0.902
    for one in PRESETS.values():
        assert set(one.reported) <= set(one.measures)
        assert preset(one.name) is one


def test_finished_runs_are_evaluated_by_judgements_alone(tmp_path, capsys):
    """Two runs of anyone's, by TREC qrels: means by hand."""
    qrels, one, other = tmp_path / "qrels", tmp_path / "one", tmp_path / "other"
    qrels.write_text("q1 0 a 1\nq2 0 b 1\n")
    one.write_text("q1 Q0 a 1 2 t\nq1 Q0 b 2 1 t\nq2 Q0 a 1 2 t\nq2 Q0 b 2 1 t\n")
    other.write_text("q1 Q0 b 1 2 t\n")
    arguments = ["evaluate", "--qrels", str(qrels), "--run", str(one), "--run", str(other)]
    assert main([*arguments, "--measures", "MRR,P@1", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["MRR"], first["P@1"], second["MRR"]) == (0.75, 0.5, 0.0)
    assert main(arguments) == 0
    assert str(one) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--measures", "nope@1"], EXIT_BAD_INPUT, "must be written like"),
        (["--candidates", "-1"], EXIT_BAD_INPUT, "candidates must be"),
        (["--candidates", "0"], EXIT_BAD_INPUT, "--candidates must be a whole number of at least"),
        (["--threads", "0"], EXIT_BAD_INPUT, "--threads must be"),
        (["--first-stage-weight", "2"], EXIT_BAD_INPUT, "first_stage_weight must be"),
        (["--report", "/nowhere/x.html"], EXIT_BAD_INPUT, "/nowhere does not exist"),
        (["--report", "/"], EXIT_BAD_INPUT, "is a folder"),
        (["--split", "dev"], EXIT_BAD_INPUT, "no qrels/dev.tsv"),
        (["--dataset", "/nowhere"], EXIT_BAD_INPUT, "data set folder not found: /nowhere"),
        (["--first-stage", "bm25", "--alone", "bm25"], EXIT_BAD_INPUT, "both to --first-stage"),
        (["--queries", "0"], EXIT_BAD_INPUT, "at least 1"),
        (["--run", "somewhere"], EXIT_BAD_INPUT, "--run needs --qrels"),
        (["--first-stage", "run:/nowhere"], EXIT_BAD_INPUT, "nowhere"),
        (["--model", "no such model"], EXIT_MODEL, "Model not found"),
    ],
)
def test_refusals_have_their_exit_code(more, code, message, folder, capsys):
    """What a script sees, and what a person reads."""
    assert main(["evaluate", "--dataset", str(folder), "--candidates", "2", *more]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_an_unknown_first_stage_is_a_usage_error(folder, capsys):
    """Argparse's exit code 2, with the names that there are."""
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--dataset", str(folder), "--first-stage", "bm26"])
    assert stopped.value.code == EXIT_BAD_INPUT
    assert "langchain-bm25" in capsys.readouterr().err


def test_alone_without_a_first_stage_drops_no_reranker(folder, model, capsys):
    """BM25 is what is reranked anyway; it is shown alone beside."""
    arguments = ["evaluate", "--dataset", str(folder), "--alone", "bm25", "--model", model]
    assert main([*arguments, "--candidates", "3", "--queries", "3", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["system"] for row in record["systems"]] == ["bm25", f"bm25 + {model}"]


def test_weights_engine_precision_and_threads_are_options(folder, model, capsys):
    """A system per weight; the weights differ in what they reach, not in what is scored."""
    arguments = ["evaluate", "--dataset", str(folder), str(folder), "--model", model]
    arguments += ["--first-stage-weight", "0", "1", "--engine", "torch", "--precision", "fp32"]
    arguments += ["--threads", "1", "--candidates", "5", "--queries", "8", "--json"]
    threads, cpus = torch.get_num_threads(), os.sched_getaffinity(0)
    try:
        assert main(arguments) == 0
        assert torch.get_num_threads() == len(os.sched_getaffinity(0)) == 1
    finally:
        torch.set_num_threads(threads)
        os.sched_setaffinity(0, cpus)
    one, other = map(json.loads, capsys.readouterr().out.splitlines())
    rows = {row["system"]: row for row in one["systems"]}
    assert list(rows) == ["bm25", f"bm25 + {model} (weight 0)", f"bm25 + {model} (weight 1)"]
    assert rows[f"bm25 + {model} (weight 1)"]["gain"] == 0.0
    assert rows["bm25"]["nDCG@10"] == other["systems"][0]["nDCG@10"]


def test_a_beir_folder_is_evaluated_as_it_is(folder, model, capsys):
    """Judgements in qrels/: the test split, or the one asked for."""
    (folder / "qrels").mkdir()
    lines = (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "qrels.tsv").unlink()
    for split, rows in (("test", lines[1:6]), ("dev", lines[6:9])):
        (folder / "qrels" / f"{split}.tsv").write_text("".join([lines[0], *rows]))
    arguments = ["evaluate", "--dataset", str(folder), "--model", model, "--candidates", "2"]
    found = []
    for more in ([], ["--split", "dev"]):
        assert main([*arguments, *more, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["queries"])
    assert len(found[0]) > 0 < len(found[1])
    assert not {q["id"] for q in found[0]} & {q["id"] for q in found[1]}


def test_a_set_s_result_is_printed_before_the_next_set_is_read(folder, model, tmp_path, capsys):
    """What is done is not lost when a later set fails."""
    broken = tmp_path / "broken"
    broken.mkdir()
    arguments = ["evaluate", "--dataset", str(folder), str(broken), "--model", model]
    code = main([*arguments, "--candidates", "2", "--queries", "2", "--json"])
    captured = capsys.readouterr()
    assert code == EXIT_BAD_INPUT
    assert json.loads(captured.out)["set"] == "samples/all"
    assert "broken needs qrels.tsv or qrels/test.tsv" in captured.err


def test_a_report_says_what_it_lacks_without_matplotlib(samples, monkeypatch):
    """In the page, with the command that mends it."""
    monkeypatch.setattr("rerank_plugins.evaluation.report.find_spec", lambda _: None)
    monkeypatch.setattr("rerank_plugins.evaluation.report.charts.find_spec", lambda _: None)
    given = {"first": {query: list(samples.corpus)[:3] for query in samples.queries}}
    text = html_report([compare(samples, given, {"r": lambda _, texts: [0.5] * len(texts)})])
    assert "rerank-plugins[display]" in text
    assert "Scores over length" not in text


class Page(HTMLParser):
    """Checks that tags nest, and gathers text by the dir of the element it stands in."""

    VOID = frozenset({"meta", "br", "hr", "img", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Remembers what is open."""
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        """Nothing to close."""
        self.tags.append(tag)

    def handle_endtag(self, tag):
        """Only what was opened last can be closed."""
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        """Text, and whether something isolates it from the page's direction."""
        isolated = any(tag == "bdi" or of.get("dir") == "auto" for tag, of in self.open)
        self.texts.append(("isolated" if isolated else "page", data))


def test_the_report_is_one_whole_page_that_needs_no_other(folder, model, tmp_path, capsys):
    """Tags nest, nothing is fetched, both colour schemes are there, plots are inline."""
    path = tmp_path / "report.html"
    arguments = ["evaluate", "--dataset", str(folder), "--model", model, "--report", str(path)]
    code = main([*arguments, "--candidates", "10", "--queries", "12"])
    assert code == 0
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.links == []
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert "prefers-color-scheme: dark" in text
    assert page.tags.count("svg") >= 4


def test_the_report_draws_scores_where_matplotlib_is_installed(samples):
    """Calibration beside length for probabilities; length alone for other scores."""
    pytest.importorskip("matplotlib")
    found = compare(
        samples,
        {"first": {query: list(samples.corpus)[:9] for query in samples.queries}},
        {
            "unit": lambda _, texts: [1 / len(text) for text in texts],
            "open": lambda _, texts: [float(len(text)) for text in texts],
        },
    )
    text = html_report([found], command="rerank-plugins evaluate <x>")
    assert Page(text).open == []
    assert "rerank-plugins evaluate &lt;x&gt;" in text
    assert "currentColor" in text
    assert "#010203" not in text
    assert text.count("how far a score is a probability") == 1
    assert text.count("Scores over length") == 2
    assert "http://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_the_report_keeps_arabic_apart_and_markup_harmless():
    """Set text stands in dir=auto or bdi; markup and control characters in it stay text."""
    nasty = "<script>alert('x')</script> & \x00 \u202e \ud800"
    data = QuestionSet(
        name="عربي <b>",
        corpus={"د1": "يفتح المتحف في التاسعة " * 60, "د2": nasty},
        queries={"س1": "متى يفتح المتحف؟ " + nasty},
        qrels={"س1": {"د1": 1.0}},
    )
    found = compare(
        data,
        {"أول": {"س1": ["د1", "د2"]}},
        {"عكس": lambda _, texts: [float(at) for at in range(len(texts))]},
    )
    text = html_report([found])
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert "b" not in page.tags
    title = next(data for where, data in page.texts if "Reranking:" in data)
    for where, part in page.texts:
        if re.search(r"[\u0600-\u06ff]", part) and part is not title:
            assert where == "isolated", part
    shown = "".join(part for _, part in page.texts)
    assert "متى يفتح المتحف؟" in shown
    assert "relevant passage from rank 1 to 2" in shown
    assert "\x00" not in text
    text.encode("utf-8")
