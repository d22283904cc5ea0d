"""What a type checker says of the adapters' options; read by mypy, never run.

mypy (strict) warns of an ignore that is not needed, so each line with one must be an error.
"""

from rerank_plugins import RemoteScorer, load_reranker
from rerank_plugins.langchain import CrossEncoderCompressor, CrossEncoderModel
from rerank_plugins.llama_index import CrossEncoderPostprocessor

load_reranker("bundled", precison="fp32")  # type: ignore[call-arg]
RemoteScorer("http://localhost", api_key="x")  # type: ignore[call-arg]
CrossEncoderModel(precison="fp32")  # type: ignore[call-arg]
CrossEncoderCompressor(precison="fp32")  # type: ignore[call-arg]
CrossEncoderPostprocessor(precison="fp32")  # type: ignore[call-arg]
CrossEncoderCompressor(device=3)  # type: ignore[arg-type]
CrossEncoderPostprocessor(device=3)  # type: ignore[arg-type]
CrossEncoderCompressor(model="bundled", device="cpu", precision="fp32", top_n=3)
CrossEncoderPostprocessor(model="bundled", device="cpu", on_error="first_stage", top_n=3)
