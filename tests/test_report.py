"""The page of a study: what it says, and that no text of anybody can break it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from polyprefix.analysis import LabelledRun, compare_means, compare_seeds, settings
from polyprefix.languages import get
from polyprefix.report import write_page
from polyprefix.report.console import named, titled
from polyprefix.report.examples import LONGEST, browse
from polyprefix.report.group import Group, read_group
from polyprefix.report.heat_map import SHADES, heat_map
from polyprefix.report.page import embedded
from polyprefix.report.provenance import (
    _percent,
    costs,
    facts,
    origins,
    partly_scored,
    together,
)
from polyprefix.report.verdict import _several, verdict
from tests.report_records import HOSTILE, UNREADABLE, figure, write_data, write_runs

CODES = ["eng_Latn", "arb_Arab", "deu_Latn", "hin_Deva", "swh_Latn", "urd_Arab"]

CODES_OF = {get(code).name: code for code in CODES}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), CODES, rows=120)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take seconds, and have tests of their own."""
    monkeypatch.setattr("polyprefix.report.figures.figures", lambda *_, **__: [])


def made(folder: Path, data: Path, accuracy: dict[str, float], **options: Any) -> Group:
    return read_group(write_runs(folder, data, accuracy, **options), folder)


@pytest.fixture(scope="module")
def group(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Group:
    """Three methods that are far apart, two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    return made(folder, data, {"none": 0.4, "lora": 0.9, "prefix_tuning": 0.6}, seeds=(0, 1))


# The verdict -------------------------------------------------------------------------------------


def test_the_best_method_is_named_with_its_lead(group: Group) -> None:
    found = verdict(group)
    assert group.examples is not None
    lead = compare_means(group.examples, "lora", "prefix_tuning")
    targets = [
        record["scores"][code]["accuracy"]
        for record in group.records
        if record["method"]["name"] == "lora"
        for code in CODES[1:]
    ]
    mean = sum(targets) / len(targets)
    assert compare_seeds(group.examples, "lora", "prefix_tuning").p < 0.05
    assert found.headline.startswith(
        f"`lora` carries over best: mean accuracy {mean:.3f} on 5 other languages; its lead over "
        f"`prefix_tuning` is {lead.difference:+.3f}, 95% interval {lead.low:+.3f} to "
        f"{lead.high:+.3f}, p < 0.001"
    )
    assert "corrected for 3 pairs" in found.headline
    assert [item.difference.second for item in found.leads] == ["prefix_tuning", "none"]
    text = " ".join(found.findings)
    assert "improves on the untouched model" in text
    assert "better than `prefix_tuning` in 5, worse in 0, and not told apart in 0 of 5" in text
    assert "Every score is above the majority class" in text
    assert not any("one seed" in doubt for doubt in found.doubts)


def test_p_is_corrected_for_every_pair(data: Path, tmp_path: Path) -> None:
    group = made(tmp_path, data, {"lora": 0.62, "full": 0.6, "none": 0.5}, seeds=(0,))
    assert group.examples is not None
    found = verdict(group)
    for lead in found.leads:
        alone = compare_means(group.examples, lead.difference.first, lead.difference.second)
        assert lead.p == pytest.approx(min(1.0, 3 * alone.p))
        assert lead.apart == (lead.p < 0.05)


def test_what_is_within_noise_is_called_so(data: Path, tmp_path: Path) -> None:
    found = verdict(made(tmp_path, data, {"lora": 0.6, "full": 0.605}, seeds=(0, 1)))
    assert found.headline.startswith("No method is shown to be best.")
    assert "has the highest" in found.headline
    assert "within noise" in found.headline
    assert "carries over best" not in found.headline
    assert any("Seeds vary as much as" in doubt for doubt in found.doubts)


def test_equal_means_are_all_the_highest(data: Path, tmp_path: Path) -> None:
    methods = {"lora": 0.9, "full": 0.9, "none": 0.2}
    group = made(tmp_path, data, methods, seeds=(0,))
    equal = [setting.target for setting in group.settings[:2]]
    for setting, target in zip(group.settings, (0.9, 0.9, 0.2), strict=True):
        for run in setting.runs:
            for code in CODES[1:]:
                _answer(group.folder / run.record["id"], code, target)
    group = read_group(group.settings, group.folder)
    assert len(set(equal)) == 2  # the records differ: it is what the examples say that counts
    found = verdict(group)
    assert found.headline.startswith(
        "No method is shown to be best. `lora` and `full` have the highest mean accuracy"
    )
    assert "`none`" not in found.headline
    unpaired = replace(group, examples=None, unpaired="nobody knows")
    assert "have the highest" not in verdict(unpaired).headline


def _answer(run: Path, code: str, share: float) -> None:
    """The first answers of a run are right, so many of them, and the others wrong."""
    path = run / "predictions" / f"{code}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for place, row in enumerate(rows):
        right = place < share * len(rows)
        row["prediction"] = row["label"] if right else "something else"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_sentence_lists_few_methods(group: Group) -> None:
    names = group.names * 2
    assert _several(group, names[:3]) == "`none`, `lora` and `prefix_tuning`"
    assert _several(group, names[:6]) == "`none`, `lora`, `prefix_tuning` and 3 more"


def test_some_methods_with_one_seed_are_named(data: Path, tmp_path: Path) -> None:
    group = made(tmp_path, data, {"none": 0.3, "lora": 0.9, "full": 0.8}, seeds=(0,))
    doubts = verdict(group).doubts
    text = "`lora` and `full` were each trained with one seed: how much another training"
    assert any(doubt.startswith(text) and "their scores" in doubt for doubt in doubts)


def test_no_right_answer_is_nothing_to_compare(data: Path, tmp_path: Path) -> None:
    group = made(tmp_path, data, {"none": 0.3, "lora": 0.3}, seeds=(0, 1))
    for record in group.records:
        for code in CODES[1:]:
            record["scores"][code] |= {"accuracy": 0.0, "accuracy_stderr": 0.0}
    runs = [run for setting in group.settings for run in setting.runs]
    found = verdict(replace(group, settings=settings(runs)))
    assert found.headline == (
        "Nothing can be said about transfer: no method has a right answer in another language."
    )
    assert not found.leads
    # An error of 0 is that of an estimate, and no claim.
    assert any(
        d == "A language has 120 test examples: small differences in one language are not seen."
        for d in found.doubts
    )


def test_examples_that_only_some_runs_have_are_a_doubt(data: Path, tmp_path: Path) -> None:
    accuracy = {"none": 0.3, "lora": 0.9}
    some = made(tmp_path / "a", data, accuracy, seeds=(0, 1), test_samples=60)
    assert some.examples is not None
    shared = len(some.examples.ids["eng_Latn"])
    assert 0 < shared < 60
    assert any(f"in a language are as few as {shared}." in doubt for doubt in verdict(some).doubts)
    none = made(tmp_path / "b", data, accuracy, seeds=(0, 1, 2, 3), test_samples=2)
    assert none.examples is None
    why = "no example of eng_Latn in common, since task.test_samples draws others for every seed"
    assert any(why in doubt for doubt in verdict(none).doubts)
    whole = made(tmp_path / "c", data, accuracy, seeds=(0, 1))
    assert not any("as few as" in doubt for doubt in verdict(whole).doubts)


def test_one_seed_is_a_doubt(data: Path, tmp_path: Path) -> None:
    found = verdict(made(tmp_path, data, {"none": 0.3, "lora": 0.9}, seeds=(0,)))
    assert "the best of what was trained here" in found.headline
    assert "one seed says nothing about others" in found.headline
    assert any(doubt.startswith("`lora` was trained with one seed") for doubt in found.doubts)


def test_scores_at_the_majority_class_say_nothing(data: Path, tmp_path: Path) -> None:
    found = verdict(made(tmp_path, data, {"none": 0.0, "lora": 0.0}, seeds=(0, 1)))
    assert found.headline.startswith(
        "Nothing can be said about transfer: scores are at the majority class; the highest mean "
        f"accuracy is {found.numbers[0][0]}"
    )
    assert any(
        doubt.endswith("standard errors: every score of every method in other languages.")
        for doubt in found.doubts
    )


def test_an_untouched_model_that_is_best_is_told(data: Path, tmp_path: Path) -> None:
    found = verdict(made(tmp_path, data, {"none": 0.9, "lora": 0.4}, seeds=(0,)))
    assert any("No adaptation improves on the untouched" in doubt for doubt in found.doubts)
    assert not any("Adaptation by" in text for text in found.findings)


def test_without_predictions_nothing_is_tested(data: Path, tmp_path: Path) -> None:
    group = made(tmp_path, data, {"none": 0.3, "lora": 0.9}, predictions=False)
    assert group.examples is None
    found = verdict(group)
    assert "whether by chance was not tested" in found.headline
    assert any("no predictions for eng_Latn" in doubt for doubt in found.doubts)
    assert not found.leads


def test_one_method_is_compared_with_nothing(data: Path, tmp_path: Path) -> None:
    found = verdict(made(tmp_path, data, {"lora": 0.9}))
    assert "no other method" in found.headline
    assert not any("not tested" in doubt for doubt in found.doubts)


def test_a_source_language_alone_has_no_transfer(data: Path, tmp_path: Path) -> None:
    group = made(tmp_path, data, {"none": 0.4, "lora": 0.9}, languages=["eng_Latn"])
    found = verdict(group)
    assert "highest accuracy in English" in found.headline
    assert any("no transfer to judge" in doubt for doubt in found.doubts)
    assert len(heat_map(group).rows) == 1


def test_methods_have_names_for_people(data: Path, tmp_path: Path) -> None:
    group = made(tmp_path, data, {"lora": 0.9, "none": 0.3})
    for record in group.records:
        record["method"]["title"] = {"lora": "Low `rank`", "none": "Nothing"}[
            record["method"]["name"]
        ]
    found = verdict(group)
    assert found.headline.startswith("`Low 'rank'` carries over best")
    assert found.best == "Low `rank`"
    assert found.leads[0].cells[0] == "Nothing"
    assert heat_map(group).names == ["Low `rank`", "Nothing"]
    assert [cost.label for cost in costs(group)] == ["lora", "none"]
    page = written(tmp_path / "p.html", group)
    assert "<b>Low &#39;rank&#39;</b> carries over best" in page
    again = made(tmp_path / "again", data, {"lora": 0.9, "none": 0.3})
    for record in again.records:
        record["method"]["title"] = "Same"
    assert heat_map(again).names == ["lora", "none"]


# Tables ------------------------------------------------------------------------------------------


def test_the_heat_map_has_every_mean_over_seeds(group: Group) -> None:
    heat = heat_map(group)
    assert heat.rows[0].language.code == "eng_Latn"
    assert {row.language.code for row in heat.rows} == set(CODES)
    for row in heat.rows:
        for name, cell in zip(heat.names, row.cells, strict=True):
            scores = [
                record["scores"][row.language.code]["accuracy"]
                for record in group.records
                if record["method"]["name"] == name
            ]
            assert cell is not None
            assert cell.score == f"{sum(scores) / 2:.3f}"
            spread = abs(scores[0] - scores[1]) / 2**0.5
            assert "standard error" in cell.title
            # Seeds of what trains nothing cannot differ: that they do not says nothing.
            assert ("2 seeds" in cell.title) == (name != "none")
            assert (cell.error == f"± {spread:.3f}") == (name != "none")
        shades = [cell.score_shade for cell in row.cells if cell is not None]
        values = [cell.score for cell in row.cells if cell is not None]
        assert sorted(shades) == [shade for _, shade in sorted(zip(values, shades, strict=True))]
        assert all(0 <= shade < SHADES for shade in shades)
        [best] = {cell.score for cell in row.cells if cell is not None and cell.best}
        assert best == max(values)
    means = [sum(float(c.score) for c in row.cells if c is not None) for row in heat.rows[1:]]
    assert means == sorted(means, reverse=True)


def test_of_one_method_none_is_best(data: Path, tmp_path: Path, group: Group) -> None:
    alone = made(tmp_path, data, {"lora": 0.9}, seeds=(0,))
    assert not heat_map(alone).has_best
    assert heat_map(group).has_best
    assert not any(cost.best for cost in costs(alone))
    page = written(tmp_path / "p.html", alone)
    # The script has the stars of examples.
    assert "★" not in page.partition("<script")[0]
    assert "± over seeds" not in page.partition('id="cost-table-1"')[2].partition("</table>")[0]
    assert "★" in written(tmp_path / "q.html", group).partition("<script")[0]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (192 / 12_244_032, "0.0016%"), (0.0253, "2.5%"), (0.5, "50%"), (1.0001, "100%")],
)
def test_small_shares_have_two_digits(share: float, text: str) -> None:
    assert _percent(share) == text


def test_methods_are_told_apart_in_words() -> None:
    prefix = {"name": "prefix_tuning", "title": "Prefix tuning"}
    soft = {"name": "soft_prompt", "title": "Soft prompt"}
    found = [
        (prefix, "prefix_tuning layers=last:4 length=8 learning_rate=0.003", ["method.length"]),
        (soft, "soft_prompt tune_backbone=True decoding.top_p=0.9 learning_rate=0.01", []),
        (soft, "soft_prompt", []),
    ]
    assert titled(found) == [
        "Prefix tuning, layers last:4, learning rate 0.003",
        "Soft prompt, tune backbone yes, top p 0.9, learning rate 0.01",
        "Soft prompt",
    ]
    # What was selected is said where names would be the same without it.
    rates = [(soft, f"soft_prompt learning_rate={r}", ["train.learning_rate"]) for r in (1, 2)]
    assert titled(rates) == ["Soft prompt, learning rate 1", "Soft prompt, learning rate 2"]
    assert titled(rates[:1]) == ["Soft prompt"]


def test_equal_gaps_have_no_range(group: Group) -> None:
    records = [run.record for setting in group.settings for run in setting.runs]
    scores = {code: {"n": 9, "accuracy": 0.5, "accuracy_stderr": 0.1} for code in CODES}
    same = [
        LabelledRun({"method.name": r["method"]["name"]}, r | {"scores": scores}) for r in records
    ]
    findings = verdict(replace(group, settings=settings(same), examples=None)).findings
    assert any(text.startswith("The transfer gap of every method is +0.000.") for text in findings)
    assert any(text.startswith("The transfer gap goes from") for text in verdict(group).findings)


def test_scores_have_words() -> None:
    assert named("macro_f1") == "macro F1"
    assert named("mlqa_f1") == "MLQA F1"
    assert named("number") == "accuracy of numbers"


def test_a_small_gap_has_the_colour_of_a_high_score(group: Group) -> None:
    cells = [c for row in heat_map(group).rows[1:] for c in row.cells if c is not None]
    ordered = sorted(cells, key=lambda cell: float(cell.gap))
    shades = [cell.gap_shade for cell in ordered]
    assert shades == sorted(shades, reverse=True)
    assert shades[0] > shades[-1]


def test_a_language_that_a_method_lacks_is_empty(group: Group) -> None:
    few = [
        LabelledRun(run.labels, _without(run.record, "hin_Deva") if name == "lora" else run.record)
        for setting, name in zip(group.settings, group.names, strict=True)
        for run in setting.runs
    ]
    heat = heat_map(replace(group, settings=settings(few)))
    [row] = [row for row in heat.rows if row.language.code == "hin_Deva"]
    assert [cell is None for cell in row.cells] == [name == "lora" for name in heat.names]


def _without(record: dict[str, Any], code: str) -> dict[str, Any]:
    return record | {"scores": {k: v for k, v in record["scores"].items() if k != code}}


def test_the_cost_table_says_what_records_say(group: Group) -> None:
    none, lora, _ = costs(group)
    assert (none.parameters, none.training, none.dev) == ("0", "", "")
    assert (lora.parameters, lora.training, lora.memory) == ("9,216", "12.2", "700")
    assert [cost.best for cost in costs(group)] == [False, True, False]
    assert not partly_scored(group)
    assert not together(group)
    record = group.records[0]
    record = record | {"evaluation": {"seconds": 1.0, "examples_scored": 3}, "together": ["a"]}
    changed = settings([LabelledRun({}, record)])
    assert partly_scored(replace(group, settings=changed))
    assert together(replace(group, settings=changed))


def test_provenance_has_revisions_seeds_and_configurations(group: Group) -> None:
    known = dict(facts(group))
    assert known["Commit"] == "0123456789abcdef"
    assert known["Model's revision"] == "sha256:0"
    revisions = {record["task"]["data_revision"] for record in group.records}
    assert set(known["Data"].split(", ")) == revisions
    lora = origins(group)[1]
    assert [seed for seed, _, _ in lora.runs] == [0, 1]
    assert json.loads(lora.config)["method"]["name"] == "lora"


def test_a_run_that_is_two_configurations_is_there_once(group: Group) -> None:
    [setting] = settings([LabelledRun({"train.learning_rate": None}, group.records[0])])
    [same] = settings([LabelledRun({"train.learning_rate": 0.001}, group.records[0])])
    assert read_group([setting, same], group.folder).settings == [setting]


# Examples ----------------------------------------------------------------------------------------


def test_examples_are_the_same_sentences_in_every_language(group: Group, data: Path) -> None:
    found = browse(group, 5)
    assert not found["missing"]
    assert len(found["examples"]) == 5 * len(CODES)
    ids = [{e["id"] for e in found["examples"] if e["l"] == n} for n in range(len(CODES))]
    assert all(each == ids[0] for each in ids)
    assert found["languages"][0]["tag"] == "en"
    for example in found["examples"]:
        code = CODES_OF[found["languages"][example["l"]]["name"]]
        path = data / "data" / "annotated" / code / "test.tsv"
        rows = [line.split("\t") for line in path.read_text().split("\n")[1:] if line]
        [row] = [row for row in rows if row[0] == example["id"]]
        assert example["fields"] == {"text": row[2]}
        assert example["gold"] == [row[1]]
        for method, answers in enumerate(example["a"]):
            assert len(answers) == 2
            assert example["s"][method] == [int(answer == row[1]) for answer in answers]
            assert sum(example["p"][method]) == pytest.approx(100, abs=4)
    assert browse(group, 0)["examples"] == []


def test_examples_answer_as_predictions_do(group: Group) -> None:
    found = browse(group, 3)
    for example in found["examples"]:
        code = CODES_OF[found["languages"][example["l"]]["name"]]
        for setting, answers in zip(group.settings, example["a"], strict=True):
            for run, answer in zip(setting.runs, answers, strict=True):
                path = group.folder / run.record["id"] / "predictions" / f"{code}.jsonl"
                rows = {r["id"]: r for r in map(json.loads, path.read_text().splitlines())}
                assert rows[example["id"]]["prediction"] == answer


def test_data_that_is_gone_or_has_changed_is_not_shown(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    group = made(tmp_path / "runs", copy, {"none": 0.4, "lora": 0.9})
    assert not browse(group, 2)["missing"]
    path = copy / "data" / "annotated" / "deu_Latn" / "test.tsv"
    path.write_text(path.read_text().replace("Satz", "SATZ"))
    found = browse(group, 2)
    assert found["missing"].startswith("The data has changed: it is sha256:")
    assert all(example["fields"] == {} for example in found["examples"])
    assert all(example["gold"] for example in found["examples"])
    shutil.rmtree(copy)
    assert browse(group, 2)["missing"].startswith("The data cannot be read: ")


def test_samples_of_other_seeds_are_told_apart(data: Path, tmp_path: Path) -> None:
    """A sample of the test examples is another one for every seed."""
    group = made(tmp_path, data, {"lora": 0.9}, seeds=(0, 1), test_samples=10)
    found = browse(group, 60)
    assert not found["missing"]
    asked = [[answer is not None for answer in e["a"][0]] for e in found["examples"]]
    assert [True, False] in asked
    assert [False, True] in asked
    assert all(any(seeds) for seeds in asked)
    assert all(e["fields"] for e in found["examples"])


def test_long_texts_are_cut(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", ["eng_Latn", "deu_Latn"], rows=20, text="x" * 5000)
    found = browse(made(tmp_path / "runs", data, {"none": 0.4}), 3)
    texts = [example["fields"]["text"] for example in found["examples"]]
    assert all(len(text) == LONGEST + 4 and text.endswith(" […]") for text in texts)


# The file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*HOSTILE, UNREADABLE, "\ud800", "a\udfffb", "\u2029<!--"])
def test_json_in_a_page_is_safe_and_the_same(text: str) -> None:
    found = str(embedded({text: [text]}))
    assert not set(found) & set("<>&\u2028\u2029\0")
    found.encode("utf-8")
    assert json.loads(found) == {text: [text]}


class Outline(HTMLParser):
    """Elements that are open, ids, headings, and where links and sources go."""

    EMPTY = ("meta", "input", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.levels: list[int] = []
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "action", "data", "srcset", "xlink:href"):
                self.links.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    found.close()
    return found


def written(path: Path, group: Group, **options: Any) -> str:
    write_page(path, group.settings, group.folder, **{"title": "A study"} | options)
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_fetches_nothing(group: Group, tmp_path: Path) -> None:
    page = written(tmp_path / "p.html", group, notes=[("paper", "Of ours")], select=["length"])
    found = outline(page)
    assert found.open == []
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.links) <= {f"#{name}" for name in found.ids}
    assert found.handlers == []
    assert found.tags.count("table") == found.tags.count("caption")
    assert found.levels[0] == 1
    assert all(b - a <= 1 for a, b in zip(found.levels, found.levels[1:], strict=False))
    assert "http" not in page.replace("http-equiv", "")
    assert "@import" not in page
    assert "url(" not in page
    assert "Scores of choices are left out" not in page
    assert "source language's dev split alone, and so is length" in html.unescape(page)
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert "innerHTML" not in script


def test_hostile_texts_stay_texts(group: Group, tmp_path: Path) -> None:
    plain = outline(written(tmp_path / "plain.html", group, notes=[("a", "b")]))
    bad = "</title></script><script>alert(1)</script>{{ 7*7 }}{% raw %}\0\ud800\u202e`<b>`"
    runs = []
    for setting in group.settings:
        for run in setting.runs:
            record = json.loads(json.dumps(run.record))
            record["task"]["title"] = record["commit"] = record["started"] = bad
            record["model"]["name"] = bad.replace("\ud800", "")
            record["config"]["output"] = bad.replace("\0", "")
            record["versions"][bad] = bad
            runs.append(LabelledRun(run.labels, record))
    hostile = replace(group, settings=settings(runs))
    page = written(tmp_path / "hostile.html", hostile, title=bad, notes=[(bad, bad)])
    assert "alert(1)" in page
    assert "{{ 7*7 }}" in page
    assert "\0" not in page
    found = outline(page)
    assert [tag for tag in found.tags if tag not in ("div", "dt", "dd")] == [
        tag for tag in plain.tags if tag not in ("div", "dt", "dd")
    ]
    assert found.open == []


def test_every_task_and_model_has_its_part(data: Path, group: Group, tmp_path: Path) -> None:
    other = write_runs(tmp_path / "b", data, {"lora": 0.5}, model="acme/other")
    for run in (tmp_path / "b").iterdir():
        shutil.copytree(run, tmp_path / "all" / f"other-{run.name}")
    for run in group.folder.iterdir():
        shutil.copytree(run, tmp_path / "all" / run.name)
    runs = [
        LabelledRun(run.labels, run.record | {"id": f"other-{run.record['id']}"})
        for setting in other
        for run in setting.runs
    ]
    runs += [run for setting in group.settings for run in setting.runs]
    path = tmp_path / "p.html"
    write_page(path, settings(runs), tmp_path / "all", title="Two models")
    page = path.read_text(encoding="utf-8")
    found = outline(page)
    assert {"group-1", "group-2", "examples-data-2"} <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.links) <= {f"#{name}" for name in found.ids}
    assert all(b - a <= 1 for a, b in zip(found.levels, found.levels[1:], strict=False))
    assert page.count("on acme/other") >= 3


def test_figures_stand_with_their_numbers(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stand_in(found: Any, select: Any, folder: Path, **_: Any) -> list[Any]:
        asked.append((found, select, folder))
        table = pd.DataFrame({"<x>": [0.123456, float("nan")], "name": ["<i>", None]})
        svg = '<svg role="img" viewBox="0 0 9 9"><title>T</title></svg>'
        wide = svg.replace("0 0 9 9", "0 0 784.8 300")
        return [
            figure("forest", "Forest <plot>", "A & B", svg, table),
            figure("wide", "Wide", "", wide, table),
        ]

    monkeypatch.setattr("polyprefix.report.figures.figures", stand_in)
    page = written(tmp_path / "p.html", group, select=["length"])
    assert asked == [(group.settings, ["length"], group.folder)]
    assert '<svg role="img" viewBox="0 0 9 9"><title>T</title></svg>' in page
    assert "Forest &lt;plot&gt;" in page
    assert '<figure id="figure-forest">' in page
    assert '<figure id="figure-wide" class="wide">' in page
    assert "<td>0.1235</td><td>&lt;i&gt;</td>" in page
    assert "<td></td><td></td>" in page
    assert outline(page).open == []


def test_a_page_without_figures_says_why(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("polyprefix.report.figures")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    page = written(tmp_path / "p.html", group)
    assert "Figures are not drawn: " in page
    assert "polyprefix[report]" in page
    assert 'id="figures-1"' not in page


def test_a_large_study_is_a_small_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with all its figures
    names = ("none", "soft_prompt", "prefix_tuning", "llama_adapter", "lora", "bottleneck", "full")
    accuracy = {name: 0.4 + 0.05 * place for place, name in enumerate(names)}
    found = write_runs(tmp_path, None, accuracy, seeds=(0, 1, 2), task="polytopics")
    path = tmp_path / "p.html"
    write_page(path, found, tmp_path, title="Seven methods")
    page = path.read_text(encoding="utf-8")
    assert get("swh_Latn").name in page
    assert len(re.findall('<td class="s[0-8] g[0-8]', page)) == 7 * 22
    assert path.stat().st_size < 2_000_000
