"""The plot that the README shows, written as the SVG that it is: three lines need no library.

It brings its own background, because it is shown on light pages and on dark ones.
"""

from collections.abc import Iterator
from math import ceil, floor, log10

from benches.measure import Row
from dev import ROOT

PLOT = ROOT / "docs" / "speed.svg"

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 76, 552, 84, 348

# By the name of the measured column; drawn in this order, so that ours is on top.
LINES = {
    "python_ms": "Python, no ledger",
    "floor_ms": "floor: COPY alone",
    "ours_ms": "login-etl",
}

STYLE = """<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.card { fill: #ffffff; stroke: #d1d9e0 }
.title { font-size: 16px; font-weight: 600; fill: #1f2328 }
.axis { fill: #59636e }
.grid { stroke: #d1d9e0 }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
.floor_ms { stroke: #59636e } .ours_ms { stroke: #0969da } .python_ms { stroke: #bc4c00 }
.name { stroke: none; font-weight: 600 }
.name.floor_ms { fill: #59636e } .name.ours_ms { fill: #0969da } .name.python_ms { fill: #bc4c00 }
.dot { fill: #ffffff; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
  .card { fill: #0d1117; stroke: #2a313c }
  .title { fill: #f0f6fc }
  .axis { fill: #9198a1 }
  .grid { stroke: #2a313c }
  .floor_ms { stroke: #9198a1 } .ours_ms { stroke: #58a6ff } .python_ms { stroke: #f0883e }
  .name { stroke: none }
  .name.floor_ms { fill: #9198a1 } .name.ours_ms { fill: #58a6ff } .name.python_ms { fill: #f0883e }
  .dot { fill: #0d1117 }
}
</style>"""


class Scale:
    """A logarithmic axis for some values, with a margin around them in powers of ten."""

    def __init__(self, values: list[float], start: int, end: int, margin: float = 0) -> None:
        """Lay the axis between two places of the drawing."""
        self.low, self.high = log10(min(values)) - margin, log10(max(values)) + margin
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Find the place of a value."""
        share = (log10(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """The values to mark: one and three of each power of ten."""
        exponents = range(floor(self.low), ceil(self.high))
        marks = [digit * 10.0**exponent for exponent in exponents for digit in (1, 3)]
        return [mark for mark in marks if self.low <= log10(mark) <= self.high]


def save(rows: list[Row]) -> None:
    """Draw the medians of each size of a batch."""
    PLOT.write_text("\n".join(_drawing(rows)) + "\n")


def _drawing(rows: list[Row]) -> Iterator[str]:
    x = Scale([row["messages"] for row in rows], LEFT, RIGHT)
    y = Scale([row[column] for row in rows for column in LINES], BOTTOM, TOP, margin=0.2)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    yield "<title>Time of an invocation by the messages of its batch</title>"
    yield STYLE
    yield f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>'
    yield _text(24, 34, "title", "Time of an invocation")
    yield _text(24, 54, "axis", "from event to answer, median; both axes are logarithmic")
    for milliseconds in y.ticks:
        place = y(milliseconds)
        yield f'<line class="grid" x1="{LEFT}" y1="{place}" x2="{RIGHT}" y2="{place}"/>'
        yield _text(LEFT - 10, place + 4, "axis", f"{milliseconds:g} ms", "end")
    for row in rows:
        place = x(row["messages"])
        yield f'<line class="grid" x1="{place}" y1="{TOP}" x2="{place}" y2="{BOTTOM}"/>'
        yield _text(place, BOTTOM + 24, "axis", f"{row['messages']:,}", "middle")
        ratio = f"{row['to_floor']:.1f} \N{MULTIPLICATION SIGN} floor"
        yield _text(place, BOTTOM + 44, "name ours_ms", ratio, "middle")
    yield _text(RIGHT + 40, BOTTOM + 24, "axis", "messages")
    for column, name in LINES.items():
        points = [(x(row["messages"]), y(row[column])) for row in rows]
        path = " ".join(f"{left},{top}" for left, top in points)
        yield f'<polyline class="line {column}" points="{path}"/>'
        for left, top in points:
            yield f'<circle class="dot {column}" cx="{left}" cy="{top}" r="4"/>'
        yield _text(RIGHT + 12, points[-1][1] + 4, f"name {column}", name)
    yield "</svg>"


def _text(x: float, y: float, style: str, text: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
