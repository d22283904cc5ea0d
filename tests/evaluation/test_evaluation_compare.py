"""compare: what it measures, that it resumes, that anyone's retrievers and rerankers go in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidInputError, ScoreCountError
from rerank_plugins.evaluation import QuestionSet, compare, html_report, table, verdicts
from rerank_plugins.evaluation.tables import means_over_sets
from rerank_plugins.evaluation.verdict import _queries_needed
from rerank_plugins.first_stage import BM25
from rerank_plugins.scoring.cache import CachedScorer
from rerank_plugins.testing import OverlapScorer

Scores = Callable[[str, Sequence[str]], list[float]]


@pytest.fixture(scope="module")
def bm25(samples: QuestionSet) -> BM25:
    """Over the sample corpus."""
    return BM25(samples.corpus.values())


@pytest.fixture
def toy() -> QuestionSet:
    """Three queries over four passages."""
    return QuestionSet(
        name="toy",
        corpus={"a": "apple pie", "b": "bread", "c": "cherry pie", "d": "dry bread"},
        queries={"q1": "apple", "q2": "cherry", "q3": "bread"},
        qrels={"q3": {"d": 1.0}, "q1": {"a": 1.0}, "q2": {"c": 2.0, "a": 1.0}},
    )


GIVEN = {"q1": ["b", "a"], "q2": ["a", "b", "c"], "q3": ["d", "b"]}


def by_length(query: str, texts: Sequence[str]) -> list[float]:
    """A reranker that likes long passages."""
    return [float(len(text)) for text in texts]


def test_values_follow_from_the_rankings(toy):
    """By hand: ranks 2, 1 and 1 before; the longest passage first after."""
    found = compare(toy, {"given": GIVEN}, {"length": by_length}, measures=("MRR", "nDCG@10"))
    assert list(found.systems) == ["given", "given + length"]
    first, second = found.systems.values()
    np.testing.assert_allclose(first.values["MRR"], [1 / 2, 1, 1])
    assert second.rankings == {"q1": ("a", "b"), "q2": ("c", "a", "b"), "q3": ("d", "b")}
    np.testing.assert_allclose(second.values["MRR"], [1, 1, 1])
    assert second.scores["q2"] == (10.0, 9.0, 5.0)
    assert second.pairs == 7
    assert first.pairs == 0
    assert first.pairs_per_second is None
    assert (second.seconds >= first.seconds).all()


def test_the_bound_is_what_a_perfect_reranker_gets(toy, samples, bm25):
    """A reranker that knows the answers reaches it; no other one passes it."""
    for data, stage in ((toy, GIVEN), (samples, bm25)):
        by_text = {text: passage for passage, text in data.corpus.items()}
        ids = {text: query for query, text in data.queries.items()}

        def perfect(query, texts, data=data, by_text=by_text, ids=ids):
            return [data.qrels[ids[query]].get(by_text[text], 0.0) for text in texts]

        rerankers = {"perfect": perfect, "length": by_length, "overlap": OverlapScorer()}
        found = compare(data, {"first": stage}, rerankers, candidates=20)
        for measure in found.measures:
            bound = found.bounds["first"][measure]
            np.testing.assert_allclose(found.systems["first + perfect"].values[measure], bound)
            for system in found.systems.values():
                assert (system.values[measure] <= bound + 1e-9).all()


def test_a_library_reranker_gives_what_it_gives_alone(samples, bm25):
    """Rankings are those of rerank() over the first stage's candidates."""
    reranker = Reranker(OverlapScorer(first_stage_weight=0.3))
    found = compare(samples, {"bm25": bm25}, {"ours": reranker}, candidates=10, queries=6)
    ids = list(samples.corpus)
    for query, ranking in found.systems["bm25 + ours"].rankings.items():
        text = samples.queries[query]
        expected = reranker.rerank(text, bm25.search(text, 10)).keys
        assert ranking == tuple(ids[key] for key in expected)


def test_candidates_bound_what_is_found_and_reranked(samples, bm25):
    """No ranking is longer; the same depth holds for the first stage alone."""
    found = compare(samples, {"bm25": bm25}, {"o": OverlapScorer()}, candidates=3, queries=5)
    lengths = {len(r) for s in found.systems.values() for r in s.rankings.values()}
    assert max(lengths) == 3


