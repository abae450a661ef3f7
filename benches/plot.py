"""Draws the plot of the documents as SVG text: four lines need no plotting library.

The plot has a background of its own, because pages show it in light and in dark mode.
"""

from collections.abc import Iterator
from math import ceil, floor, log10

from benches.measure import Row
from dev import ROOT

PLOT = ROOT / "docs" / "speed.svg"

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 76, 552, 104, 368
LABEL_HEIGHT = 18

# Labels by column. Later lines are drawn over earlier ones.
LINES = {
    "python_ms": "Python, no ledger",
    "bare_copy_ms": "bare COPY",
    "copy_function_ms": "COPY function",
    "login_etl_ms": "login-etl",
}

STYLE = """<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
.card { fill: #ffffff; stroke: #d1d9e0 }
.title { font-size: 16px; font-weight: 600; fill: #1f2328 }
.axis { fill: #59636e }
.grid { stroke: #d1d9e0 }
.line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
.bare_copy_ms { stroke: #8c959f } .copy_function_ms { stroke: #59636e }
.login_etl_ms { stroke: #0969da } .python_ms { stroke: #bc4c00 }
.name { stroke: none; font-weight: 600 }
.name.bare_copy_ms { fill: #8c959f } .name.copy_function_ms { fill: #59636e }
.name.login_etl_ms { fill: #0969da } .name.python_ms { fill: #bc4c00 }
.dot { fill: #ffffff; stroke-width: 2.5 }
@media (prefers-color-scheme: dark) {
  .card { fill: #0d1117; stroke: #2a313c }
  .title { fill: #f0f6fc }
  .axis { fill: #9198a1 }
  .grid { stroke: #2a313c }
  .bare_copy_ms { stroke: #6e7681 } .copy_function_ms { stroke: #9198a1 }
  .login_etl_ms { stroke: #58a6ff } .python_ms { stroke: #f0883e }
  .name { stroke: none }
  .name.bare_copy_ms { fill: #6e7681 } .name.copy_function_ms { fill: #9198a1 }
  .name.login_etl_ms { fill: #58a6ff } .name.python_ms { fill: #f0883e }
  .dot { fill: #0d1117 }
}
</style>"""


class Scale:
    """A logarithmic axis; the margin around its values is in powers of ten."""

    def __init__(self, values: list[float], start: int, end: int, margin: float = 0) -> None:
        """Put the axis between two coordinates of the drawing."""
        self.low, self.high = log10(min(values)) - margin, log10(max(values)) + margin
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value."""
        share = (log10(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[float]:
        """The values with a grid line: 1 and 3 times each power of ten."""
        exponents = range(floor(self.low), ceil(self.high))
        marks = [digit * 10.0**exponent for exponent in exponents for digit in (1, 3)]
        return [mark for mark in marks if self.low <= log10(mark) <= self.high]


def save(rows: list[Row], conditions: str) -> None:
    """Draw the median times by batch size, with the conditions of the measurement."""
    PLOT.write_text("\n".join(_drawing(rows, conditions)) + "\n")


def _drawing(rows: list[Row], conditions: str) -> Iterator[str]:
    x = Scale([row["messages"] for row in rows], LEFT, RIGHT)
    y = Scale([row[column] for row in rows for column in LINES], BOTTOM, TOP, margin=0.2)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    yield "<title>Time of an invocation by batch size</title>"
    yield STYLE
    yield f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8"/>'
    yield _text(24, 34, "title", "Time of an invocation")
    yield _text(24, 54, "axis", "from event to answer, median; both axes are logarithmic")
    yield _text(24, 72, "axis", f"{conditions}, all on one machine")
    for milliseconds in y.ticks:
        place = y(milliseconds)
        yield f'<line class="grid" x1="{LEFT}" y1="{place}" x2="{RIGHT}" y2="{place}"/>'
        yield _text(LEFT - 10, place + 4, "axis", f"{milliseconds:g} ms", "end")
    for row in rows:
        place = x(row["messages"])
        yield f'<line class="grid" x1="{place}" y1="{TOP}" x2="{place}" y2="{BOTTOM}"/>'
        yield _text(place, BOTTOM + 24, "axis", f"{row['messages']:,}", "middle")
        ratio = f"{row['ratio_to_copy_function']:.1f} \N{MULTIPLICATION SIGN} COPY function"
        yield _text(place, BOTTOM + 44, "name login_etl_ms", ratio, "middle")
    yield _text(RIGHT + 40, BOTTOM + 24, "axis", "messages")
    labels = _apart({column: y(rows[-1][column]) for column in LINES})
    for column, name in LINES.items():
        points = [(x(row["messages"]), y(row[column])) for row in rows]
        path = " ".join(f"{left},{top}" for left, top in points)
        yield f'<polyline class="line {column}" points="{path}"/>'
        for left, top in points:
            yield f'<circle class="dot {column}" cx="{left}" cy="{top}" r="4"/>'
        yield _text(RIGHT + 12, labels[column] + 4, f"name {column}", name)
    yield "</svg>"


def _apart(places: dict[str, float]) -> dict[str, float]:
    """Move labels down where they would overlap the label above."""
    apart, lowest = {}, -float("inf")
    for column, place in sorted(places.items(), key=lambda item: item[1]):
        apart[column] = lowest = max(place, lowest + LABEL_HEIGHT)
    return apart


def _text(x: float, y: float, style: str, text: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
