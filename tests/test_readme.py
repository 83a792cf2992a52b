"""What README.md and examples/ show works, and what README.md claims holds."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaptionPromptConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from polyprefix.cli.app import app
from polyprefix.config import RunConfig, read_yaml
from polyprefix.methods import AdaptedModel, method_config, methods
from polyprefix.models import PACKAGED, families
from polyprefix.models.tiny import tiny_backbone, tiny_model
from polyprefix.tasks import get_task, tasks
from tests.conformance.cases import StubTokenizer, padded, texts
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def blocks(language: str) -> list[str]:
    """The fenced code blocks of README.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands(program: str, text: str | None = None) -> list[list[str]]:
    """The arguments of every call of a program in README.md's bash blocks, or in a text."""
    found = "\n".join(blocks("bash")) if text is None else text
    lines = found.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and Path(line[0]).name == program]


def example_commands(path: Path) -> list[list[str]]:
    """The commands in a configuration file's comments."""
    text = path.read_text(encoding="utf-8")
    return commands(
        "polyprefix", "\n".join(re.findall(r"^# +(polyprefix .*)$", text, re.MULTILINE))
    )


# Examples ----------------------------------------------------------------------------------------


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
    for path in EXAMPLES:
        assert example_commands(path), f"{path.name} does not say how it is run"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_configuration(path: Path) -> None:
    spec = RunConfig.read(read_yaml(path), where=path.name)
    method_config(spec.method)
    task = get_task(spec.task.name)
    if spec.task.languages != "all":
        assert set(spec.task.languages) <= set(task.language_codes)
    # an example runs anywhere: the packaged model, data from the hub, nothing about a machine
    assert spec.model.name in PACKAGED
    assert spec.task.data is None
    assert spec.output == RunConfig.model_fields["output"].default


# Commands ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with four layers, as many as ``method.layers=last:4`` asks for."""
    folder = tmp_path_factory.mktemp("readme") / "model"
    shutil.copytree(tiny_folder, folder)
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny_folder, num_hidden_layers=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def xnli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small XNLI in XTREME's layout, with a file to train on."""
    folder = tmp_path_factory.mktemp("xnli")
    labels = ("entailment", "neutral", "contradiction")
    rows = [f"He ate {n} apples.\tHe ate {m} apples." for n in range(3) for m in range(4)]
    labelled = [f"{row}\t{labels[number % 3]}" for number, row in enumerate(rows)]
    names = ("train-en.tsv", "dev-en.tsv", "train.tsv")
    for name in names:
        (folder / name).write_text("\n".join(labelled) + "\n", encoding="utf-8")
    for code in ("en", "sw"):
        (folder / f"test-{code}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    values = "\n".join(labels[number % 3] for number in range(len(rows)))
    (folder / "test-labels.txt").write_text(values + "\n", encoding="utf-8")
    return folder


class Shell:
    """Runs the commands of the README on tiny models and data, in a folder of its own."""

    def __init__(self, here: Path, model: Path, data: dict[str, Path]) -> None:
        self.here, self.model, self.data = here, model, data
        self.runs: dict[str, Path] = {}
        """The folder of each run, by what stands before the hash in its name."""

    def __call__(self, arguments: list[str]) -> str:
        if arguments[0] == "run":
            return self._run(arguments)
        arguments = [self._own_run(argument) for argument in arguments]
        if arguments[0] == "evaluate":  # of an adapter that was made here
            arguments[1] = str(self.runs["sib200-prefix_tuning"] / "adapter")
            arguments += self._places("sib200")
        return self._invoke(arguments)

    def _places(self, task: str) -> list[str]:
        """The last of an option that is given twice counts."""
        model, data = str(self.model), str(self.data[task])
        places = ["--model", model, "--data", data, "--output", str(self.here / "runs")]
        return [*places, "--languages", "en,sw", "--quiet"]

    def _run(self, arguments: list[str]) -> str:
        config = next((a for a in arguments[1:] if a.endswith(".yaml")), None)
        values = {} if config is None else read_yaml(ROOT / config)
        task = values.get("task", {}).get("name") or arguments[arguments.index("--task") + 1]
        folder = self.data[task]
        changed = [
            str(ROOT / argument) if argument == config else argument for argument in arguments
        ]
        changed += self._places(task)
        if "--train-data" in arguments:
            changed += ["--train-data", str(folder / "train.tsv")]
        for key in ("train_samples", "dev_samples"):
            if key in values.get("task", {}):
                changed += ["--set", f"task.{key}=8"]
        if "train_per_class" in values.get("task", {}):
            changed += ["--set", "task.train_per_class=2"]
        changed += ["--set", "train.epochs=null", "--set", "train.steps=2"]
        output = self._invoke(changed)
        made = Path(output.strip().splitlines()[-1])
        self.runs[made.name.rpartition("-")[0]] = made
        return output

    def _own_run(self, argument: str) -> str:
        """``runs/<name>-<hash>`` of the README as the run that was made here."""
        found = re.fullmatch(r"runs/(.+)-[0-9a-f]{12}", argument)
        return str(self.runs[found[1]]) if found else argument

    def _invoke(self, arguments: list[str]) -> str:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"{shlex.join(arguments)}\n{result.output}"
        return result.stdout


@pytest.fixture
def shell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    sib_folder: Path,
    xnli_folder: Path,
) -> Shell:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"text": "People talk about goals."}\n')
    return Shell(tmp_path, model_folder, {"sib200": sib_folder, "xnli": xnli_folder})