def test_a_first_stage_can_stand_alone(toy):
    """Rerankers pass over it; it is compared with the baseline all the same."""
    found = compare(
        toy, {"one": GIVEN, "two": GIVEN}, {"length": by_length}, alone=["two"], measures=["MRR"]
    )
    assert list(found.systems) == ["one", "one + length", "two"]


def test_differences_are_tested_and_corrected(samples, bm25):
    """Against the first system: mean, interval about it, wins, losses, Holm above the raw p."""
    answers = {
        (samples.queries[query], samples.corpus[passage])
        for query, of in samples.qrels.items()
        for passage in of
    }

    def wrong(query: str, texts: Sequence[str]) -> list[float]:
        return [-float((query, text) in answers) for text in texts]

    rerankers = {"overlap": OverlapScorer(), "wrong": wrong}
    found = compare(samples, {"bm25": bm25}, rerankers, candidates=20)
    differences = found.versus()
    assert [d.system for d in differences] == ["bm25 + overlap", "bm25 + wrong"]
    for difference in differences:
        assert difference.baseline == "bm25"
        assert difference.interval is not None
        low, high = difference.interval
        assert low <= difference.mean <= high
        assert difference.corrected >= difference.p_value
        gain = found.systems[difference.system].values["nDCG@10"]
        gain = gain - found.systems["bm25"].values["nDCG@10"]
        assert difference.mean == pytest.approx(gain.mean())
        assert difference.better == (gain > 0).sum()
        assert difference.worse == (gain < 0).sum()
    # What puts each answer last must come out as worse.
    assert differences[1].mean < 0
    assert differences[1].corrected < 0.05
    other_way = found.versus("bm25 + wrong")
    assert other_way[0].mean == pytest.approx(-differences[1].mean)


def test_gains_are_against_each_system_s_own_first_stage(toy):
    """A reranker over a better first stage is not credited with what that stage gained."""
    better = {"q1": ["a", "b"], "q2": ["c", "a", "b"], "q3": ["d", "b"]}
    found = compare(toy, {"one": GIVEN, "two": better}, {"length": by_length}, measures=["MRR"])
    gains = {gain.system: gain for gain in found.gains()}
    assert {name: gain.baseline for name, gain in gains.items()} == {
        "one + length": "one",
        "two": "one",
        "two + length": "two",
    }
    assert gains["two + length"].mean == 0.0
    assert gains["one + length"].mean == pytest.approx(1 / 6)
    rows = {row["system"]: row for row in found.rows()}
    assert rows["one"]["gain"] is None
    assert (rows["two + length"]["against"], rows["two + length"]["gain"]) == ("two", 0.0)
    assert "minus that of one" in found.table()


def test_every_measure_and_every_mean_has_an_interval(samples, bm25):
    """Of a mean over sets by resampling within each set: between the sets' own ends."""
    found = compare(samples, {"bm25": bm25}, {"o": OverlapScorer()}, candidates=9)
    other = compare(samples, {"bm25": bm25}, {"o": OverlapScorer()}, candidates=9, queries=9)
    for row in [*found.rows(), *means_over_sets([found, other])]:
        for measure in found.measures:
            low, high = row["intervals"][measure]
            assert low <= row[measure] <= high
    mean = means_over_sets([found, other])[1]
    assert mean["against"] == "bm25"
    assert mean["gain_interval"][0] <= mean["gain"] <= mean["gain_interval"][1]
    own = [c.systems["bm25"].values["MRR@10"].mean() for c in (found, other)]
    assert means_over_sets([found, other])[0]["MRR@10"] == pytest.approx(np.mean(own))


class Counting(OverlapScorer):
    """Counts what it is asked; slow enough to be timed."""

    def __init__(self) -> None:
        super().__init__()
        self._pairs: list[tuple[str, str]] = []

    def score(self, pairs, options):
        """A millisecond per pair."""
        self._pairs += pairs
        time.sleep(0.001 * len(pairs))
        return super().score(pairs, options)


