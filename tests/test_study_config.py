"""Expansion of a study's grid, and what is said of a mistake in its file."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from polyprefix.config import (
    ConfigError,
    RunConfig,
    Study,
    StudyConfig,
    StudyFile,
    expand,
    read_study,
    run_key,
)

BASE = {"model": {"name": "m"}, "task": {"name": "sib200"}, "method": {"name": "lora"}}


def study(grid: Any, base: Any = BASE, given: Any = (), **keys: Any) -> Study:
    values = {"name": "s", "title": "S", "base": base, "grid": grid, **keys}
    return expand(StudyFile(StudyConfig.read(values), "s.yaml", {}), output="out", settings=given)


axes = st.fixed_dictionaries(
    {},
    optional={
        "seed": st.lists(st.integers(0, 5), min_size=1, max_size=4),
        "train.learning_rate": st.lists(st.sampled_from([1e-3, 1e-2, None]), min_size=1),
        "method.length": st.lists(st.integers(1, 4), min_size=1, max_size=4),
        "task": st.lists(
            st.sampled_from([{"name": "xnli"}, {"name": "xquad", "train_samples": 5}]), min_size=1
        ),
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(axes, max_size=3))
def test_every_combination_is_a_run_and_none_comes_twice(grid: list[dict[str, Any]]) -> None:
    found = study(grid)
    configs = [run.config for run in found.runs]
    assert len({config.model_dump_json() for config in configs}) == len(configs)
    expected = set()
    for part in grid:
        for chosen in itertools.product(*part.values()):
            values: dict[str, Any] = {k: dict(v) for k, v in BASE.items()} | {"output": "out"}
            for key, value in zip(part, chosen, strict=True):
                section, _, name = key.partition(".")
                if isinstance(value, dict):
                    values[section] |= value
                elif name:
                    values.setdefault(section, {})[name] = value
                else:
                    values[section] = value
            expected.add(RunConfig.read(values).model_dump_json())
    assert {config.model_dump_json() for config in configs} == expected
    # What tells the runs apart is in their labels.
    labels = [tuple(run.labels.items()) for run in found.runs]
    assert len(set(labels)) == len(labels)


@settings(deadline=None, max_examples=60)
@given(axes)
def test_order_is_that_of_the_grid(part: dict[str, list[Any]]) -> None:
    both = study([part, {"seed": [99]}]).runs
    assert both[-1].config.seed == 99
    assert [run.key for run in study(part).runs] == [run.key for run in both[:-1]]


def test_cases_go_together_and_lie_over_the_base() -> None:
    cases = [{"task": {"name": "xnli"}, "train.steps": 5}, {"task.name": "xquad"}]
    found = study({"cases": cases, "seed": [0, 1]}, BASE | {"train": {"steps": 9}})
    got = [(r.config.task.name, r.config.train.steps, r.config.seed) for r in found.runs]
    assert got == [("xnli", 5, 0), ("xnli", 5, 1), ("xquad", 9, 0), ("xquad", 9, 1)]
    assert found.runs[0].labels == {"task.name": "xnli", "train.steps": 5, "seed": 0}


def test_what_does_not_vary_is_no_label_and_settings_win() -> None:
    grid = {"method": [{"name": "lora", "rank": 4}, {"name": "none"}], "seed": [0, 1, 2]}
    found = study(grid, {key: BASE[key] for key in ("model", "task")}, given=["seed=7"])
    assert [run.labels for run in found.runs] == [
        {"method.name": "lora", "method.rank": 4},
        {"method.name": "none"},
    ]
    assert {run.config.seed for run in found.runs} == {7}


def test_a_run_is_named_by_what_it_computes() -> None:
    (run,) = study({"seed": [0]}).runs
    other = run.config.model_copy(update={"output": "elsewhere"})
    assert run_key(other) == run.key
    assert run_key(run.config.model_copy(update={"seed": 1})) != run.key


def test_runs_that_a_change_leaves_out() -> None:
    file = StudyFile(
        StudyConfig.read({"name": "s", "title": "S", "base": BASE, "grid": {"seed": [0, 1]}}),
        "",
        {},
    )
    found = expand(file, output="o", change=lambda v: None if v["seed"] else v | {"seed": 5})
    assert [run.config.seed for run in found.runs] == [5]


# Mistakes ----------------------------------------------------------------------------------------

TEXT = textwrap.dedent("""\
    name: trial
    title: A trial
    base:
      model: {name: m}
      task: {name: sib200}
      train:
        steps: 5
    grid:
      method:
        - {name: soft_prompt, length: 3}
        - name: lora
      train.learning_rate: [1e-2, 1e-3]
      seed: [0, 1]
    select: [train.learning_rate]
    """)


def test_the_file_without_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(TEXT)
    found = expand(read_study(path), output="o")
    assert len(found.runs) == 8
    assert found.runs[0].config.train.learning_rate == 0.01  # YAML reads 1e-2 as a text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("steps: 5", "stepz: 5", "line 7: unknown key 'train.stepz'. Did you mean 'steps'"),
        ("title:", "titel:", "line 2: unknown key 'titel'. Did you mean 'title'"),
        ("1e-3]", "fast]", "line 12: key 'train.learning_rate'"),
        ("train.learning_rate: [1e-2", "train.rate: [1e-2", "'train.learning_rate' does not vary"),
        ("task: {name: sib200}", "task: {name: sib200, sampels: 3}", "line 5: unknown key"),
        ("seed: [0, 1]", "seed: []", "line 13: key 'grid.0.seed'"),
        ("seed: [0, 1]", "seed: 0", "line 13: key 'grid.0.seed'"),
        ("seed: [0, 1]", "sede: [0, 1]", "line 13: unknown key 'sede'. Did you mean 'seed'"),
        ("seed: [0, 1]", "seed.of: [0, 1]\n  seed: [1]", "line 14"),
        ("name: trial", "name: a/b", "line 1: key 'name'"),
        ("name: trial", "name: trial\nname: other", "line 2: the key 'name' stands on line 1"),
        ("select: [", "select: [method.size, ", "'method.size' does not vary"),
        ("  model: {name: m}\n", "", "key 'model' is required"),
        ("task: {name: sib200}", "task: {name: [}", "line 5, column"),
    ],
)
def test_mistakes_are_told_with_their_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert TEXT.count(old) == 1
    path = tmp_path / "s.yaml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        expand(read_study(path), output="o")
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_key_below_a_value(tmp_path: Path) -> None:
    values = yaml.safe_load(TEXT)
    values["base"]["train"] = 3
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(ConfigError, match=r"line \d+: key 'train.learning_rate': a value and keys"):
        expand(read_study(path), output="o")
