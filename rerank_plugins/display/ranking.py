"""One ranking as HTML: the first stage's order beside the reranked order.

The page that shows it may be light or dark: text takes the page's colour, backgrounds are
transparent, and what is coloured is a translucent middle tone. There is no script, so it
works in saved notebooks and in mail. Where there is no room for two columns, each passage
becomes a card (a container query). Every text has its own direction, and ``bdi`` around it
keeps stray direction marks from leaking out. The direction is written out: ``dir="auto"`` does
not look into a ``bdi``.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from functools import cache
from html import escape
from typing import Final

from rerank_plugins._validation import check_count
from rerank_plugins.candidates import Ranked, Ranking
from rerank_plugins.first_stage.analysis import (
    Analyzer,
    analyzer_for,
    detect_language,
    word_spans,
)

Span = tuple[int, int]

_ROW: Final = 58  # pixels; the lines between the two orders are drawn to it
_GAP: Final = 64
_SNIPPET: Final = 150  # characters: two lines of the width that notebooks have
_CARDS: Final = "40em"  # narrower than this, two columns cannot be read

_STYLE: Final = f"""<style>
.rrk{{font:14px/1.45 system-ui,"Segoe UI","Noto Sans","Noto Naskh Arabic",sans-serif;\
max-width:72em;color:inherit;background:transparent;container-type:inline-size}}
.rrk p{{margin:.3em 0;text-align:start!important}}
.rrk .rrk-was{{display:none;margin-inline-start:.6em}}
.rrk .rrk-q{{font-size:1.15em;font-weight:600}}
.rrk .rrk-dim{{opacity:.72;font-size:.85em}}
.rrk table{{table-layout:fixed;width:100%;border-collapse:collapse;border:0;margin:.4em 0;\
font-size:inherit}}
.rrk td,.rrk th{{border:0;padding:0 .4em;text-align:start!important;vertical-align:middle;\
background:transparent;color:inherit;white-space:normal}}
.rrk tr{{background:transparent!important}}
.rrk tbody td{{height:{_ROW}px;box-sizing:border-box;\
border-bottom:1px solid rgba(128,128,128,.22)}}
.rrk tbody td.rrk-lines{{padding:0;border:0;vertical-align:top}}
.rrk svg{{display:block}}
.rrk .rrk-text{{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:2;\
overflow:hidden;overflow-wrap:anywhere}}
.rrk .rrk-one{{-webkit-line-clamp:1}}
.rrk .rrk-num{{font-variant-numeric:tabular-nums;white-space:nowrap}}
.rrk .rrk-bar{{height:5px;margin-top:3px;border-radius:3px;background:rgba(128,128,128,.2)}}
.rrk .rrk-bar i{{display:block;height:100%;border-radius:3px;background:#4a90d9}}
.rrk .rrk-first i{{background:rgba(128,128,128,.75)}}
.rrk mark{{background:rgba(255,190,0,.38);color:inherit;border-radius:3px;padding:0 1px}}
.rrk .rrk-up{{color:#239a58}}.rrk .rrk-down{{color:#d5643a}}
.rrk .rrk-ok{{color:#239a58;font-weight:700}}
.rrk details div{{white-space:pre-line;overflow-wrap:anywhere;margin:.5em 0}}
@container (max-width:{_CARDS}){{
.rrk table,.rrk tbody{{display:block}}
.rrk colgroup,.rrk thead,.rrk .rrk-before,.rrk td.rrk-lines{{display:none}}
.rrk tbody tr{{display:grid;grid-template-columns:auto auto 1fr;align-items:center;gap:.2em .7em;\
border-bottom:1px solid rgba(128,128,128,.22);padding:.6em 0}}
.rrk tbody td{{display:block;height:auto;border:0;padding:0}}
.rrk td.rrk-passage{{grid-column:1/-1}}
.rrk .rrk-was{{display:inline}}
.rrk .rrk-passage .rrk-text{{-webkit-line-clamp:4}}
}}
</style>"""


def ranking_html(
    ranking: Ranking,
    *,
    labels: Mapping[int, str] | None = None,
    relevant: Collection[int] = (),
    language: str = "auto",
    first_stage: str = "first stage",
    limit: int = 20,
) -> str:
    """The ranking as a piece of HTML, safe to put into any page.

    One side lists the passages in the first stage's order, the other in the reranked order,
    with lines between the two. Words that match the query by the analysis that BM25 searches
    with are marked: for Arabic that includes other forms of the word. For a query in a
    right-to-left script the whole picture is mirrored. Below a width of 40 em each passage is a
    card with its rank in both orders.

    Args:
        ranking: What `Reranker.rerank` gave.
        labels: By candidate key, a short name such as a file or an id.
        relevant: Keys of the candidates that are known to answer; they get a check mark.
        language: ``auto``, or a language that `analyzer_for` takes.
        first_stage: Name of the first stage, for the heading.
        limit: How many passages to show.

    Raises:
        InvalidInputError: ``limit`` is not a whole number of at least 1, or the language is
            unknown.
    """
    shown = ranking[: check_count("limit", limit, minimum=1)]
    mark = _marker(ranking.query, shown.texts, language)

    def named(item: Ranked) -> str:
        return _named(item, labels or {}, relevant)

    parts = [
        f'<div class="rrk" dir="{_direction(ranking.query)}">{_STYLE}',
        f'<p class="rrk-q"><bdi>{_safe(ranking.query)}</bdi></p>',
        f'<p class="rrk-dim"><bdi dir="ltr">{_summary(ranking, len(shown))}</bdi></p>',
    ]
    if shown:
        parts.append(_table(shown, named, mark, first_stage))
        parts.append('<details><summary><bdi dir="ltr">passages in full</bdi></summary>')
        parts += [
            f'<div dir="{_direction(item.text)}"><b>{item.rank}.</b> {named(item)}'
            f"<bdi>{_marked(item.text, mark(item.text))}</bdi></div>"
            for item in shown
        ]
        parts.append("</details>")
    return "".join(parts) + "</div>"


def _table(
    ranking: Ranking,
    named: Callable[[Ranked], str],
    mark: Callable[[str], list[Span]],
    first_stage: str,
) -> str:
    mirrored = _direction(ranking.query) == "rtl"
    before = sorted(ranking, key=lambda item: item.candidate.rank)
    first_scores = [item.candidate.score for item in ranking]
    first_bar = _scale([score for score in first_scores if score is not None])
    bar = _scale([item.score for item in ranking], unit=ranking.scale == "probability")
    digits = 2 if ranking.scale == "logit" else 3
    rows = []
    for row, (old, new) in enumerate(zip(before, ranking, strict=True)):
        score = old.candidate.score
        left = (
            f'<td class="rrk-before rrk-num rrk-dim">{old.candidate.rank}</td>'
            f'<td class="rrk-before"><div class="rrk-text rrk-one" dir="{_direction(old.text)}">'
            f"{named(old)}"
            f"<bdi>{_safe(old.text[:_SNIPPET])}</bdi></div>"
            + ("" if score is None else _bar(first_bar(score), f"{score:.2f}", "rrk-first"))
            + "</td>"
        )
        lines = ""
        if row == 0:
            drawn = _lines(before, ranking, mirrored=mirrored)
            lines = f'<td class="rrk-lines" rowspan="{len(ranking)}">{drawn}</td>'
        right = (
            f'<td class="rrk-num"><b>{new.rank}</b></td><td class="rrk-num">{_move(new)}'
            f'<bdi class="rrk-was rrk-dim" dir="ltr">{_safe(first_stage)} #{new.candidate.rank}'
            f"</bdi></td><td>{_bar(bar(new.score), f'{new.score:.{digits}f}')}</td>"
            f'<td class="rrk-passage"><div class="rrk-text" dir="{_direction(new.text)}">'
            f"{named(new)}<bdi>{_snippet(new.text, mark(new.text))}</bdi>"
            "</div></td>"
        )
        rows.append(f"<tr>{left}{lines}{right}</tr>")
    widths = ("2.4em", "27%", f"{_GAP}px", "2.2em", "3.4em", "6em", "auto")
    columns = "".join(f'<col style="width:{width}">' for width in widths)
    head = (
        f'<tr><th colspan="2"><bdi>{_safe(first_stage)}</bdi></th><th></th>'
        f'<th colspan="4"><bdi dir="ltr">reranked by <bdi>{_safe(ranking.model)}</bdi></bdi></th>'
        "</tr>"
    )
    return (
        f"<table><colgroup>{columns}</colgroup><thead>{head}</thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _summary(ranking: Ranking, shown: int) -> str:
    """What the picture does not show: numbers, and what went wrong."""
    parts = [f"{shown} of {ranking.candidates} candidates", f"score: {ranking.scale}"]
    if ranking.deduplicated:
        parts.append(f"{ranking.deduplicated} duplicates left out")
    if ranking.truncated:
        parts.append(f"{ranking.truncated} longer than the model reads")
    if ranking.error is not None:
        parts.append(f"the model failed, first-stage order kept: <bdi>{_safe(ranking.error)}</bdi>")
    return " · ".join(parts)


def _named(item: Ranked, names: Mapping[int, str], relevant: Collection[int]) -> str:
    key = item.candidate.key
    check = '<span class="rrk-ok" title="relevant">✓</span> ' if key in relevant else ""
    name = names.get(key)
    return check + (f'<bdi class="rrk-dim">{_safe(name)}</bdi> ' if name else "")


def _move(item: Ranked) -> str:
    by = item.candidate.rank - item.rank
    if by == 0:
        return '<span class="rrk-dim">=</span>'
    kind, arrow = ("up", "▲") if by > 0 else ("down", "▼")
    return f'<bdi dir="ltr" class="rrk-{kind}">{arrow}{abs(by)}</bdi>'


def _bar(share: float, text: str, kind: str = "") -> str:
    return (
        f'<span class="rrk-num rrk-dim"><bdi dir="ltr">{text}</bdi></span>'
        f'<div class="rrk-bar {kind}"><i style="width:{100 * share:.1f}%"></i></div>'
    )


def _scale(scores: list[float], *, unit: bool = False) -> Callable[[float], float]:
    """Scores to shares of a bar; a bar begins at zero unless scores go below."""
    low = 0.0 if unit else min([0.0, *scores])
    high = 1.0 if unit else max([0.0, *scores])
    # Halves first: the distance of two finite numbers need not be finite.
    width = (high / 2 - low / 2) or 1.0
    return lambda score: min(1.0, max(0.0, (score / 2 - low / 2) / width))


def _lines(before: list[Ranked], after: Ranking, *, mirrored: bool) -> str:
    place = {item.rank: row for row, item in enumerate(before)}
    start, end = (_GAP, 0) if mirrored else (0, _GAP)
    paths = []
    for row, item in enumerate(after):
        moved = place[item.rank] - row
        colour = "#239a58" if moved > 0 else "#d5643a" if moved < 0 else "#888"
        y, to = ((at + 0.5) * _ROW for at in (place[item.rank], row))
        paths.append(
            f'<path d="M{start} {y:g}C{_GAP / 2:g} {y:g} {_GAP / 2:g} {to:g} {end} {to:g}" '
            f'fill="none" stroke="{colour}" stroke-width="2" stroke-opacity=".75"/>'
        )
    height = _ROW * len(after)
    return f'<svg width="{_GAP}" height="{height}" aria-hidden="true">{"".join(paths)}</svg>'


def _marker(query: str, texts: list[str], language: str) -> Callable[[str], list[Span]]:
    """Finds the words of a passage that the query's words meet."""
    common = detect_language(texts) if language == "auto" else language

    @cache
    def asked(name: str) -> tuple[Analyzer, frozenset[str]]:
        analyzer = analyzer_for(name)
        return analyzer, frozenset(analyzer.query(query))

    @cache
    def spans(text: str) -> list[Span]:
        own = detect_language([text]) if language == "auto" else language
        analyzer, terms = asked(common if own == "neutral" else own)
        return [
            (start, end)
            for start, end in word_spans(text)
            if not terms.isdisjoint(analyzer(text[start:end]))
        ]

    return spans


def _snippet(text: str, spans: list[Span]) -> str:
    """The part of the passage that has most of the marked words, the earliest of equals."""
    begin = 0
    if len(text) > _SNIPPET and spans:
        starts = [start for start, _ in spans]
        met = [bisect_left(starts, start + _SNIPPET) - at for at, start in enumerate(starts)]
        start = starts[met.index(max(met))]
        # A few words before it, unless the passage's beginning shows them too.
        room = 0 if spans[-1][1] <= _SNIPPET else max(0, start - 30)
        begin = 0 if room == 0 else text.find(" ", room, start) + 1 or start
    end = begin + _SNIPPET
    if end < len(text):
        end = max(text.rfind(" ", 0, end), end - 20)
    cut = text[begin:end]
    inside = [(s - begin, min(e - begin, len(cut))) for s, e in spans if 0 <= s - begin < len(cut)]
    return ("… " if begin else "") + _marked(cut, inside) + (" …" if end < len(text) else "")


def _marked(text: str, spans: list[Span]) -> str:
    parts, done = [], 0
    for start, end in spans:
        parts += [_safe(text[done:start]), "<mark>", _safe(text[start:end]), "</mark>"]
        done = end
    return "".join([*parts, _safe(text[done:])])


def _safe(text: str) -> str:
    # A lone surrogate cannot be written to a page, and a NUL may end one.
    return escape(text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd"))


def _direction(text: str) -> str:
    """That of the first letter that has one, as in ``dir="auto"``."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL", "L"):
            return "ltr" if kind == "L" else "rtl"
    return "ltr"
