"""Any configuration: a valid one, or an error that a user can act on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polyprefix.config import (
    ConfigError,
    PolyprefixError,
    RunConfig,
    StudyConfig,
    StudyFile,
    digest,
    expand,
    override,
    read_study,
    read_yaml,
    run_key,
    sweep,
)
from polyprefix.languages import languages, parse_languages
from polyprefix.tasks import get_task
from tests.reliability.hostile import TEXTS, YAML_ANSWER, YAML_CHOICE

FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

SHORT = [text for text in TEXTS.values() if len(text) < 100]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**63, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([*SHORT, "no", "all", "last:2", "sw,tr", "~nobody/x", "float32", "linear"]),
)

KEYS = sorted(
    {
        name
        for section in (RunConfig, *(f.annotation for f in RunConfig.model_fields.values()))
        for name in getattr(section, "model_fields", ())
    }
)

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=4)), inner, max_size=4),
    ),
    max_leaves=8,
)


def section(*required: str) -> st.SearchStrategy[Any]:
    names = {name: st.one_of(st.just("lora"), SCALARS) for name in required}
    keys = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
    return st.one_of(
        VALUES, st.tuples(keys, st.fixed_dictionaries(names)).map(lambda two: two[0] | two[1])
    )


CONFIGS = st.fixed_dictionaries(
    {name: section("name") for name in ("model", "method", "task")},
    optional={
        **{name: section() for name in ("train", "decoding", "runtime")},
        "seed": SCALARS,
        "output": SCALARS,
        "extra": SCALARS,
    },
)


def told(error: PolyprefixError) -> None:
    assert str(error).strip()


def check_run(values: Any) -> None:
    try:
        config = RunConfig.read(values)
    except ConfigError as error:
        told(error)
        return
    dumped = config.model_dump(mode="json")
    again = RunConfig.read(dumped)
    assert again.model_dump(mode="json") == dumped
    assert again == config
    assert run_key(again) == run_key(config)
    assert digest(dumped)


@FUZZ
@given(values=CONFIGS)
@example({"model": {"name": "m"}, "method": {"name": "lora", "x": "\ud800"}, "task": {"name": "t"}})
@example({"model": {"name": "m"}, "method": {"name": "lora", "x": 10**5000}, "task": {"name": "t"}})
@example({"model": {"name": "a\0b"}, "method": {"name": "lora"}, "task": {"name": "t"}})
@example({"model": {"name": "m"}, "method": {"name": "lora"}, "task": {"name": "~nobody/x"}})
@example({"model": {"name": "m"}, "method": {"name": "a"}, "task": {"name": "t"}, "seed": 2**70})
def test_any_values_are_a_run_or_an_error(values: Any) -> None:
    check_run(values)


SEEN = ["seed: 3", "no", "1e-3", "2024-99-99", "0b_", "0x_", "!!int x", "!!bool x", "!!float x"]
SEEN += ["!!timestamp x", "&a [*a]", "*a", "{<<: 3}", "? [a]", "!!python/name:os.system x", "="]
SEEN += [
    "[" * 3000,
    "1:99",
    "9" * 5000,
    "!!binary x",
    "!!set {a}",
    "\ud800",
    "\0",
    "{a: &b {c: *b}}",
]

TEXT = st.one_of(st.sampled_from([*SEEN, *SHORT]), st.text(max_size=12))


@FUZZ
@given(
    settings_=st.lists(
        st.one_of(
            TEXT,
            st.tuples(
                st.one_of(
                    st.sampled_from(["seed", "train.steps", "train", "method.x", "a..b", "", "."]),
                    st.text(max_size=6),
                ),
                TEXT,
            ).map("=".join),
        ),
        max_size=3,
    )
)
def test_any_settings(settings_: list[str]) -> None:
    base = {"model": {"name": "m"}, "method": {"name": "lora"}, "task": {"name": "t"}}
    try:
        values = override(base, settings_)
    except ConfigError:
        return
    check_run(values)


@pytest.mark.parametrize("text", SEEN)
def test_settings_that_yaml_stumbles_over(text: str) -> None:
    base = {"model": {"name": "m"}, "method": {"name": "lora"}, "task": {"name": "t"}}
    for key in ("seed", "method.x", "train.steps", "train"):
        check_run(override(base, [f"{key}={text}"]))


@FUZZ
@given(
    text=st.lists(TEXT, max_size=4).map(",".join), key=st.sampled_from(["seed", "", "train", "a.b"])
)
def test_any_sweep(text: str, key: str) -> None:
    base = {"model": {"name": "m"}, "method": {"name": "lora"}, "task": {"name": "t"}}
    try:
        runs = sweep(base, [f"{key}={text}"])
    except ConfigError:
        return
    assert runs


def files(text: str, kind: str) -> None:
    """A file of one of the three kinds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            if kind == "run":
                check_run(read_yaml(path))
            elif kind == "task":
                get_task(str(path))
            else:
                assert expand(read_study(path), output="runs").runs is not None
        except PolyprefixError as error:
            told(error)


