"""The encoder that ships, on a tiny one whose means are worked out by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from first_stage_tools import TABLE, write_encoder

from rerank_plugins.errors import UnsupportedModelError
from rerank_plugins.first_stage import Dense, StaticEncoder
from rerank_plugins.scoring.long_texts import BLOCK


@pytest.fixture
def encoder(tmp_path: Path) -> StaticEncoder:
    """The six-word encoder."""
    return StaticEncoder(write_encoder(tmp_path))


def test_a_vector_is_the_mean_of_the_words_at_length_one(encoder: StaticEncoder) -> None:
    """Nothing but the text's own known tokens counts: no special token, no unknown one."""
    vectors = encoder.encode(["cat dog", "CAT unheard", "cat cat dog", "قطة"])
    assert vectors.dtype == np.float32
    expected = np.asarray([[1.5, 2, 0], [3, 0, 0], [2, 4 / 3, 0], [2, 2, 0]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_the_whole_text_counts(encoder: StaticEncoder) -> None:
    """A truncation stored in the tokenizer's file is not applied."""
    [vector] = encoder.encode(["cat " * 5000 + "dog " * 5000])
    np.testing.assert_allclose(vector, [0.6, 0.8, 0], atol=1e-4)


def test_a_text_of_several_blocks_has_the_mean_of_all_its_words(encoder: StaticEncoder) -> None:
    """Beside others, each with its own; words are not cut where blocks meet."""
    assert 3 * BLOCK < 12 * 17_500
    long, short = encoder.encode(["dog cat dog " * 17_500, "cat"])
    np.testing.assert_allclose([long, short], encoder.encode(["dog cat dog", "cat"]), atol=1e-4)


def test_a_text_without_known_tokens_is_zero(encoder: StaticEncoder) -> None:
    """Empty, blank and unheard-of texts have no direction."""
    assert not encoder.encode(["", "  ", "unheard", "🐝"]).any()
    assert encoder.encode([]).shape == (0, 3)
    assert encoder.dimension == 3


def test_broken_text_is_read_as_far_as_it_goes(encoder: StaticEncoder) -> None:
    """A lone surrogate or a NUL does not stop the words beside it."""
    for text in ("cat \ud83d", "\udc00 cat", "cat \x00"):
        np.testing.assert_allclose(encoder.encode([text]), [[1, 0, 0]], atol=1e-6)


def test_batching_and_threads_change_nothing(encoder: StaticEncoder) -> None:
    """A vector depends on its text alone, whoever else asks."""
    texts = ["cat", "dog sun", "قطة chat", ""] * 20
    together = encoder.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: encoder.encode([text])[0], texts))
    assert (together == np.asarray(alone)).all()


def test_files_are_read_on_first_use_and_named_when_missing(tmp_path: Path) -> None:
    """Making an encoder touches no file; a missing one is named with its folder."""
    encoder = StaticEncoder(tmp_path / "nowhere")
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json.*nowhere"):
        encoder.encode(["cat"])


def test_files_that_do_not_fit_together_are_an_error(tmp_path: Path) -> None:
    """Another tensor name, or fewer rows than tokens, is said before any wrong vector."""
    from safetensors.numpy import save_file

    folder = write_encoder(tmp_path)
    save_file({"table": TABLE}, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"embedding\.weight, but holds table"):
        StaticEncoder(folder).encode(["cat"])
    save_file({"embedding.weight": TABLE[:3]}, folder / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="row for each of the tokenizer's 6 tokens"):
        StaticEncoder(folder).encode(["cat"])


def test_dense_search_over_it(encoder: StaticEncoder) -> None:
    """It is an embedding that Dense takes as it is."""
    dense = Dense(["sun", "dog", "cat dog", "unheard"], embed=encoder)
    assert [c.key for c in dense.search("dog", 2)] == [1, 2]
    assert dense.search("unheard", 2) == []
    assert StaticEncoder.default() is StaticEncoder.default()
