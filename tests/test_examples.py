"""The examples run from start to end, and their answers come from the right passages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the examples are not beside the tests (installed package only)"
)


def example(name: str):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # pydantic and dataclasses look classes up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def service():
    """The FastAPI service, started as a server starts it."""
    pytest.importorskip("langgraph")
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    with TestClient(example("fastapi_langgraph").app) as client:
        yield client


class TestService:
    """FastAPI with LangGraph over Arabic passages."""

    @pytest.mark.parametrize(
        ("question", "source"),
        [
            ("متى يفتح المتحف أبوابه؟", "hours"),
            ("متى وُضع حجر أساس المتحف؟", "history"),
            ("ما سعر تذكرة المتحف؟", "tickets"),
        ],
    )
    def test_the_answer_cites_the_passage_that_has_it(self, service, question, source):
        """And says where it is from."""
        answer = service.get("/ask", params={"question": question}).json()
        assert answer["sources"][0]["id"] == source
        assert answer["answer"].endswith("[1]")

    def test_a_public_user_never_gets_a_passage_of_the_staff(self, service):
        """The filter is applied before the search, whatever matches best."""
        question = "متى يُغلق جهاز الإنذار في المتحف؟"
        public = service.get("/ask", params={"question": question}).json()
        staff = service.get("/ask", params={"question": question, "team": "staff"}).json()
        assert "alarm" not in [source["id"] for source in public["sources"]]
        assert staff["sources"][0]["id"] == "alarm"

    def test_what_is_not_there_is_not_made_up(self, service):
        """No passage shares a word: no answer."""
        answer = service.get("/ask", params={"question": "banana"}).json()
        assert answer == {"answer": "لا أعرف.", "sources": []}

    def test_a_blank_question_is_refused(self, service):
        """With the status that clients know."""
        assert service.get("/ask", params={"question": " "}).status_code == 422

    def test_health_names_the_model(self, service):
        """Whoever runs the service sees what answers."""
        assert service.get("/health").json()["device"] == "cpu"


@pytest.fixture(scope="module")
def chat_example():
    """The LlamaIndex chat."""
    pytest.importorskip("llama_index.core")
    return example("llama_index_chat")


class TestChat:
    """LlamaIndex in French."""

    def test_each_turn_cites_the_passage_that_answers(self, chat_example):
        """With its source, within one chat."""
        chat = chat_example.make_chat()
        lending = chat_example.ask(chat, "Combien de temps puis-je garder un livre ?")
        delay = chat_example.ask(chat, "Combien coûte un jour de retard ?")
        assert lending.citations[0][:2] == ("prets", "reglement.pdf")
        assert delay.citations[0][:2] == ("retards", "reglement.pdf")

    def test_the_llm_reads_the_passages_and_no_scores(self, chat_example):
        """`MockLLM` repeats its prompt."""
        said = chat_example.ask(chat_example.make_chat(), "Combien coûte un jour de retard ?").text
        assert "vingt centimes" in said
        assert "relevance_score" not in said

    def test_readers_never_get_what_is_for_the_staff(self, chat_example):
        """Without the filter it would come."""
        question = "Combien de temps le personnel peut-il emprunter les livres ?"
        public = chat_example.ask(chat_example.make_chat(), question)
        everything = chat_example.ask(chat_example.make_chat(filters=None), question)
        assert "personnel" not in [citation[0] for citation in public.citations]
        assert everything.citations[0][0] == "personnel"

    def test_it_runs_as_a_script(self, chat_example, capsys):
        """Two questions, two passages each."""
        chat_example.main()
        assert len(capsys.readouterr().out.splitlines()) >= 4
