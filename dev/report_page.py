"""Writes the report page: charts of a run's metrics in one HTML file that needs no network."""

from datetime import datetime, timedelta
from html import escape
from itertools import pairwise
from math import log10
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from dev.log_metrics import OUTCOMES, STAGES, LogMetrics

COLOURS = {
    "written": "#2a9d6f",
    "duplicates": "#a9b4c2",
    "suppressed": "#c9a66b",
    "failed": "#d1495b",
    "batch_failed": "#7d1d3f",
    "decode_ms": "#3d7dca",
    "connect_ms": "#e2a03f",
    "write_ms": "#6c5fc7",
}
INK, FAINT, GRID = "#1c2733", "#66758a", "#e6ebf1"
BINS = 60
TICKS_MS = [10.0**power for power in range(-3, 6)]
STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600]

STYLE = """
:root { color-scheme: light }
* { box-sizing: border-box }
body { margin: 0; padding: 28px clamp(16px, 4vw, 56px) 48px; background: #f4f6f9; color: #1c2733;
       font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 4px 16px; margin-bottom: 20px }
h1 { font-size: 24px; margin: 0; letter-spacing: -.01em }
header p { margin: 0; color: #66758a }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(128px, 1fr)) }
.tile, figure { background: #fff; border: 1px solid #e1e7ee; border-radius: 10px;
                box-shadow: 0 1px 2px rgb(28 39 51 / 5%) }
.tile { padding: 12px 16px 14px; border-top: 3px solid var(--colour, #cbd4df) }
.tile b { display: block; white-space: nowrap; font-size: 25px; line-height: 1.2; font-weight: 650;
          font-variant-numeric: tabular-nums; letter-spacing: -.02em }
.tile span { color: #66758a; font-size: 13px }
.charts { display: grid; gap: 12px; margin-top: 12px; grid-template-columns: repeat(12, 1fr) }
figure { margin: 0; padding: 14px 16px 6px; min-width: 0; grid-column: span 6 }
figure.wide { grid-column: span 12 }
figcaption { font-weight: 600 }
figcaption span { font-weight: 400; color: #66758a }
@media (max-width: 860px) { figure { grid-column: span 12 } }
"""


def write(metrics: LogMetrics, file: Path) -> None:
    """Write the page."""
    times = metrics.times
    span = f"{times[0]:%d %B %Y, %H:%M:%S} to {times[-1]:%H:%M:%S} UTC"
    charts = [
        ("wide", "Outcomes of messages", "over time", _outcomes(metrics)),
        ("", "Time of a batch", "all stages together", _latency(metrics)),
        (
            "",
            "Time by stage",
            "median, quartiles and range",
            _stages(metrics),
        ),
        (
            "",
            "Failed messages",
            "by reason; each delivery counts",
            _bars(metrics.reasons, COLOURS["failed"]),
        ),
        (
            "",
            "Failed batches",
            "by errorType",
            _bars(metrics.error_types, COLOURS["batch_failed"]),
        ),
    ]
    figures = "".join(
        f'<figure class="{size}"><figcaption>{title} <span>{note}</span></figcaption>'
        f"{_html(chart)}</figure>"
        for size, title, note, chart in charts
    )
    file.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>login-etl</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
        f"<header><h1>login-etl</h1><p>{escape(span)}</p></header>"
        f'<div class="tiles">{_tiles(metrics)}</div>'
        f'<div class="charts">{figures}</div></body></html>'
    )


def _tiles(metrics: LogMetrics) -> str:
    tiles = [
        (f"{metrics.sum('messages'):,}", "messages received", None),
        (f"{metrics.sum('written'):,}", "rows written", "written"),
        (f"{metrics.sum('duplicates'):,}", "duplicates", "duplicates"),
        (f"{metrics.sum('failed'):,}", "messages failed", "failed"),
        (
            f"{metrics.sum('batch_failed'):,}",
            f"of {len(metrics.batches):,} batches failed",
            "batch_failed",
        ),
        (_time(metrics.percentile("elapsed_ms", 50)), "median of a batch", "decode_ms"),
        (_time(metrics.percentile("elapsed_ms", 99)), "p99 of a batch", "write_ms"),
        (f"{metrics.sum('cold_start'):,}", "cold starts", "connect_ms"),
    ]
    return "".join(
        f'<div class="tile" style="--colour: {COLOURS.get(colour or "", FAINT)}">'
        f"<b>{number}</b><span>{label}</span></div>"
        for number, label, colour in tiles
    )


def _set_time_axis(chart: go.Figure) -> None:
    """Label the x axis with times, on a logarithmic scale."""
    chart.update_xaxes(type="log", tickvals=TICKS_MS, ticktext=[_time(ms) for ms in TICKS_MS])