def test_every_command_of_the_readme_works(shell: Shell) -> None:
    shown = [arguments for arguments in commands("polyprefix") if arguments != ["quickstart"]]
    named = {"run", "show", "predict", "list", "study", "evaluate", "export"}
    assert {arguments[0] for arguments in shown} == named
    for arguments in shown:
        output = shell(arguments)
        assert output.strip(), arguments
        if arguments[0] in {"run", "show", "evaluate"}:
            # what the text under the table says of it
            for word in ("gap", "majority", "calibrated", "macro F1", "English", "Swahili"):
                assert word in output
        if arguments[0] == "predict":
            assert '"prediction"' in output


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_command_of_an_example_works(path: Path, shell: Shell) -> None:
    for arguments in example_commands(path):
        assert f"examples/{path.name}" in arguments
        assert "accuracy" in shell(arguments)


def test_quickstart_is_a_command() -> None:
    result = CliRunner().invoke(app, ["quickstart", "--help"])
    assert result.exit_code == 0, result.output


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        called = set(re.findall(r"(?:^ *|`)make ([a-z]+)\b", text, re.MULTILINE))
        assert called <= targets, f"{name}: {called - targets}"
    assert {"quickstart", "test"} <= {arguments[0] for arguments in commands("make")}


def test_the_python_of_the_readme_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, sib_folder: Path
) -> None:
    [code] = blocks("python")
    assert "steps=200" in code
    code = code.replace('data="sib200/"', f"data={str(sib_folder)!r}")
    code = code.replace("steps=200", "steps=2")
    if not (PACKAGED["polyprefix/nano"] / "model.safetensors").is_file():
        code = code.replace('"polyprefix/nano"', repr(str(model_folder)))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "adapter" / "polyprefix.safetensors").is_file()


# Tables ------------------------------------------------------------------------------------------


def table_rows(heading: str) -> Iterator[list[str]]:
    """The cells of the rows of a table of README.md, found by its first column's heading."""
    [table] = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    for line in table.splitlines():
        yield [cell.strip() for cell in line.strip("|").split("|")]


def ours(registered: dict[str, Any]) -> dict[str, Any]:
    """Without what plugins register."""
    return {
        name: item
        for name, item in registered.items()
        if (item if isinstance(item, type) else type(item)).__module__.startswith("polyprefix.")
    }


def test_the_methods_table_is_what_the_code_does() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table_rows("method")}
    assert rows.keys() == ours(methods()).keys()
    for name, (_, formulas, rate, paper) in rows.items():
        backbone = tiny_backbone("llama")
        backbone.tokenizer = StubTokenizer()
        method = methods()[name]
        config = method.Config()
        assert paper == method.paper
        assert rate == "-" or float(rate) == method.reference_learning_rate(config)
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
        counted = AdaptedModel(backbone).attach(config, text="a text")
        if formulas == "all":
            expected = sum(value.numel() for value in backbone.model.parameters())
        else:
            first = formulas.split(";")[0].strip(" `").replace("·", "*")
            expected = eval(first, {}, letters)
        assert counted.num_trainable() == expected, name


def test_the_projected_formula() -> None:
    model = AdaptedModel(tiny_backbone("llama"))
    options = {"name": "prefix_tuning", "parameterization": "projected", "initialization": "random"}
    adapter = model.attach(options)
    assert "`projected`: `P·d·N`" in README
    expected = 20 * model.backbone.hidden_size * model.backbone.num_layers
    assert adapter.num_trainable() == expected


def test_tasks_and_families_are_complete() -> None:
    rows = {row[0].strip("`"): row for row in table_rows("task")}
    known = ours(tasks())
    assert rows.keys() == known.keys()
    for name, task in known.items():
        assert rows[name][2] == str(len(task.language_codes))
        assert task.hub in rows[name][3]
    [listed] = re.findall(r"^Model families: (.*?)\.$", README, re.MULTILINE | re.DOTALL)
    # tests register no family, so all are ours
    assert set(re.findall(r"`(\w+)`", listed)) == set(families())


