"""First stages: they bring the candidates that a cross-encoder then reranks."""
