"""The documentation has a page for whatever is registered, and what its pages show works."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from mkdocs.exceptions import PluginError
from mkdocs.utils.meta import get_data
from typer.exceptions import TyperException

from docs import hooks
from docs.generate import cli, configuration, equations, families, included, methods, offline, tasks
from docs.generate.text import cell
from polyprefix.cli.app import app
from polyprefix.config import PolyprefixError, RunConfig, StudyConfig, override, put
from polyprefix.methods import AdaptedModel, get_method, method_config
from polyprefix.models.tiny import tiny_backbone
from polyprefix.studies import find_study
from polyprefix.tasks import get_task
from polyprefix.tasks.yaml_spec import TaskSpec
from tests.conformance.cases import StubTokenizer
from tests.conftest import ROOT
from tests.test_readme import commands, table_rows

DOCS = ROOT / "docs"
WRITTEN = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
TUTORIAL_OF_ITS_OWN = "tutorials/your-own-task.md"
"""Its blocks are run by ``test_tutorial.py``."""


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """Every page, written and made, before Markdown."""
    return WRITTEN | hooks.pages()


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks, also those that stand in a list or a tab."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in found]


# Pages -------------------------------------------------------------------------------------------


def test_everything_registered_has_a_page(pages: dict[str, str]) -> None:
    assert len(methods.documented()) >= 7
    for name in methods.documented():
        text, meta = get_data(pages[f"methods/{name}.md"])
        assert meta["method"] == name
        for part in ("diagram", "method", "method keys"):
            assert f"<!-- generate: {part} -->" in text
        for part in ("Equation", "Keys", "In short"):
            assert f"\n## {part}\n" in text
        assert f"[`{name}`]({name}.md) | {get_method(name).title} |" in methods.overview()
    for name, task in tasks.documented().items():
        text = pages[f"tasks/{name}.md"]
        assert task.title in text
        assert task.prompt.template in text
        assert all(f"`{code}`" in text for code in task.language_codes)
        assert f"({name}.md)" in pages["tasks/index.md"]
    assert set(families.documented()) == set(families.EXAMPLES)
    for name in families.documented():
        assert f"| `{name}` |" in families.table_of()


def test_every_part_that_a_page_asks_for_is_made() -> None:
    asked = {name for text in WRITTEN.values() for name in included.MADE.findall(text)}
    assert asked == hooks.PARTS.keys() | hooks.METHOD_PARTS.keys()


def test_the_navigation_has_every_page(pages: dict[str, str]) -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)
    known = [path for path in pages if path != "benchmarks.md"]
    nav = str(hooks.expanded(config["nav"], known))
    assert all(f"'{path}'" in nav for path in known)
    assert "benchmarks.md" not in nav
    assert "benchmarks.md" in str(hooks.expanded(config["nav"], [*known, "benchmarks.md"]))


@pytest.mark.parametrize("spec", [RunConfig, StudyConfig, TaskSpec])
def test_every_key_is_described(spec: Any, pages: dict[str, str]) -> None:
    text = pages["reference/configuration.md"]
    assert len(spec.model_fields) > 5
    for name in spec.model_fields:
        assert f"| `{name}` |" in text
    plain = text.replace("\N{NO-BREAK SPACE}", " ")
    assert "`train.warmup` | number ≥ 0, ≤ 1 | `0.1` |" in plain


def test_every_command_is_described(pages: dict[str, str]) -> None:
    found = list(cli.commands())
    assert ("study", "run") in {names for names, _ in found}
    for names, command in found:
        section = pages["reference/cli.md"].partition(f"## `polyprefix {' '.join(names)}`")[2]
        section = section.partition("\n## ")[0]
        for parameter in command.params:
            shown = getattr(parameter, "metavar", None)  # an argument's name in its help
            assert parameter.opts[0] in section or (shown and shown in section), names


@pytest.mark.parametrize("name", sorted(methods.documented()))
def test_the_formula_of_a_method_counts_its_parameters(name: str) -> None:
    formula = get_data(WRITTEN[f"methods/{name}.md"])[1]["formula"]
    rows = {row[0].strip("`"): row for row in table_rows("method")}
    assert rows[name][2].split(";")[0].strip("` ") == formula
    backbone = tiny_backbone("llama")
    backbone.tokenizer = StubTokenizer()
    config = get_method(name).Config()
    counted = AdaptedModel(backbone).attach(config, text="a text").num_trainable()
    letters = {
        "d": backbone.hidden_size,
        "H": backbone.num_heads,
        "H_kv": backbone.num_key_value_heads,
        "D": backbone.head_dim,
        "N": backbone.num_layers,
        "P": getattr(config, "length", 0),
        "r": getattr(config, "rank", 0),
        "s": getattr(config, "size", 0),
    }
    whole = sum(value.numel() for value in backbone.model.parameters())
    assert counted == (whole if formula == "all" else eval(formula.replace("·", "*"), {}, letters))


def test_the_rates_that_pages_name() -> None:
    for name, options in (
        ("soft_prompt", {"reparameterization": "mlp"}),
        ("soft_prompt", {"tune_backbone": True}),  # in the same sentence
        ("prefix_tuning", {"parameterization": "mlp"}),
    ):
        method = get_method(name)
        rate = method.reference_learning_rate(method.Config(**options))
        assert rate != method.reference_learning_rate(method.Config())
        [(key, value)] = options.items()
        _, _, after = WRITTEN[f"methods/{name}.md"].partition("## In short")
        paragraph = next(p for p in after.split("\n\n") if f"`{key}: " in p)
        assert str(value).lower() in paragraph
        assert f"{rate:.0e}".replace("e-0", "e-") in paragraph


def test_the_formulas_of_prefix_parameterizations() -> None:
    """The table of the page, on a model and with another network than the default."""
    rows = re.findall(
        r"^\| `(kv|projected|mlp)` \|.*\| `([^`]+)` \|$",
        WRITTEN["methods/prefix_tuning.md"],
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == ["kv", "projected", "mlp"]
    for name, formula in rows:
        backbone = tiny_backbone("llama")
        options: dict[str, Any] = {"name": "prefix_tuning", "parameterization": name, "length": 3}
        options |= {"initialization": "random"} | ({"network_size": 5} if name == "mlp" else {})
        letters = {
            "P": 3,
            "m": 5,
            "d": backbone.hidden_size,
            "N": backbone.num_layers,
            "H_kv": backbone.num_key_value_heads,
            "D": backbone.head_dim,
        }
        counted = AdaptedModel(backbone).attach(options).num_trainable()
        assert counted == eval(formula.replace("·", "*"), {}, letters), name


# What pages show ---------------------------------------------------------------------------------


def parsed(arguments: list[str]) -> None:
    """Read a command line as the program does, without doing what it says."""
    if ">" in arguments:  # the shell's
        arguments = arguments[: arguments.index(">")]
    if arguments == ["--version"]:  # done while it is read
        return
    command: Any = typer.main.get_command(app)
    context = command.make_context("polyprefix", list(arguments), resilient_parsing=False)
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        assert command is not None, arguments
        context = command.make_context(name, list(rest), parent=context)
    meant(context.info_name, context.params, context.parent.info_name)


def meant(name: str, options: dict[str, Any], group: str) -> None:
    """Names and keys of a command line are those there are."""
    if group == "study" and (study := options.get("study")) and not study.startswith("my-"):
        find_study(study) if study != "topics.yaml" else None
    if name != "run" or group == "study" or options["config"] is not None:
        return
    values: dict[str, Any] = {"model": {}, "method": {}, "task": {}}
    for key in ("model", "method", "task"):
        if options[key] is not None:
            values[key]["name"] = options[key]
    for item in options["sweeps"] or []:
        key, _, swept = item.partition("=")
        put(values, key, yaml.safe_load(swept.split(",")[0]))
        if key == "method.name":
            for value in swept.split(","):
                get_method(value)
    spec = RunConfig.read(override(values, list(options["settings"] or [])))
    method_config(spec.method)
    if not spec.task.name.startswith("examples/"):
        get_task(spec.task.name).prompt_of("eng_Latn", spec.task.prompt)


def test_every_command_of_a_page_is_one(pages: dict[str, str]) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    count = 0
    for path, text in pages.items():
        shell = "\n".join(blocks(text, "bash"))
        for arguments in commands("polyprefix", shell):
            count += 1
            try:
                parsed(arguments)
            except Exception as error:
                raise AssertionError(f"{path}: polyprefix {' '.join(arguments)}") from error
        for arguments in commands("make", shell):
            assert {word for word in arguments if "=" not in word} <= targets, path
    assert count > 30


def test_a_command_that_is_none_is_found() -> None:
    for line in (
        "run --methd lora",
        "run --method nope --model a --task sib200",
        "studdy run x",
        "run --model a --method lora --task sib200 --set train.stepps=3",
    ):
        with pytest.raises((PolyprefixError, TyperException)):
            parsed(line.split())


@pytest.mark.parametrize("path", sorted(set(WRITTEN) - {TUTORIAL_OF_ITS_OWN}))
def test_the_python_of_a_page_names_what_there_is(path: str) -> None:
    for code in blocks(WRITTEN[path], "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names), path
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pp":
                assert node.attr in import_module("polyprefix").__all__, path


def test_the_yaml_of_the_pages_is_read(pages: dict[str, str]) -> None:
    seen = 0
    for path, text in pages.items():
        for block in blocks(text, "yaml") if path != TUTORIAL_OF_ITS_OWN else []:
            values = yaml.safe_load(block)
            kind = StudyConfig if "grid" in values else RunConfig
            kind.read(values, where=path)
            seen += 1
    assert seen >= 2


# The parts ---------------------------------------------------------------------------------------


def test_equations_become_mathml() -> None:
    inline = r'<p><span class="arithmatex">\(K_p W_v\)</span></p>'
    made = equations.as_mathml(inline, "a.md")
    assert made.startswith('<p><math alttext="K_p W_v"')
    assert "<msub><mi>K</mi><mi>p</mi></msub>" in made
    block = '<div class="arithmatex">\\[\na &lt; b\n\\]</div>'
    assert 'display="block"' in equations.as_mathml(block, "a.md")
    with pytest.raises(PluginError, match=r"a\.md: equation"):
        equations.as_mathml(r'<span class="arithmatex">\(a \nosuch b\)</span>', "a.md")


def test_links_of_the_repository_are_those_of_the_site() -> None:
    text = included.page("CONTRIBUTING.md")
    assert "](explanation/architecture.md)" in text
    assert f"]({included.REPOSITORY}LICENSE)" in text
    section = included.section("README.md", "Two commands")
    assert f"]({included.REPOSITORY}src/polyprefix/tasks/polytopics/data/README.md)" in section
    assert "## " not in section
    with pytest.raises(ValueError, match="unpack"):
        included.section("README.md", "No such heading")


def test_cells_stay_cells() -> None:
    assert cell("a | b `c | d`\ne ``f ` | g``") == r"a \| b `c | d` e ``f ` | g``"


def test_what_a_page_loads_from_elsewhere_is_found() -> None:
    page = (
        '<a href="https://a.b/">x</a><link rel="canonical" href="https://a.b/">'
        '<link rel="stylesheet" href="../here.css"><script src="here.js"></script>'
    )
    assert list(offline.loaded(page)) == []
    worse = page + '<script src="//a.b/c.js"></script><link rel="stylesheet" href="https://a.b/c">'
    assert list(offline.loaded(worse)) == ["//a.b/c.js", "https://a.b/c"]


def test_a_key_without_a_description_is_refused() -> None:
    with pytest.raises(KeyError):
        configuration.meaning(_Undescribed, "key")


class _Undescribed(RunConfig):
    key: int = 0


def test_the_site_of_the_docs_is_left_alone_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    site = Path(yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)["site_dir"])
    assert f"/{site.parts[0]}/" in ignored
