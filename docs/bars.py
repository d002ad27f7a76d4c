"""Bar charts as SVG, the same bytes for the same figures, readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, log10
from typing import Final

_WIDTH: Final = 880
_LABELS: Final = 420
_ROW: Final = 24
_TOP: Final = 58
_RIGHT: Final = 70
_STYLE: Final = """
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px } .small { font-size: 12px; fill: #59636e }
.page { fill: #ffffff } .grid { stroke: #d1d9e0 } .range { stroke: #1f2328; stroke-width: 1.5 }
.mark { stroke: #cf222e; stroke-dasharray: 4 3 } .s0 { fill: #2f81f7 } .s1 { fill: #bf8700 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 } .page { fill: #0d1117 } .grid { stroke: #3d444d }
.range { stroke: #e6edf3 } .mark { stroke: #ff7b72 } .s0 { fill: #388bfd } .s1 { fill: #d29922 }
}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a median, the range around it, and which of the two colours it has."""

    label: str
    median: float
    least: float
    most: float
    series: int = 0


def chart(title: str, axis: str, bars: Sequence[Bar], *, mark: float | None = None) -> str:
    """A chart of horizontal bars from zero; ``mark`` is a value to compare them with, as a dashed line."""
    top = max([*(bar.most for bar in bars), mark or 0.0]) * 1.02
    step = _step(top)
    scale = (_WIDTH - _LABELS - _RIGHT) / top
    bottom = _TOP + _ROW * len(bars)
    size = f'width="{_WIDTH}" height="{bottom + 30}"'
    view = f'viewBox="0 0 {_WIDTH} {bottom + 30}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="page" {size} rx="6"/>',
        _text(12, 24, title, "title"),
        _text(12, 44, axis, "small"),
    ]
    for number in range(int(top / step) + 1):
        place = _LABELS + number * step * scale
        parts.append(_line(place, _TOP - 6, place, bottom, "grid"))
        parts.append(_text(place, bottom + 18, f"{number * step:g}", "small", "middle"))
    for number, bar in enumerate(bars):
        parts += _bar(bar, _TOP + _ROW * number, scale)
    if mark is not None:
        place = _LABELS + mark * scale
        parts.append(_line(place, _TOP - 6, place, bottom, "mark"))
    return "\n".join([*parts, "</svg>", ""])


def _bar(bar: Bar, top: float, scale: float) -> list[str]:
    middle = top + _ROW / 2 - 2
    least, most = _LABELS + bar.least * scale, _LABELS + bar.most * scale
    size = f'width="{bar.median * scale:.1f}" height="{_ROW - 6}"'
    return [
        _text(_LABELS - 8, middle + 4, bar.label, "", "end"),
        f'<rect class="s{bar.series}" x="{_LABELS}" y="{top:.1f}" {size} rx="2"/>',
        _line(least, middle + 1, most, middle + 1, "range"),
        _text(most + 6, middle + 4, f"{bar.median:.3g}", "small"),
    ]


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _step(top: float) -> float:
    """A round distance that divides what is shown into four to ten parts."""
    power = 10.0 ** (ceil(log10(top)) - 1)
    return next(one * power for one in (0.2, 0.5, 1.0, 2.0) if top / (one * power) <= 10)
