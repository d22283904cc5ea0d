"""The reranker: from a query and its candidates to a ranking.

`reranker` checks, deduplicates, scores, orders and cuts; `cascade` lets a small model choose
what a large one scores; `deadline` scores against the clock; `blending` mixes in the first
stage's scores; `scored` holds which candidates were scored and how the others stand below them.
Nothing here knows an engine, a first stage or a framework.
"""