def test_a_pair_that_two_first_stages_bring_is_scored_once_and_timed_twice(toy):
    """Same rankings as apart; the second system's time counts what it did not have to wait for."""
    scorer = Counting()
    stages = {"one": GIVEN, "two": {query: ids[::-1] for query, ids in GIVEN.items()}}
    rerankers = {"model": Reranker(scorer), "blend": Reranker(scorer, first_stage_weight=0.5)}
    found = compare(toy, stages, rerankers)
    warm_up = len(GIVEN["q3"])  # per system, scored and forgotten
    assert len(scorer._pairs) <= 7 + 4 * 2 * warm_up
    assert len(set(scorer._pairs)) == 7
    apart = compare(toy, {"two": stages["two"]}, {"model": Reranker(OverlapScorer())})
    assert found.systems["two + model"].rankings == apart.systems["two + model"].rankings
    for name in ("one + model", "two + model", "two + blend"):
        system = found.systems[name]
        assert system.pairs == 7
        assert system.scoring_seconds >= 0.007


@pytest.mark.parametrize("own", [{"cache": 10}, {"deadline_ms": 1000}])
def test_a_reranker_with_a_cache_or_a_deadline_of_its_own_is_asked_each_time(own, toy):
    """What its user wants to measure would be another thing."""
    scorer = Counting()
    stages = {"one": GIVEN, "two": GIVEN}
    compare(toy, stages, {"model": Reranker(scorer, **own)})
    assert len(scorer._pairs) >= (7 if "cache" in own else 14)


def test_where_scores_are_cached_is_no_part_of_a_run(toy, tmp_path):
    """The same answers with a cache, without one, with another: the runs are taken up."""
    scorers = []
    for cache in (None, 100, tmp_path / "a.sqlite", tmp_path / "b.sqlite"):
        scorer = Counting()
        scorers.append(scorer)
        kept = scorer if cache is None else CachedScorer(scorer, cache, identity="overlap")
        compare(toy, {"g": GIVEN}, {"r": Reranker(kept)}, runs=tmp_path / "runs")
    assert [bool(scorer._pairs) for scorer in scorers] == [True, False, False, False]


def test_a_verdict_says_whether_to_use_a_reranker(samples, bm25):
    """A perfect order helps, the reverse harms, and a few questions do not tell."""
    grades = {
        (samples.queries[query], samples.corpus[passage])
        for query, of in samples.qrels.items()
        for passage in of
    }

    def order(sign):
        return lambda query, texts: [sign * float((query, text) in grades) for text in texts]

    rerankers = {"right": order(1), "wrong": order(-1)}
    found = verdicts(compare(samples, {"bm25": bm25}, rerankers, candidates=20))
    assert [(one.reranker, one.kind) for one in found] == [("right", "helps"), ("wrong", "harms")]
    assert found[0].text().startswith("Reranking bm25 with right raises nDCG@10 from ")
    assert found[0].text().endswith("Use it.")
    assert "lowers" in found[1].text()
    few = verdicts(compare(samples, {"bm25": bm25}, rerankers, candidates=20, queries=2))
    assert {one.kind for one in few} == {"open"}
    assert "2 questions do not tell" in few[0].text()
    one = verdicts(compare(samples, {"bm25": bm25}, rerankers, candidates=20, queries=1))
    assert "this question does not tell" in one[0].text()


def test_the_questions_that_a_gain_needs_are_those_of_a_power_analysis():
    """Against statsmodels' formula by hand: (z.975 + z.8)^2 (sd / mean)^2, rounded up."""
    gains = np.array([0.1] * 30 + [-0.1] * 20)
    expected = (1.959964 + 0.841621) ** 2 * (gains.std(ddof=1) / gains.mean()) ** 2
    needed = _queries_needed(gains)
    assert expected <= needed <= expected * 1.1
    assert _queries_needed(np.zeros(9)) is None


def test_the_queries_that_were_hurt_most_come_first(toy):
    """With the relevant passage's ranks before and after, and what took its place."""
    shortest = {"short": lambda _, texts: [-float(len(text)) for text in texts]}
    found = compare(toy, {"given": GIVEN}, shortest, measures=("MRR",))
    (hurt,) = found.hurt_most("given + short", 1)
    assert (hurt.query_id, hurt.before, hurt.after) == ("q2", 1.0, 0.5)
    assert (hurt.relevant, hurt.rank_before, hurt.rank_after) == ("apple pie", 1, 2)
    assert hurt.preferred == "bread"
    assert [one.query_id for one in found.hurt_most("given + short", 9)] == ["q2", "q3"]
    with pytest.raises(InvalidInputError, match="no reranker"):
        found.hurt_most("given")
    with pytest.raises(InvalidInputError, match="system must be one of"):
        found.interval("nobody")


