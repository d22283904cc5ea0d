"""Text from strangers in a prompt: fences that it cannot close, and nothing invisible in it.

This is hygiene, not a defence. A fence tells the model, and whoever reads the prompt, where
text that nobody vouches for begins and ends; a model may follow an instruction inside it all
the same. What a model may do after reading retrieved text has to be limited where it is done.
"""

from __future__ import annotations

import regex

from rerank_plugins._text import normalize

# Default_Ignorable_Code_Point is Unicode's own list of what is not meant to be seen: bidi
# overrides, embeddings, isolates and marks, zero-width spaces, variation selectors, the tag
# characters that can carry a whole hidden text. Category Cf would be wrong: visible Arabic
# signs, such as the end of ayah, are in it. The two joiners are judged by their neighbours.
_INVISIBLE = regex.compile(
    r"[[\p{Default_Ignorable_Code_Point}\uFFF9-\uFFFB]--[\u200C\u200D]]", regex.V1
)
_JOINERS = regex.compile(r"[\u200C\u200D]+")
# All of them but the first of a run between two visible characters.
_STRAY_JOINERS = regex.compile(
    r"(?<!\S)[\u200C\u200D]+|(?<=[\u200C\u200D])[\u200C\u200D]+|[\u200C\u200D]++(?!\S)"
)
_BREAKS = regex.compile(r"[\x0b\x0c\x1c-\x1f\x85]")
_CONTROLS = regex.compile(r"[[\p{Cc}]--[\t\n\r]]", regex.V1)
# The backtick, and all that NFKC makes one.
_TICKS = regex.compile(r"[`\u1FEF\uFF40]+")


def strip_invisible(text: str) -> str:
    """The text without what a reader cannot see and a model can.

    Goes: bidi controls, zero-width and other default-ignorable characters, tag characters,
    variation selectors, control characters but tab and line ends (those that separate become
    a blank). Stays: one joiner between two visible characters, since Persian and Urdu
    spelling and many emoji need it. Text keeps its meaning for a model; an emoji may be drawn
    in black and white.
    """
    text = _CONTROLS.sub("", _BREAKS.sub(" ", text))
    return _STRAY_JOINERS.sub("", _INVISIBLE.sub("", text))


def fenced(header: str, text: str) -> str:
    """The text between two lines of backticks, more of them than the text has in a row.

    That is CommonMark's rule for fenced code (0.31, 4.5): nothing within can end the block.
    The text is not changed. Backticks are counted as a model may read them: invisible
    characters between them do not count, and compatibility forms do. The header goes into the
    opening line, where neither it nor a file's name in it can begin a line.
    """
    runs = _TICKS.findall(_as_read(text)) if _TICKS.search(text) else []
    ticks = "`" * max(3, 1 + max(map(len, runs), default=0))
    if _TICKS.search(header):
        header = _as_read(header).replace("`", "'")
    return f"{ticks}{header}\n{text}\n{ticks}"


def _as_read(text: str) -> str:
    """What is left of a text to whom joiners and compatibility forms make no difference."""
    return normalize("NFKC", _JOINERS.sub("", strip_invisible(text)))
