"""Scoring: (query, passage) pairs in, one relevance logit a pair out."""