class Breaking:
    """A reranker that stops working after some queries."""

    def __init__(self, calls: int) -> None:
        # A list: numbers would count as settings.
        self._left = [None] * calls
        self._asked: list[str] = []

    def __call__(self, query: str, texts: Sequence[str]) -> list[float]:
        """By length, as long as it works."""
        if not self._left:
            raise RuntimeError("the power is off")
        self._left.pop()
        self._asked.append(query)
        return by_length(query, texts)


def test_a_comparison_goes_on_where_it_broke_off(toy, tmp_path):
    """What was answered is not asked again, and the end is the same as without a break."""
    # One call more than two queries: the first query's first passage is the warm-up.
    with pytest.raises(RuntimeError, match="power"):
        compare(toy, {"g": GIVEN}, {"r": Breaking(3)}, runs=tmp_path)
    second = Breaking(99)
    found = compare(toy, {"g": GIVEN}, {"r": second}, runs=tmp_path)
    assert second._asked == ["bread", "bread"]
    whole = compare(toy, {"g": GIVEN}, {"r": Breaking(99)})
    assert found.systems["g + r"].rankings == whole.systems["g + r"].rankings
    third = Breaking(0)
    compare(toy, {"g": GIVEN}, {"r": third}, runs=tmp_path)
    assert third._asked == []


def test_a_line_that_a_crash_left_unfinished_is_asked_again(toy, tmp_path):
    """Half a JSON object, half a character: dropped, and the file is whole afterwards."""
    compare(toy, {"g": GIVEN}, {"r": by_length}, runs=tmp_path)
    (path,) = tmp_path.glob("toy-g-r-*")
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"\xd9")
    found = compare(toy, {"g": GIVEN}, {"r": by_length}, runs=tmp_path)
    assert len(found.systems["g + r"].rankings) == 3
    assert [json.loads(line)["query"] for line in path.read_text().splitlines()[1:]] == [
        "q1",
        "q2",
        "q3",
    ]


@pytest.mark.parametrize(
    "change", ["candidates", "passages", "settings", "weights", "question", "given passages"]
)
def test_a_stale_run_is_not_reused(change, toy, tmp_path):
    """Other depth, other texts, other settings, other weights: all is asked anew."""
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"1")

    class Model:
        def __init__(self, threshold: float) -> None:
            self.threshold = threshold
            self.folder = str(weights)
            self._asked = 0

        def __call__(self, query: str, texts: Sequence[str]) -> list[float]:
            self._asked = self._asked + 1
            return by_length(query, texts)

    def asked(data=toy, given=GIVEN, threshold=0.1, candidates=10) -> int:
        model = Model(threshold)
        stages, models = {"g": given}, {"r": model}
        compare(data, stages, models, runs=tmp_path / "runs", candidates=candidates)
        return model._asked

    assert asked() == 4
    assert asked() == 0
    if change == "candidates":
        assert asked(candidates=2) == 4
    elif change == "passages":
        toy.corpus["b"] = "brown bread"
        assert asked() == 4
    elif change == "settings":
        assert asked(threshold=0.2) == 4
    elif change == "weights":
        (weights / "model.safetensors").write_bytes(b"22")
        assert asked() == 4
    elif change == "question":
        toy.queries["q1"] = "an apple"
        assert asked() == 2  # the warm-up and that one query
    else:
        assert asked(given={**GIVEN, "q1": ["a", "b"]}) == 4


def test_many_given_candidates_are_told_apart_by_what_they_hold(tmp_path):
    """As many queries and as many passages, another order: no old answer is taken."""
    ids = [f"p{at}" for at in range(3)]
    data = QuestionSet(
        name="many",
        corpus={passage: f"text of {passage}" for passage in ids},
        queries={f"q{at}": f"query {at}" for at in range(100)},
        qrels={f"q{at}": {"p0": 1.0} for at in range(100)},
    )
    for order, mean in ((ids, 1.0), (ids[::-1], 1 / 3)):
        found = compare(data, {"g": dict.fromkeys(data.queries, order)}, runs=tmp_path)
        assert found.systems["g"].values["MRR@10"].mean() == pytest.approx(mean)


