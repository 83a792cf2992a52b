"""What methods cost against what they bring."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from polyprefix.analysis import method_costs, run_costs
from polyprefix.report.figures.drawing import Figure, bare, canvas, finished_figure
from polyprefix.report.figures.marks import legend
from polyprefix.report.figures.material import Material
from polyprefix.report.figures.sweeps import short_number

PANELS = {
    "parameters": "trained parameters",
    "training_seconds": "training time (s)",
    "memory": "peak memory (MiB)",
}


def drawn(material: Material) -> Iterator[Figure]:
    """One figure, of two methods or more."""
    records = list(material.records)
    means, runs = method_costs(records), run_costs(records)
    if len(means) < 2 or means["score"].dropna().nunique() < 2:
        return
    for table in (means, runs):
        table["memory"] /= 2**20
    panels = [name for name in PANELS if means[name].dropna().nunique() > 1]
    if not panels:
        return
    drawing = canvas(2.75 * len(panels) + 0.4, 3.3)
    # The last number of an axis must not be read with the first of the next.
    drawing.set_layout_engine("constrained", w_pad=0.14)
    axes = drawing.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for ax, name in zip(axes, panels, strict=True):
        _panel(ax, material, name, means, runs)
    axes[0].set_ylabel(f"mean {material.score} of target languages")
    legend(axes[0], material.methods)
    caption = (
        f"Mean {material.score} over the target languages against what a method costs (logarithmic "
        "axes): parameters that are trained, seconds of training (scoring costs all methods about "
        "the same), and the peak memory of the process, which scoring may determine. Large marks "
        f"are means over seeds, small ones single runs ({material.seeds}). Up and left is better. "
        "What trains nothing stands at 0, beside the axis proper."
        f"{material.omission()}"
    )
    titles = {method.label: method.title for method in material.methods}
    shown = means.assign(method=means["method"].map(titles)).rename(
        columns={"memory": "memory_mib"}
    )
    title = f"Cost and score: {material.place}"
    yield finished_figure(drawing, f"{material.stem}-cost", title, caption, shown)


def _panel(
    ax: Axes, material: Material, name: str, means: pd.DataFrame, runs: pd.DataFrame
) -> None:
    positive = runs.loc[runs[name] > 0, name]
    edge = positive.min() / 4
    for method in material.methods:
        own = runs[runs["method"] == method.label]
        row = means[means["method"] == method.label].iloc[0]
        if pd.isna(row[name]):
            continue
        if len(own) > 1:
            ax.plot(own[name].clip(lower=edge), own["score"], method.marker, color=method.colour,
                    markersize=3, alpha=0.45, markeredgewidth=0)  # fmt: skip
        ax.plot(max(row[name], edge), row["score"], method.marker, color=method.colour,
                markersize=7.5)  # fmt: skip
    ax.set_xscale("log")
    ax.margins(0.12)
    ticks = log_ticks(positive.min(), positive.max())
    if (runs[name] <= 0).any():
        # Beside a zero far to the left, numbers that are alike stand on one another.
        ticks = spaced([edge, *ticks], span=positive.max() / edge)
    shown = ["0" if place == edge else short_number(place) for place in ticks]
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, shown)
    bare(ax, "both")
    ax.set_xlabel(PANELS[name])


def spaced(ticks: list[float], *, span: float) -> list[float]:
    """The first of the numbers, and those that a seventh of a logarithmic axis is between."""
    kept = ticks[:1]
    for place in ticks[1:]:
        if np.log(place / kept[-1]) > np.log(span) / 7:
            kept.append(place)
    return kept


def log_ticks(low: float, high: float) -> list[float]:
    """At most five round numbers for a logarithmic axis."""
    low, high = low / 1.08, high * 1.08
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**n for n in decades for step in steps if low <= step * 10.0**n <= high]
        if len(found) <= 5:
            break
    if len(found) < 2:
        found = [v for v in MaxNLocator(4).tick_values(low, high) if low <= v <= high]
    return [float(value) for value in found[:: -(-len(found) // 5)]]