YAML_PIECES = st.one_of(
    st.sampled_from([*"{}[]:,-&*!|>'\"#?%@`~ \n\t", "\n  ", ": ", "- ", "&a ", "*a", "<<: *a"]),
    st.sampled_from([*SEEN, "name", "grid", "base", "prompt", "files", "columns", "languages"]),
    st.text(max_size=4),
)


@FUZZ
@given(
    text=st.one_of(
        st.lists(YAML_PIECES, max_size=25).map("".join),
        CONFIGS.map(lambda values: yaml.safe_dump(values, allow_unicode=False)),
    ),
    kind=st.sampled_from(["run", "study", "task"]),
)
def test_any_file(text: str, kind: str) -> None:
    files(text, kind)


STUDY = """\
name: trial
title: A trial
base: {model: {name: m}, task: {name: t}}
grid: {method.name: [lora, none], seed: [0, 1]}
"""


@FUZZ
@given(
    cut=st.integers(0, 200),
    length=st.integers(0, 12),
    piece=YAML_PIECES,
    kind=st.sampled_from(["study", "task", "answers"]),
)
def test_files_with_a_piece_changed(cut: int, length: int, piece: str, kind: str) -> None:
    whole = {"study": STUDY, "task": YAML_CHOICE % "csv", "answers": YAML_ANSWER}[kind]
    files(whole[:cut] + piece + whole[cut + length :], "study" if kind == "study" else "task")


@FUZZ
@given(
    base=st.one_of(VALUES, CONFIGS),
    grid=st.one_of(
        VALUES,
        st.dictionaries(
            st.one_of(
                st.sampled_from(["seed", "method", "train.steps", "cases", "model.name"]), TEXT
            ),
            st.lists(VALUES, max_size=2),
            max_size=3,
        ),
    ),
    select=VALUES,
)
def test_any_study(base: Any, grid: Any, select: Any) -> None:
    values = {"name": "trial", "title": "A trial", "base": base, "grid": grid, "select": select}
    try:
        study = expand(StudyFile(StudyConfig.read(values), "trial.yaml", {}), output="runs")
    except ConfigError as error:
        told(error)
        return
    assert len({run.key for run in study.runs}) == len(study.runs)
    for run in study.runs:
        check_run(run.config.model_dump(mode="json"))
        assert isinstance(run.label, str)


AVAILABLE = ["eng_Latn", "deu_Latn", "swh_Latn", "tur_Latn", "rus_Cyrl", "zho_Hans"]

ITEMS = st.one_of(
    st.sampled_from([*languages()][:40]),
    st.sampled_from(
        ["all", "-en", "-", "sw", "no", "family:Uralic", "family:", "level:9", ":", "script:Cyrl"]
    ),
    st.sampled_from(
        ["level:0-5", "level:5-0", "branch:x", "zh-TW", "de-", "-family:Turkic", "en_US"]
    ),
    TEXT,
)


@FUZZ
@given(spec=st.one_of(st.lists(ITEMS, max_size=4), st.lists(ITEMS, max_size=4).map(",".join)))
def test_any_selection_of_languages(spec: Any) -> None:
    try:
        found = parse_languages(spec, AVAILABLE)
    except PolyprefixError as error:
        told(error)
        return
    assert found
    assert found == [code for code in AVAILABLE if code in found]


# What was found -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("NO", "NO"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("2024-01-31", "2024-01-31"),
        ("1e-3", 1e-3),
        ("7", 7),
        ("null", None),
        ("[no, sv]", ["no", "sv"]),
    ],
)
def test_truth_values_are_true_and_false(text: str, expected: Any, tmp_path: Path) -> None:
    """YAML 1.1 makes ``no`` false; here it is a precision and the code of Norwegian."""
    assert override({}, [f"key={text}"]) == {"key": expected}
    path = tmp_path / "x.yaml"
    path.write_text(f"key: {text}\n")
    assert read_yaml(path) == {"key": text if text == "1e-3" else expected}


def test_no_is_a_precision_and_yes_a_truth_value(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "model: {name: m, trust_remote_code: yes}\nmethod: {name: lora}\n"
        "task: {name: t, languages: [no, sv]}\n"
        "train: {mixed_precision: no}\nruntime: {gradient_checkpointing: on}\n"
    )
    config = RunConfig.read(read_yaml(path))
    assert config.train.mixed_precision == "no"
    assert config.task.languages == ("no", "sv")
    assert config.model.trust_remote_code is True
    assert config.runtime.gradient_checkpointing is True


def test_a_long_wrong_value_is_cut() -> None:
    values = {"model": {"name": "m"}, "method": {"name": "l"}, "task": {"name": ["x" * 10**6]}}
    with pytest.raises(ConfigError, match=r"key 'task.name'.*\.\.\."):
        RunConfig.read(values)