def test_links_lead_somewhere() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert (ROOT / target).exists(), f"{name}: {target}"
        for path in re.findall(r"`((?:src|tests|scripts|examples|pretraining)/[^`*<]*)`", text):
            assert (ROOT / path).exists(), f"{name}: {path}"
        for path in re.findall(r"`(\w+/\w+\.py)`", text):
            place = ROOT / "src" / "polyprefix" / path
            assert place.exists() or (ROOT / path).exists(), f"{name}: {path}"


# What is said of PEFT ----------------------------------------------------------------------------

PROMPTS = {
    "prompt tuning": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix tuning": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "llama-adapter": AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=2),
}
"""PEFT's. If it mends one of these, the table in README.md is to be changed, and the test."""

every_prompt = pytest.mark.parametrize("kind", PROMPTS)


@pytest.fixture(autouse=True)
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def peft_model(kind: str, family: str = "llama", seed: int = 0) -> Any:
    """A tiny model with an adapter of PEFT's that does something."""
    model = get_peft_model(tiny_model(family), PROMPTS[kind]).eval()
    move(model, seed)
    return model


def move(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.3 * torch.randn(value.shape, generator=generator))


@torch.no_grad()
def worst_difference(model: Any, side: str) -> float:
    """Between the logits of padded texts and of each alone."""
    rows = texts()
    ids, mask = padded(rows, side)
    together = model(input_ids=ids, attention_mask=mask).logits[:, -ids.shape[1] :]
    differences = [
        (got[visible] - model(input_ids=torch.tensor([row])).logits[0, -len(row) :]).abs().max()
        for row, got, visible in zip(rows, together, mask.bool(), strict=True)
    ]
    return float(max(differences))


@every_prompt
def test_peft_and_left_padding(kind: str) -> None:
    assert worst_difference(tiny_model("llama"), "left") < 1e-4
    model = peft_model(kind)
    assert worst_difference(model, "right") < 1e-4
    assert worst_difference(model, "left") > 1e-2


def test_peft_refuses_gradient_checkpointing_under_prefix_tuning() -> None:
    base = tiny_model("llama")
    base.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="gradient checkpointing"):
        get_peft_model(base, PROMPTS["prefix tuning"])


def test_peft_prefix_slides_out_of_sight() -> None:
    model = peft_model("prefix tuning", "mistral-sliding")
    window = model.config.sliding_window
    seen: list[torch.Tensor] = []
    attention = model.base_model.model.layers[0].self_attn
    hook = attention.register_forward_hook(lambda _m, _a, output: seen.append(output[0]))
    model(input_ids=torch.tensor([(texts(1)[0] * 20)[: 4 * window]]))
    hook.remove()
    values = [value for value in model.parameters() if value.requires_grad]
    for query, reached in ((0, True), (-1, False)):
        [gradient] = torch.autograd.grad(seen[0][0, query].sum(), values, retain_graph=True)
        assert bool(gradient.abs().max() > 0) == reached


def test_peft_prefix_is_in_all_layers() -> None:
    options = PrefixTuningConfig.__dataclass_fields__
    assert not [name for name in options if "layer" in name and name != "num_layers"]
    with_fewer = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, num_layers=1)
    model = get_peft_model(tiny_model("llama"), with_fewer).eval()
    with pytest.raises(IndexError):  # a cache that is filled for one of two layers
        model(input_ids=torch.tensor([texts(1)[0]]))


@every_prompt
def test_peft_ignores_the_adapters_of_rows(kind: str) -> None:
    model = peft_model(kind)
    model.add_adapter("other", PROMPTS[kind])
    ids = torch.tensor([texts(1)[0]] * 2)
    with torch.no_grad():
        model.set_adapter("other")
        move(model, 1)
        other = model(input_ids=ids).logits[1]
        model.set_adapter("default")
        active = model(input_ids=ids).logits[1]
        mixed = model(input_ids=ids, adapter_names=["default", "other"]).logits[1]
    assert not torch.allclose(other, active, atol=1e-2)
    torch.testing.assert_close(mixed, active)


def test_peft_trains_llama_adapter_in_the_dtype_of_the_backbone() -> None:
    model = get_peft_model(tiny_model("llama").to(torch.bfloat16), PROMPTS["llama-adapter"])
    trained = {value.dtype for value in model.parameters() if value.requires_grad}
    assert trained == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["prompt tuning", "prefix tuning"])
def test_peft_does_not_go_on_with_a_saved_prompt(kind: str, tmp_path: Path) -> None:
    peft_model(kind).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Cannot set a prompt learning adapter to trainable"):
        PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path), is_trainable=True)


# ARCHITECTURE.md ---------------------------------------------------------------------------------


def test_the_floors_are_those_that_are_checked() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    [house] = re.findall(r"^```text\n(cli .*?)^```", text, re.DOTALL | re.MULTILINE)
    floors = [re.split(r" {2,}", line)[0] for line in house.splitlines()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    assert floors == next(c["layers"] for c in contracts if c["type"] == "layers")
