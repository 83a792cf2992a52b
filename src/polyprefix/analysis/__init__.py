"""Statistics over records, without torch."""

from polyprefix.analysis.comparison import Comparison, MethodRun, compare
from polyprefix.analysis.costs import method_costs, run_costs
from polyprefix.analysis.curves import (
    Line,
    Trend,
    curve,
    curve_runs,
    doubling_trend,
    setting,
    straight_line,
)
from polyprefix.analysis.groups import GROUPS, group_means, language_means
from polyprefix.analysis.hierarchical import Pooled, Slope, pool, pool_languages, regress
from polyprefix.analysis.learning import learning_curves
from polyprefix.analysis.paired import (
    Estimates,
    adjust,
    paired_bootstrap,
    sign_flip_test,
    stratified_bootstrap,
)
from polyprefix.analysis.pairs import (
    Difference,
    WinMatrix,
    compare_languages,
    compare_means,
    compare_seeds,
    win_matrix,
)
from polyprefix.analysis.records import (
    Examples,
    finished,
    method_labels,
    read_examples,
    score_table,
)
from polyprefix.analysis.scores import (
    GroupScore,
    LanguageScore,
    group_scores,
    language_scores,
    mean_calibrated,
)
from polyprefix.analysis.seen import pretraining_shares
from polyprefix.analysis.settings import LabelledRun, Setting, settings
from polyprefix.analysis.source_bias import SourceBias, source_bias
from polyprefix.analysis.typology import correlations, language_features
from polyprefix.analysis.uriel import KINDS, Uriel, language_distances, read_uriel

__all__ = [
    "GROUPS",
    "KINDS",
    "Comparison",
    "Difference",
    "Estimates",
    "Examples",
    "GroupScore",
    "LabelledRun",
    "LanguageScore",
    "Line",
    "MethodRun",
    "Pooled",
    "Setting",
    "Slope",
    "SourceBias",
    "Trend",
    "Uriel",
    "WinMatrix",
    "adjust",
    "compare",
    "compare_languages",
    "compare_means",
    "compare_seeds",
    "correlations",
    "curve",
    "curve_runs",
    "doubling_trend",
    "finished",
    "group_means",
    "group_scores",
    "language_distances",
    "language_features",
    "language_means",
    "language_scores",
    "learning_curves",
    "mean_calibrated",
    "method_costs",
    "method_labels",
    "paired_bootstrap",
    "pool",
    "pool_languages",
    "pretraining_shares",
    "read_examples",
    "read_uriel",
    "regress",
    "run_costs",
    "score_table",
    "setting",
    "settings",
    "sign_flip_test",
    "source_bias",
    "straight_line",
    "stratified_bootstrap",
    "win_matrix",
]
