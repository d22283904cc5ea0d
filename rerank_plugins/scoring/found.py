"""From logits of rows to scores of pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rerank_plugins.scoring.base import PairScores, no_spans
from rerank_plugins.scoring.encoding import EncodedPairs


class FoundScores:
    """The scores of some pairs, gathered part by part."""

    def __init__(self, pairs: int) -> None:
        self.count = 0
        self.logits = np.zeros(pairs, dtype=np.float64)
        self.spans = no_spans(pairs)
        self.truncated, self.scored, self.whole = np.zeros((3, pairs), dtype=np.bool_)

    def add(
        self,
        encoded: EncodedPairs,
        logits: NDArray[np.float64],
        done: NDArray[np.bool_],
        *,
        mean: bool,
    ) -> NDArray[np.intp]:
        """The next pairs, from the rows that were computed; gives each pair's best row."""
        part = slice(self.count, self.count + len(encoded.truncated))
        self.count = part.stop
        starts = np.flatnonzero(np.diff(encoded.owners, prepend=-1))
        read = np.add.reduceat(done, starts, dtype=np.int64)
        whole = read == np.bincount(encoded.owners)
        # By owner, then best first; a stable sort keeps a pair's windows in their order.
        worth = np.where(done, logits, -np.inf)
        best = np.lexsort((-worth, encoded.owners))[starts]
        self.logits[part] = logits[best]
        if mean:
            self.logits[part] = np.add.reduceat(logits * done, starts) / np.maximum(read, 1)
        self.scored[part], self.whole[part] = read > 0, whole
        self.truncated[part] = encoded.truncated | ~whole
        return best

    def of(self, places: NDArray[np.intp]) -> PairScores:
        """The scores at these places."""
        return PairScores(
            logits=np.where(self.scored, self.logits, 0.0)[places],
            truncated=(self.truncated & self.scored)[places],
            spans=self.spans[places],
            scored=self.scored[places],
            whole=self.whole[places],
        )
