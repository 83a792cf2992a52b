"""What a group of settings shows, in sentences, each computed from records.

Names of methods, as people read them, stand in backticks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from statistics import mean

import pandas as pd

from polyprefix.analysis import (
    Difference,
    Examples,
    Setting,
    compare_languages,
    compare_means,
    compare_seeds,
    language_scores,
    pool_languages,
)
from polyprefix.report.console import number, signed
from polyprefix.report.group import Group

LEVEL = 0.05
"""Below it a corrected p tells two methods apart."""

SEVERAL = 4
"""Names that a sentence lists."""

NOTHING = "Nothing can be said about transfer"
"""How a headline begins where it is so."""

UNTOUCHED = "none"
"""The method that trains nothing."""


@dataclass
class Verdict:
    """The verdict of a group.

    Attributes:
        headline: which method is best on other languages, or that none can be told to be.
        numbers: a few numbers with what they are.
        findings: what else can be said.
        doubts: what cannot, and why.
        leads: of the best method over each of the others, on other examples.
        best: its name.
    """

    headline: str
    numbers: list[tuple[str, str]] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    leads: list[Lead] = field(default_factory=list)
    best: str = ""


@dataclass(frozen=True)
class Lead:
    """The best method's difference to another, on other examples.

    ``p``: corrected for every pair of methods, since the best was found by looking at all.
    ``other``: the other method's name for people.
    """

    difference: Difference
    p: float
    other: str

    @property
    def apart(self) -> bool:
        return self.p < LEVEL

    @property
    def text(self) -> str:
        return f"{between(self.difference)}, {self.p_text}"

    @property
    def p_text(self) -> str:
        return p_text(self.p)

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """For a table: the other method, the difference, its interval, p."""
        d = self.difference
        interval = f"{signed(d.low)} to {signed(d.high)}"
        return (
            self.other,
            signed(d.difference),
            interval,
            self.p_text.removeprefix("p ").lstrip("= "),
        )


def verdict(group: Group) -> Verdict:
    """The verdict of a group."""
    placed = [
        (setting, name)
        for setting, name in zip(group.settings, group.names, strict=True)
        if setting.target is not None
    ]
    if not placed:
        found = _without_targets(group)
    else:
        placed.sort(key=lambda item: -_mean(group, *item))
        found = _with_targets(group, [s for s, _ in placed], [n for _, n in placed])
    _doubt_seeds(group, found)
    return found


def _mean(group: Group, setting: Setting, name: str) -> float:
    """Over the target languages; of the examples that all methods have, where they are known."""
    examples = group.examples
    if examples is None or not examples.targets:
        return setting.target or 0.0
    return mean(float(examples.scores(name, code).mean()) for code in examples.targets)


def between(difference: Difference) -> str:
    """``+0.036, 95% interval +0.020 to +0.052``."""
    low, high = signed(difference.low), signed(difference.high)
    return f"{signed(difference.difference)}, 95% interval {low} to {high}"


def p_text(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _without_targets(group: Group) -> Verdict:
    best = max(range(len(group.names)), key=lambda i: group.settings[i].source)
    score = f"{group.headline} in {group.source.name}: {group.settings[best].source:.3f}"
    found = Verdict(f"{group.quoted(group.names[best])} has the highest {score}.")
    found.doubts.append("Only the source language was scored: there is no transfer to judge.")
    return found


def _with_targets(group: Group, settings: Sequence[Setting], names: Sequence[str]) -> Verdict:
    """Settings and their names, the best on target languages first."""
    best, source = settings[0], group.source.name
    counts = {len(run.record["scores"]) - 1 for setting in settings for run in setting.runs}
    many = " to ".join(map(str, sorted({min(counts), max(counts)})))
    languages = f"{many} other language{'' if many == '1' else 's'}"
    score = f"mean {group.headline} {number(best.target)} on {languages}"
    nothing = all(not setting.target for setting in settings)
    leads = [] if nothing else _leads(group, names)
    if nothing:
        found = Verdict(f"{NOTHING}: no method has a right answer in another language.")
    else:
        means = [number(_mean(group, *each)) for each in zip(settings, names, strict=True)]
        equal = [name for name, shown in zip(names, means, strict=True) if shown == means[0]]
        found = Verdict(_headline(group, names, equal, score, leads))
    found.numbers = [
        (number(best.target), f"{group.quoted(names[0])}: mean {group.headline} on {languages}"),
        (number(best.source), f"{group.quoted(names[0])}: {source}"),
        (signed(best.gap or 0.0), f"{group.quoted(names[0])}: transfer gap, {source} minus others"),
    ]
    if leads:
        found.numbers.append(
            (
                signed(leads[0].difference.difference),
                f"lead over {group.quoted(names[1])}, {leads[0].p_text}",
            )
        )
    if group.examples is not None and leads:
        _compare(group, group.examples, leads, found)
    elif len(names) > 1 and not nothing:
        found.doubts.append(f"Differences were not tested: {group.unpaired}.")
    gaps = sorted(zip((s.gap or 0.0 for s in settings), names, strict=True))
    if len(gaps) > 1:
        (smallest, least), (largest, most) = gaps[0], gaps[-1]
        said = (
            f"goes from {signed(smallest)} ({group.quoted(least)}) to {signed(largest)} "
            f"({group.quoted(most)})"
        )
        if signed(smallest) == signed(largest):
            said = f"of every method is {signed(smallest)}"
        found.findings.append(
            f"The transfer gap {said}. A small gap beside a low {source} score is no merit."
        )
    _majority(group, settings, names, found)
    _precision(group, found)
    return found


def _leads(group: Group, names: Sequence[str]) -> list[Lead]:
    """Of the best method over each of the others."""
    examples = group.examples
    if examples is None or not examples.targets:
        return []
    pairs = len(names) * (len(names) - 1) // 2
    found = [compare_means(examples, names[0], other) for other in names[1:]]
    return [Lead(d, min(1.0, pairs * d.p), group.shown[d.second]) for d in found]


def _headline(
    group: Group, names: Sequence[str], equal: Sequence[str], score: str, leads: Sequence[Lead]
) -> str:
    """``equal``: names of the settings whose means are the highest, to the digits shown."""
    best = group.quoted(names[0])
    have = "has" if len(equal) == 1 else "have"
    highest = f"{_several(group, equal)} {have} the highest {score}"
    if len(names) == 1:
        return f"{best} has a {score}. There is no other method to compare it with."
    if not leads:
        return f"{highest}; whether by chance was not tested."
    pairs = len(names) * (len(names) - 1) // 2
    corrected = "" if pairs == 1 else f", corrected for {pairs} pairs of methods"
    first = leads[0]
    ties = [lead for lead in leads if not lead.apart]
    if ties:
        begin = f"No method is shown to be best. {highest}"
        # The method that comes next need not be one of the ties: spreads of pairs differ.
        below = [lead for lead in ties if lead.difference.second not in equal]
        if not below:
            return f"{begin}."
        second = group.quoted(below[0].difference.second)
        others = _several(group, [lead.difference.second for lead in below])
        many = "any other" if len(below) == len(leads) > SEVERAL else others
        again = "" if len(equal) == 1 else f"{best} "
        return (
            f"{begin}, but {again}cannot be told apart from {many}: its lead over {second} is "
            f"within noise ({below[0].text}{corrected})."
        )
    assert group.examples is not None
    seeds = compare_seeds(group.examples, names[0], names[1])
    lead = f"its lead over {group.quoted(names[1])} is {first.text}{corrected}"
    if seeds.p >= LEVEL or isnan(seeds.p):
        why = "one seed says nothing about others" if isnan(seeds.p) else "seeds vary as much"
        return (
            f"{best} is the best of what was trained here: {score}; {lead}. Another training could "
            f"put {group.quoted(names[1])} first: {why}."
        )
    return f"{best} carries over best: {score}; {lead}."


def _several(group: Group, names: Sequence[str]) -> str:
    """A list of names, of which not too many are said."""
    said = [group.quoted(name) for name in names]
    if len(said) > SEVERAL:
        said = [*said[: SEVERAL - 1], f"{len(said) - SEVERAL + 1} more"]
    return listed(said)


def _compare(group: Group, examples: Examples, leads: Sequence[Lead], found: Verdict) -> None:
    """The best against the others: all means, the runner-up by language, and the backbone."""
    best, second = leads[0].difference.first, leads[0].difference.second
    found.leads, found.best = list(leads), group.shown[best]
    top, runner_up = group.quoted(best), group.quoted(second)
    untouched = next((lead for lead in leads if lead.difference.second == UNTOUCHED), None)
    if untouched is not None:
        verb = "improves on" if untouched.apart else "is not shown to improve on"
        found.findings.append(f"Adaptation by {top} {verb} the untouched model: {untouched.text}.")
    elif best == UNTOUCHED:
        found.doubts.append("No adaptation improves on the untouched model in other languages.")
    table = compare_languages(examples, best, second)
    targets = table[table.index != examples.source]
    significant = targets["p_holm"] < LEVEL
    better = int((significant & (targets["difference"] > 0)).sum())
    worse_in = int((significant & (targets["difference"] < 0)).sum())
    found.findings.append(
        f"Language by language, {top} is better than {runner_up} in {better}, worse in {worse_in}, "
        f"and not told apart in {len(targets) - better - worse_in} of {len(targets)} (sign-flip "
        "tests on the same examples, Holm's correction)."
    )
    try:
        pooled = pool_languages(examples, best, second)
    except ValueError as error:
        found.doubts.append(f"What to expect in other languages than these is not known: {error}.")
    else:
        found.findings.append(
            f"In one more language, of one more family, {top} minus {runner_up} is to be expected "
            f"between {signed(pooled.expected_low)} and {signed(pooled.expected_high)} "
            f"({pooled.languages} languages of {pooled.families} families)."
        )
    over_seeds = compare_seeds(examples, best, second)
    if not isnan(over_seeds.p):
        text = f"{between(over_seeds)}, {p_text(over_seeds.p)} (Welch's test over runs)"
        if over_seeds.p < LEVEL:
            found.findings.append(f"With other seeds {top} minus {runner_up} is {text}.")
        else:
            found.doubts.append(
                f"Seeds vary as much as {top} and {runner_up} differ: {text}. With other seeds the "
                "order could be another."
            )


def _majority(
    group: Group, settings: Sequence[Setting], names: Sequence[str], found: Verdict
) -> None:
    """Which scores are no better than always giving the most frequent label."""
    at = []
    for setting, name in zip(settings, names, strict=True):
        rows = [row for run in setting.runs for row in language_scores(run.record)]
        targets = [row for row in rows if not row.source and row.majority is not None]
        low = [row for row in targets if row.score - 2 * row.stderr <= (row.majority or 0.0)]
        if targets and low:
            share = len(low) / len(targets)
            at.append((share, f"{group.quoted(name)} in {share:.0%}"))
    if not at:
        if settings[0].runs[0].record["task"]["labels"]:
            found.findings.append("Every score is above the majority class by two standard errors.")
        return
    shares = [share for share, _ in at]
    if min(shares) == 1 and len(at) == len(names) > 1:
        which = "every score of every method"
    elif len(at) > SEVERAL:
        which = f"{min(shares):.0%} to {max(shares):.0%} of the scores of {len(at)} methods"
    else:
        which = f"{listed([text for _, text in at])} of the scores"
    found.doubts.append(
        f"Not above the majority class by two standard errors: {which} in other languages."
    )
    hopeless = len(at) == len(names) and min(share for share, _ in at) > 0.9
    if hopeless and not found.headline.startswith(NOTHING):
        best = f"the highest mean {group.headline} is {found.numbers[0][0]}"
        found.headline = f"{NOTHING}: scores are at the majority class; {best}."


def _precision(group: Group, found: Verdict) -> None:
    targets: pd.DataFrame = group.means[~group.means["source"].astype(bool)]
    sizes = sorted({int(targets["n"].min()), int(targets["n"].max())})
    # Where all answers are wrong, or all right, the error is not known, and its estimate is 0.
    error = targets["stderr"].max()
    known = f", and one score a standard error of up to {error:.3f}" if error > 0 else ""
    found.doubts.append(
        f"A language has {' to '.join(map(str, sizes))} test examples{known}: small differences in "
        "one language are not seen."
    )
    if group.examples is not None and len(group.names) > 1:
        least = min(len(ids) for ids in group.examples.ids.values())
        if least < sizes[0]:
            found.doubts.append(
                "Differences between methods are those on the examples that all runs have, which "
                f"in a language are as few as {least}."
            )
    seen = targets.groupby("language")["seen"].first()
    if seen.notna().all():
        count = "each" if seen.all() else str(int(seen.sum()))
        found.findings.append(
            f"In pretraining the backbone saw {count} of the {len(seen)} other languages."
        )
    else:
        found.doubts.append(
            "Which of these languages the backbone saw in pretraining is not known here, so "
            "zero-shot means without task data in the language, not without text in it."
        )


def _doubt_seeds(group: Group, found: Verdict) -> None:
    single = [
        group.quoted(name)
        for name, setting in zip(group.names, group.settings, strict=True)
        if len(setting.runs) == 1 and "training" in setting.runs[0].record
    ]
    if single:
        which, its = f"{listed(single)} were each", "their"
        if len(single) == 1 or len(single) == len(group.names):
            which, its = f"{'Every method' if len(single) > 1 else single[0]} was", "its"
        found.doubts.append(
            f"{which} trained with one seed: how much another training would change {its} scores "
            "cannot be told. Intervals are about other test examples only."
        )