def test_a_query_without_candidates_counts_as_nothing_found(toy):
    """Asked of no reranker, and a zero in every mean."""
    found = compare(toy, {"g": {"q1": ["a"]}}, {"r": by_length}, measures=("MRR",))
    for system in found.systems.values():
        np.testing.assert_allclose(system.values["MRR"], [1, 0, 0])
        assert system.rankings["q2"] == ()
    assert "Reranking hurt no question" in html_report([found])


def test_a_file_that_is_no_run_is_named(toy, tmp_path):
    """Instead of an error deep inside the JSON reader."""
    compare(toy, {"g": GIVEN}, runs=tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    path.write_text("not json\n")
    with pytest.raises(InvalidInputError, match="delete it"):
        compare(toy, {"g": GIVEN}, runs=tmp_path)


@pytest.mark.parametrize(
    ("stages", "rerankers", "message"),
    [
        ({}, {}, "at least one first stage"),
        ({"g": 5}, {}, r"search\(\), invoke\(\) or retrieve\(\)"),
        ({"g": GIVEN}, {"r": 5}, "a reranker must be"),
        ({"g": BM25(["one"])}, {}, "4 passages"),
        ({"g": {"q1": ["z"]}}, {}, "not a passage of the set"),
        ({"g": GIVEN}, {"r": lambda *_: [1.0]}, "one score per passage"),
    ],
)
def test_what_cannot_be_compared_is_refused(stages, rerankers, message, toy):
    """Errors of ours, with the rule and the value."""
    with pytest.raises((InvalidInputError, ScoreCountError), match=message):
        compare(toy, stages, rerankers)


def test_langchain_retrievers_and_compressors_go_in_as_they_are(samples, bm25):
    """Ours and LangChain's own: the rankings are those of a call by hand."""
    pytest.importorskip("langchain_classic")
    pytest.importorskip("langchain_community")
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.retrievers import BM25Retriever as TheirBM25
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import Document

    from rerank_plugins.langchain import BM25Retriever, CrossEncoderCompressor

    class Length(BaseCrossEncoder):
        def score(self, text_pairs):
            return [float(len(passage)) for _, passage in text_pairs]

    documents = [Document(text, id=passage) for passage, text in samples.corpus.items()]
    theirs = TheirBM25.from_documents(documents, k=8)
    ours = BM25Retriever.from_documents(documents, k=8)
    their_compressor = CrossEncoderReranker(model=Length(), top_n=3)
    our_compressor = CrossEncoderCompressor(reranker=Reranker(OverlapScorer()), top_n=None)
    inside = ContextualCompressionRetriever(base_compressor=our_compressor, base_retriever=theirs)
    found = compare(
        samples,
        {"theirs": theirs, "ours": ours, "inside": inside, "core": bm25},
        {"length": their_compressor, "overlap": our_compressor},
        candidates=8,
        queries=4,
        alone=["inside", "core"],
    )
    systems = found.systems
    for query in found.queries:
        text = samples.queries[query]
        by_hand = [document.id for document in theirs.invoke(text)]
        assert list(systems["theirs"].rankings[query]) == by_hand
        kept = their_compressor.compress_documents(theirs.invoke(text), text)
        assert list(systems["theirs + length"].rankings[query]) == [d.id for d in kept]
        assert len(kept) == 3
        compressed = [document.id for document in inside.invoke(text)]
        assert list(systems["inside"].rankings[query]) == compressed
        assert systems["theirs + overlap"].rankings[query] == systems["inside"].rankings[query]
        assert systems["ours"].rankings[query] == systems["core"].rankings[query]


def test_llama_index_retrievers_and_postprocessors_go_in_as_they_are(samples, bm25):
    """Ours and LlamaIndex's own, chunks included: a passage counts by its best chunk."""
    pytest.importorskip("llama_index.core")
    from llama_index.core.postprocessor import LongContextReorder, SimilarityPostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode

    from rerank_plugins.llama_index import BM25Retriever, CrossEncoderPostprocessor

    nodes = [TextNode(text=text, id_=passage) for passage, text in samples.corpus.items()]
    ours = BM25Retriever(nodes=nodes, similarity_top_k=6)

    class Chunks(BaseRetriever):
        def _retrieve(self, query_bundle):
            parts = []
            for found in ours.retrieve(query_bundle):
                source = RelatedNodeInfo(node_id=found.node.node_id)
                for number in range(2):
                    node = TextNode(
                        text=f"part {number}", relationships={NodeRelationship.SOURCE: source}
                    )
                    parts.append(NodeWithScore(node=node, score=found.score))
            return parts

    overlap = CrossEncoderPostprocessor(reranker=Reranker(OverlapScorer()), top_n=6)
    found = compare(
        samples,
        {"ours": ours, "chunks": Chunks(), "core": bm25},
        {
            "overlap": overlap,
            "cut": SimilarityPostprocessor(similarity_cutoff=5.0),
            "long": LongContextReorder(),
        },
        candidates=6,
        queries=4,
        alone=["chunks"],
    )
    systems = found.systems
    for query in found.queries:
        text = samples.queries[query]
        hits = ours.retrieve(text)
        assert list(systems["ours"].rankings[query]) == [hit.node.node_id for hit in hits]
        assert systems["chunks"].rankings[query] == systems["ours"].rankings[query]
        assert systems["core"].rankings[query] == systems["ours"].rankings[query]
        by_hand = overlap.postprocess_nodes(hits, query_str=text)
        assert list(systems["core + overlap"].rankings[query]) == [n.node_id for n in by_hand]
        kept = [hit.node.node_id for hit in hits if hit.score >= 5.0]
        assert list(systems["ours + cut"].rankings[query]) == kept


def test_scored_passages_are_each_score_with_its_judgement_and_length(toy):
    """Flat, over all queries; a first stage that shows no scores has none."""
    found = compare(toy, {"given": GIVEN}, {"length": by_length})
    passages = found.scored_passages("given + length")
    rows = zip(passages.scores.tolist(), passages.relevant.tolist(), passages.words.tolist())  # noqa: B905
    assert list(rows) == [
        (9.0, True, 2),
        (5.0, False, 1),
        (10.0, True, 2),
        (9.0, True, 2),
        (5.0, False, 1),
        (9.0, True, 2),
        (5.0, False, 1),
    ]
    assert found.scored_passages("given").scores.shape == (0,)


def test_the_table_has_a_row_a_system_and_one_set_after_another(toy):
    """Plain text, several sets in one, then the mean over the sets."""
    found = compare(toy, {"given": GIVEN}, {"length": by_length}, measures=("MRR", "P@5"))
    text = table([found, found])
    assert text.splitlines()[0].split()[:5] == ["set", "queries", "system", "MRR", "P@5"]
    assert text.splitlines()[2 + 4 + 2] == ""  # then what the columns mean
    assert "gain: MRR minus that of the system's own first stage" in text
    assert len(table([found], notes=False).splitlines()) == 2 + 2
    worse = compare(toy, {"given": GIVEN}, measures=("MRR", "P@5"), queries=1, seed=3)
    means = table([found, worse], notes=False).splitlines()[-1].split()
    both = [c.systems["given"].values["MRR"].mean() for c in (found, worse)]
    assert means[:6] == ["mean", "of", "sets", "4", "given", f"{np.mean(both):.3f}"]
    assert found.table().splitlines()[2].split() == text.splitlines()[2].split()
    other = compare(toy, {"given": GIVEN}, measures=("MAP",))
    with pytest.raises(InvalidInputError, match="same measures"):
        table([found, other])


def test_a_comparison_is_json_as_it_is(toy):
    """Native types, each query's values among them."""
    found = compare(toy, {"given": GIVEN}, {"length": by_length}, measures=("MRR",))
    record = json.loads(json.dumps(found.to_dict()))
    assert record["queries"][0] == {
        "id": "q1",
        "values": {"given": {"MRR": 0.5}, "given + length": {"MRR": 1.0}},
    }
    assert record["systems"][0]["p_value"] is None
    assert record["systems"][1]["gain"] == pytest.approx(1 / 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "candidates must be a whole number of at least 1"),
        ({"alone": ["g"]}, "rerankers need a first stage"),
        ({"alone": "g"}, "alone must be a list of names"),
        ({"alone": ["h"]}, "alone must name first stages"),
        ({"measures": "MRR"}, "measures must be a list of names"),
    ],
)
def test_a_comparison_that_could_only_mislead_is_refused(options, message, toy):
    """Zeros for every system, a reranker that is left out, letters taken for names."""
    with pytest.raises(InvalidInputError, match=message):
        compare(toy, {"g": GIVEN}, {"r": by_length}, **options)
