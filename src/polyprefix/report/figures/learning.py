"""Learning curves: training loss and dev score by optimizer step."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.ticker import MaxNLocator, NullFormatter

from polyprefix.analysis import learning_curves
from polyprefix.config import RunError
from polyprefix.report.figures.drawing import Figure, bare, canvas, finished_figure
from polyprefix.report.figures.marks import legend
from polyprefix.report.figures.material import Material
from polyprefix.report.figures.sweeps import is_log, short_number


def drawn(material: Material) -> Iterator[Figure]:
    """One figure, where a run has a log."""
    try:
        table = learning_curves([path for path in material.folders if path.is_dir()])
    except RunError:
        return  # a damaged log is no reason to have no report
    if table.empty:
        return
    methods = [m for m in material.methods if (table["method"] == m.label).any()]
    drawing = canvas(8.2, 3.6)
    left, right = drawing.subplots(1, 2, sharex=True)
    for method in methods:
        rows = table[table["method"] == method.label]
        for ax, column in ((left, "loss"), (right, "dev")):
            own = rows.dropna(subset=[column])
            seeds = own["seed"].nunique()
            for _, run in own.groupby("seed"):
                ax.plot(run["step"], run[column], color=method.colour, linewidth=0.7,
                        alpha=0.35 if seeds > 1 else 1.0)  # fmt: skip
            # Runs may stop at other steps: a mean is of steps that all of them have.
            mean = own.groupby("step")[column].agg(["mean", "size"])
            mean = mean[mean["size"] == seeds]
            ax.plot(mean.index, mean["mean"], color=method.colour, linestyle=method.dash,
                    linewidth=1.8, marker=method.marker, markersize=4,
                    markevery=max(1, len(mean) // 8))  # fmt: skip
    if (table["loss"].dropna() > 0).all() and is_log(table["loss"].dropna()):
        left.set_yscale("log")
        left.yaxis.set_major_formatter(lambda value, _: short_number(value))
        left.yaxis.set_minor_formatter(NullFormatter())
    for ax, words in ((left, "training loss"), (right, f"{material.source} dev {material.score}")):
        bare(ax, "both")
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        ax.set_xlabel("optimizer step")
        ax.set_ylabel(words)
    dev = table["dev"].dropna()
    if dev.nunique() == 1:  # a share is nothing below 0
        right.set_ylim(max(-0.01, dev.iloc[0] - 0.1), dev.iloc[0] + 0.1)
    legend(left, methods, lines=True)
    lines = f"Thin lines are single seeds, thick ones their means ({material.seeds})."
    if (table.groupby("method")["seed"].nunique() == 1).all():
        lines = "One seed each."
    caption = (
        "Training loss (per answer token, averaged over stretches of steps) and "
        f"{material.source} dev {material.score}, by which the checkpoint is chosen. "
        f"{lines}{material.omission()}"
    )
    titles = {method.label: method.title for method in material.methods}
    shown = table.assign(method=table["method"].map(titles))
    title = f"Learning curves: {material.place}"
    yield finished_figure(drawing, f"{material.stem}-learning", title, caption, shown)