def _outcomes(metrics: LogMetrics) -> go.Figure:
    """Stack the outcomes of messages in bars of equal, round time steps."""
    times = metrics.times
    first, seconds = times[0], (times[-1] - times[0]).total_seconds()
    step = next((step for step in STEPS_S if seconds / step <= BINS), STEPS_S[-1])
    bins = [int((time - first).total_seconds() / step) for time in times]
    starts = [first + timedelta(seconds=step * number) for number in range(max(bins) + 1)]
    chart = _figure(height=330)
    failed_batches = {"batch_failed": "in a failed batch"}
    for metric, name in (OUTCOMES | failed_batches).items():
        sums = [0] * len(starts)
        for number, batch in zip(bins, metrics.batches, strict=True):
            failed = batch["batch_failed"] and metric == "batch_failed"
            sums[number] += batch.get("messages", 0) if failed else batch.get(metric, 0)
        if any(sums):
            chart.add_bar(
                x=[_middle(start, step) for start in starts],
                y=sums,
                name=name,
                marker={"color": COLOURS[metric], "line": {"width": 0}},
                width=step * 880,
                hovertemplate="%{y:,} " + name + "<extra></extra>",
            )
    chart.update_layout(barmode="stack", hovermode="x unified", showlegend=True)
    chart.update_yaxes(title=f"messages in {step:g} s", rangemode="tozero")
    return chart


def _middle(start: datetime, step: float) -> datetime:
    return start + timedelta(seconds=step / 2)


def _time(ms: float) -> str:
    """Write a time in s, ms or µs."""
    if ms >= 1000:
        return f"{ms / 1000:.3g} s"
    return f"{ms:.3g} ms" if ms >= 0.1 else f"{ms * 1000:.3g} µs"


def _latency(metrics: LogMetrics) -> go.Figure:
    """Draw a histogram of the batches' times, with bins of equal width on a logarithmic axis."""
    values = sorted(metrics.values("elapsed_ms"))
    ratio = 10 ** (1 / 12)
    edges = [values[0]]
    while edges[-1] <= values[-1]:
        edges.append(edges[-1] * ratio)
    counts = [sum(low <= value < high for value in values) for low, high in pairwise(edges)]
    chart = _figure()
    chart.add_bar(
        x=[low * ratio**0.5 for low in edges[:-1]],
        y=counts,
        width=[low * (ratio - 1) * 0.94 for low in edges[:-1]],
        customdata=list(pairwise(map(_time, edges))),
        marker={"color": COLOURS["decode_ms"]},
        hovertemplate="%{y:,} batches in %{customdata[0]:.2f} to %{customdata[1]:.2f} ms"
        "<extra></extra>",
    )
    marks = [(50, "median"), (99, "p99")]
    for number, (percent, name) in enumerate(marks):
        value = metrics.percentile("elapsed_ms", percent)
        chart.add_vline(x=value, line={"color": INK, "width": 1, "dash": "dot"})
        chart.add_annotation(
            x=log10(value),  # plotly takes the exponent on a logarithmic axis
            y=1.06 + 0.09 * number,
            yref="paper",
            text=f"{name} {_time(value)}",
            showarrow=False,
            font={"size": 12, "color": INK},
        )
    _set_time_axis(chart)
    chart.update_yaxes(title="batches")
    return chart


def _stages(metrics: LogMetrics) -> go.Figure:
    """Draw a box plot of the time of each stage."""
    chart = _figure(top=12)
    for metric, name in STAGES.items():
        chart.add_box(
            x=metrics.values(metric) or [0],
            name=name,
            marker={"color": COLOURS[metric], "size": 3},
            boxpoints=False,
            line={"width": 1.5},
        )
    _set_time_axis(chart)
    chart.update_yaxes(autorange="reversed", tickfont={"size": 13, "color": INK})
    return chart


def _bars(counter: dict[str, int], colour: str) -> go.Figure:
    named = sorted(counter.items(), key=lambda item: (item[1], item[0]))
    chart = _figure(height=max(116, 40 + 30 * len(named)), top=12)
    if not named:
        chart.add_annotation(text="none", showarrow=False, font={"size": 15, "color": FAINT})
        chart.update_xaxes(visible=False)
        chart.update_yaxes(visible=False)
        return chart
    chart.add_bar(
        x=[number for _, number in named],
        y=[name for name, _ in named],
        orientation="h",
        text=[f"{number:,}" for _, number in named],
        textposition="outside",
        cliponaxis=False,
        marker={"color": colour},
        hovertemplate="%{y}: %{x:,}<extra></extra>",
    )
    chart.update_xaxes(visible=False, range=[0, 1.15 * max(number for _, number in named)])
    chart.update_yaxes(tickfont={"size": 13, "color": INK})
    return chart


def _figure(height: int = 300, top: int = 44) -> go.Figure:
    chart = go.Figure()
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    chart.update_layout(
        height=height,
        margin={"l": 8, "r": 16, "t": top, "b": 8},
        paper_bgcolor="#fff",
        plot_bgcolor="#fff",
        font={
            "family": "system-ui, -apple-system, Segoe UI, sans-serif",
            "color": FAINT,
            "size": 12,
        },
        showlegend=False,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": INK}},
        bargap=0.08,
        xaxis=axis,
        yaxis=axis,
    )
    return chart


def _html(chart: go.Figure) -> str:
    config = {"displayModeBar": False, "responsive": True}
    return chart.to_html(full_html=False, include_plotlyjs=False, config=config)
