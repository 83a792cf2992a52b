"""Adapters that PEFT's own code has trained are evaluated like ours: ``polyprefix evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaptionPromptConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyprefix.analysis import compare
from polyprefix.config import ConfigError, RunConfig, RunError, TaskConfig
from polyprefix.methods import AdaptedModel, methods
from polyprefix.models import load_backbone
from polyprefix.results import RunFolder
from polyprefix.study import load_run, run, run_together
from polyprefix.tasks import load_task_data
from tests.conftest import Cli

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

CONFIGS = {
    "soft_prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "prefix_tuning": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "lora": LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "up_proj"]),
    "llama_adapter": AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=2),
}
Train = Callable[[str], Path]


@pytest.fixture(scope="module")
def trained(
    tiny_folder: Path, sib_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of an adapter that PEFT and torch's AdamW have trained, by our method's name."""
    folders: dict[str, Path] = {}

    def train(method: str) -> Path:
        if method in folders:
            return folders[method]
        spec = {"name": "sib200", "data": str(sib_folder), "languages": "en"}
        data = load_task_data(TaskConfig.read(spec), seed=0)
        prompt = data.prompts["eng_Latn"]
        tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
        torch.manual_seed(3)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_folder), CONFIGS[method])
        wanted = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(wanted, lr=0.1)
        for example in data.train[::3]:
            text = prompt.render(example.fields)
            choices = prompt.render_choices(example.fields)
            asked = tokenizer(text)["input_ids"]
            whole = torch.tensor([tokenizer(text + choices[example.label])["input_ids"]])
            labels = whole.clone()
            labels[:, : len(asked)] = -100
            model(input_ids=whole, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        folder = tmp_path_factory.mktemp(method)
        model.save_pretrained(folder)
        folders[method] = folder
        return folder

    return train


def choices_of_peft(tiny_folder: Path, adapter: Path | None, texts: list[tuple[str, list[str]]]):
    """For each prompt the summed log-probability of every choice after it, one at a time."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    found = []
    for text, choices in texts:
        asked = tokenizer(text)["input_ids"]
        scores = []
        for choice in choices:
            ids = torch.tensor([tokenizer(text + choice)["input_ids"]])
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            after = logits[0, -ids.shape[1] :].log_softmax(-1)[len(asked) - 1 : -1]
            scores.append(float(after.gather(-1, ids[0, len(asked) :, None]).sum()))
        found.append(scores)
    return found


def saved(make: Callable[..., RunConfig], folder: Path | str, **more: Any) -> RunConfig:
    """The configuration of an evaluation."""
    return make("saved", options={"folder": str(folder)}, **more)


@pytest.mark.parametrize("method", CONFIGS)
def test_predictions_are_those_of_peft(
    method: str, trained: Train, make: Callable[..., RunConfig], tiny_folder: Path
) -> None:
    config = saved(make, trained(method))
    record = run(config)
    data = load_task_data(config.task, seed=0, with_training=False)
    wanted, plain, predicted = [], [], []
    for code in data.languages:
        texts = [
            (data.prompts[code].render(e.fields), list(data.prompts[code].render_choices(e.fields)))
            for e in data.test[code]
        ]
        wanted += choices_of_peft(tiny_folder, trained(method), texts)
        plain += choices_of_peft(tiny_folder, None, texts)
        rows = RunFolder(Path(config.output) / record["id"]).predictions(code)
        assert rows is not None
        predicted += rows
    labels = data.task.labels  # type: ignore[attr-defined]
    for row, scores in zip(predicted, wanted, strict=True):
        assert row["prediction"] == labels[int(torch.tensor(scores).argmax())]
        ours = torch.tensor(list(row["logprobs"]))
        torch.testing.assert_close(ours, torch.tensor(scores), atol=1e-4, rtol=1e-4)
    # an adapter that neither side applied would pass for one that both did
    assert (torch.tensor(wanted) - torch.tensor(plain)).abs().max() > 0.1
    assert record["method"]["adapter"]["name"] == method
    assert record["method"]["title"].endswith("saved by PEFT")
    assert record["trainable_parameters"] > 0
    assert record["identity"]["train"] is None


def test_the_record_is_one_of_ours(
    trained: Train, make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """It is compared with runs, evaluated together with them, and its adapter is loaded again."""
    config = saved(make, trained("lora"))
    ours, theirs = run_together([make("lora"), config])
    table = compare([ours, theirs], ["ours", "PEFT's"])
    assert [one.name for one in table.runs] == ["ours", "PEFT's"]
    assert theirs == run(config)  # finished: not repeated
    model, _ = load_run(RunFolder(Path(config.output) / theirs["id"]))
    assert model.adapter().method == "lora"
    # a run is an adapter's folder, too
    again = run(saved(make, Path(config.output) / theirs["id"], task={"languages": "de"}))
    assert again["scores"]["deu_Latn"] == theirs["scores"]["deu_Latn"]
    assert again["method"]["title"] == "LoRA, saved by Polyprefix"


def test_identity_is_what_the_adapter_holds(
    trained: Train, make: Callable[..., RunConfig], tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    trained("lora").rename(moved)
    try:
        first = run(saved(make, moved))
    finally:
        moved.rename(trained("lora"))
    assert run(saved(make, trained("lora")))["id"] == first["id"]
    assert run(saved(make, trained("soft_prompt")))["id"] != first["id"]


def test_full_fine_tuning_of_ours_is_evaluated(make: Callable[..., RunConfig]) -> None:
    """It tunes the backbone: beside others it goes alone."""
    config = make("full")
    trained_here = run(config)
    folder = Path(config.output) / trained_here["id"]
    records = run_together([saved(make, folder), make("none")])
    assert records[0]["scores"] == trained_here["scores"]
    assert records[1]["scores"] != trained_here["scores"]


def test_attached_from_python(trained: Train, tiny_folder: Path) -> None:
    model = AdaptedModel(load_backbone(RunConfig.read(_values(tiny_folder)).model))
    adapter = model.attach({"name": "saved", "folder": str(trained("prefix_tuning"))})
    assert adapter.method == "prefix_tuning"
    assert "saved" not in methods()  # it is not one


def _values(tiny_folder: Path) -> dict[str, Any]:
    return {
        "model": {"name": str(tiny_folder)},
        "method": {"name": "none"},
        "task": {"name": "sib200"},
    }


# The command --------------------------------------------------------------------------------------


def test_evaluate(
    cli: Cli, trained: Train, sib_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is the one that the adapter names."""
    data = ("--task", "sib200", "--data", str(sib_folder), "--output", str(tmp_path))
    code, out, err = cli("evaluate", str(trained("lora")), *data, "--languages", "de,sw", "-q")
    assert code == 0, err
    assert "LoRA, saved by PEFT" in out
    assert "Swahili" in out
    record = json.loads((Path(out.strip().splitlines()[-1]) / "record.json").read_text())
    assert record["status"] == "finished"


def test_evaluate_says_what_is_wrong(
    cli: Cli, trained: Train, tiny_folder: Path, sib_folder: Path, tmp_path: Path
) -> None:
    data = ("--task", "sib200", "--data", str(sib_folder), "--output", str(tmp_path / "r"), "-q")
    assert "no adapter: folder 'nowhere' does not exist" in cli("evaluate", "nowhere", *data)[2]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"no adapter in {str(empty)!r}" in cli("evaluate", str(empty), *data)[2]
    assert "no task: give --task" in cli("evaluate", str(trained("lora")))[2]
    code, _, err = cli("evaluate", str(trained("lora")), *data, "--model", "polyprefix/nano")
    assert code == 2
    assert "was it trained on another backbone?" in err
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    (nameless / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert "does not say on which model it was trained" in cli("evaluate", str(nameless), *data)[2]
    (nameless / "adapter_model.bin").write_bytes(b"")
    model = ("--model", str(tiny_folder))
    assert "is a pickle" in cli("evaluate", str(nameless), *data, *model)[2]
    config = tmp_path / "c.yaml"
    config.write_text("method: {name: lora}\n")
    arguments = ("evaluate", str(trained("lora")), *data, "--config", str(config))
    assert "section 'method' has no effect" in cli(*arguments)[2]


def test_a_method_of_peft_that_is_not_ours(
    make: Callable[..., RunConfig], tiny_folder: Path, tmp_path: Path
) -> None:
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_folder),
        LoraConfig(task_type="CAUSAL_LM", use_dora=True),
    )
    model.save_pretrained(tmp_path / "dora")
    with pytest.raises(Exception, match="use_dora"):
        run(saved(make, tmp_path / "dora"))


def test_a_folder_that_is_gone(make: Callable[..., RunConfig]) -> None:
    with pytest.raises(ConfigError, match=r"method saved: key 'method.folder': no adapter: folder"):
        run(saved(make, "gone"))


def test_damaged_weights(trained: Train, make: Callable[..., RunConfig], tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in trained("lora").iterdir():
        (folder / path.name).write_bytes(path.read_bytes()[:100])
    config = (trained("lora") / "adapter_config.json").read_bytes()
    (folder / "adapter_config.json").write_bytes(config)
    with pytest.raises(RunError, match="cannot read"):
        run(saved(make, folder))
