"""What methods cost against what they bring."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

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
    # Less than a decade has no more than one power of ten on it.
    few = positive.max() / positive.min() < 12
    places = LogLocator(subs=(1, 2, 3, 5) if few else (1,), numticks=7).tick_values(
        positive.min(), positive.max()
    )
    low, high = positive.min() / 1.5, positive.max() * 1.5
    ticks = {float(place): short_number(place) for place in places if low <= place <= high}
    if (runs[name] <= 0).any():
        ticks[edge] = "0"
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(list(ticks), list(ticks.values()))
    bare(ax, "both")
    ax.set_xlabel(PANELS[name])
