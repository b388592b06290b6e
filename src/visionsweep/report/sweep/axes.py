"""What the charts of a sweep's page share: colours, layout, a parameter's axis, the range that is worth looking at.

A chart is a plain mapping in plotly.js's own terms; plotly's Python classes are not needed and cost a second to import.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionsweep.report.sweep.values import is_number, short_text
from visionsweep.text import param_text, shortened

# Okabe and Ito's palette, told apart also by the colour-blind; each state has a symbol of its own besides.
COLORS = {"complete": "#0072b2", "pruned": "#9a9a9a", "failed": "#d55e00", "running": "#009e73"}
SYMBOLS = {"complete": "circle", "pruned": "circle-open", "failed": "x", "running": "triangle-up"}
WINNER = "#e69f00"
INK = "#222222"
SCALE = ((0.0, "#dbe6f0"), (0.35, "#8fbbdd"), (0.7, "#2f7fb8"), (1.0, "#08306b"))  # worst to best
INACTIVE = -0.12  # where a parallel axis shows that a conditional parameter was not drawn
_MAX_LABEL = 18
_JITTER = 0.3  # of the distance between two choices

Trace = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One chart: its plotly traces and layout. In a trace `customdata` is the number of the trial of each point."""

    id: str
    title: str
    note: str  # plain text under the title
    data: list[Trace]
    layout: dict[str, Any]
    select: str = "markers"  # how a chosen trial is marked: "markers" or "lines"
    width: str = "half"  # of the page: "half", "full" or "third"


def text(value: str) -> str:
    """Return text that plotly shows as it is: it reads some HTML everywhere, and takes `$...$` for mathematics."""
    return html.escape(value, quote=False).replace("$", "&#36;")


def rounded(value: float) -> float | None:
    """Return six significant digits: all that a chart shows, in a third of the bytes. None, a gap: NaN or infinite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def layout(height: int, **changes: Any) -> dict[str, Any]:
    """Return the common layout with changes; axes are merged, everything else is replaced."""
    axis = {
        "gridcolor": "#ececec",
        "zeroline": False,
        "linecolor": "#bbbbbb",
        "ticks": "outside",
        "automargin": True,
    }
    axis |= {"tickcolor": "#bbbbbb", "ticklen": 4, "title": {"font": {"size": 12}}}
    common: dict[str, Any] = {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 34, "b": 46},
        "font": {
            "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif",
            "size": 12,
            "color": INK,
        },
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "#ffffff", "font": {"size": 12, "color": INK}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 11},
        },
        "xaxis": axis,
        "yaxis": axis,
    }
    for key, value in changes.items():
        common[key] = axis | value if key.startswith(("xaxis", "yaxis")) else value
    return common


def title(name: str) -> dict[str, Any]:
    """Return an axis title."""
    return {"text": text(shortened(name, 40)), "font": {"size": 12}, "standoff": 8}


@dataclass(frozen=True)
class ParamAxis:
    """Where a parameter's values lie: choices side by side, numbers on a linear or logarithmic axis."""

    key: str
    is_log: bool
    choices: tuple[str, ...]  # as Hydra spells them; empty for numbers
    low: float
    high: float

    def position(self, value: Any, number: int) -> float | None:
        """Return a value's coordinate, choices with a small shift of the trial `number` own; None: no place."""
        if self.choices:
            spelled = param_text(value)
            if spelled not in self.choices:
                return None
            shift = (number * 0.6180339887) % 1 - 0.5  # spread evenly, and the same each time
            return self.choices.index(spelled) + _JITTER * shift
        return float(value) if is_number(value) and not (self.is_log and value <= 0) else None

    def fraction(self, value: Any, number: int) -> float | None:
        """Return a value's place between the ends of its axis, 0 to 1."""
        position = self.position(value, number)
        if position is None:
            return None
        if self.choices:
            return (position + 0.5) / len(self.choices)
        low, high, place = (
            math.log(v) if self.is_log else v for v in (self.low, self.high, position)
        )
        return 0.5 if high <= low else (place - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return (fraction, label) for an axis that is drawn by hand: every choice, the ends of a range."""
        if self.choices:
            named = [(i + 0.5) / len(self.choices) for i in range(len(self.choices))]
            return list(zip(named, self.labels(), strict=True))
        middle = math.sqrt(self.low * self.high) if self.is_log else (self.low + self.high) / 2
        return [
            (0.0, short_text(self.low, 3)),
            (0.5, short_text(middle, 2)),
            (1.0, short_text(self.high, 3)),
        ]

    def labels(self) -> list[str]:
        """Return the choices for people."""
        return [shortened(_shown_choice(choice), _MAX_LABEL) for choice in self.choices]

    def layout(self) -> dict[str, Any]:
        """Return the plotly axis for `position`."""
        axis: dict[str, Any] = {"title": title(self.key)}
        if self.choices:
            axis |= {
                "tickvals": list(range(len(self.choices))),
                "ticktext": [text(label) for label in self.labels()],
            }
            return axis | {"range": [-0.6, len(self.choices) - 0.4], "tickfont": {"size": 11}}
        if self.is_log:
            margin = 0.03 * math.log10(self.high / self.low)
            ends = [math.log10(self.low) - margin, math.log10(self.high) + margin]
            return axis | {
                "type": "log",
                "range": ends,
                "exponentformat": "power",
                "dtick": max(1, round(ends[1] - ends[0]) // 4),
            }
        margin = 0.03 * (self.high - self.low)
        return axis | {"range": [self.low - margin, self.high + margin], "nticks": 6}


def _shown_choice(choice: str) -> str:
    try:
        return short_text(float(choice)) if "." in choice or "e" in choice.lower() else choice
    except ValueError:
        return choice


def param_axis(key: str, space: Mapping[str, Any], values: Sequence[Any]) -> ParamAxis | None:
    """Return the axis of a parameter; its range also holds `values` that lie outside of the space. None: nothing."""
    if "choices" in space:
        spelled = dict.fromkeys(map(param_text, [*space["choices"], *values]))
        return (
            ParamAxis(key, False, tuple(spelled), 0.0, float(len(spelled) - 1)) if spelled else None
        )
    ends = [
        float(value) for value in (space.get("low"), space.get("high"), *values) if is_number(value)
    ]
    is_log = bool(space.get("log"))
    ends = [value for value in ends if value > 0 or not is_log]
    if not ends or min(ends) == max(ends):
        return param_axis(key, {"choices": []}, values)
    return ParamAxis(key, is_log, (), min(ends), max(ends))


def focus(costs: Sequence[float], others: Sequence[float], reach: float = 1.6) -> float | None:
    """Return the highest cost worth looking at, None: all of them.

    `costs` are those of complete trials, `others` of pruned ones. Bad trials would squeeze the good ones into a line:
    where all of them take more than 2.5 times the room of the best nine tenths of the complete ones, the axis ends
    `reach` times that room above the best.
    """
    if len(costs) < 5:
        return None
    ordered = sorted(costs)
    room = ordered[math.ceil(0.9 * len(ordered)) - 1] - ordered[0]
    if not 0 < room < math.inf or max(*ordered, *others) - ordered[0] <= 2.5 * room:
        return None
    return ordered[0] + reach * room
