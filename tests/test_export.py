"""``polyprefix export``: what is written is loaded as its user will, by PEFT or by plain
transformers, and computes what the run does. Nothing of the export's own comparison is used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from tokenizers import Tokenizer, processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from polyprefix.config import ConfigError, RunConfig, RunError
from polyprefix.evaluation import Decoding, generate
from polyprefix.export import export, targets
from polyprefix.export.folder import MANIFEST
from polyprefix.export.hub import public_record
from polyprefix.export.markdown import fenced, text
from polyprefix.export.soft_tokens import add_soft_tokens
from polyprefix.export.vocabulary import add_rows
from polyprefix.methods import AdaptedModel, load_adapter
from polyprefix.models import load_backbone
from polyprefix.models.tiny import tiny_backbone, tiny_model
from polyprefix.results import RunFolder, read_json
from polyprefix.study import load_run, run
from tests.conformance.cases import KINDS, TEXT, backbone, scramble
from tests.conftest import Cli

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
PROMPTS = ["People talk about goals today.\nTopic:", "Man spricht von Hotels", "x"]
Runs = Callable[..., Path]


@pytest.fixture
def made(make: Callable[..., RunConfig]) -> Runs:
    """The folder of a finished run, whose adapter looks trained for long."""

    def build(method: str, **changes: Any) -> Path:
        changes["task"] = {"languages": "en,de"} | changes.pop("task", {})
        config = make(method, train={"steps": 3, "learning_rate": 0.3e-1}, **changes)
        return Path(config.output) / run(config)["id"]

    return build


def ours(folder: Path, prompt: str) -> torch.Tensor:
    """``[T, V]``: the run's logits at the text's tokens and after."""
    model, _ = load_run(RunFolder(folder), "cpu")
    ids = model.backbone.tokenizer(prompt)["input_ids"]
    before = len(model.adapter().prompt_ids()[0])
    with torch.no_grad():
        return model(torch.tensor([model.wrap(ids)])).logits[0, before:]


def plain(folder: Path, prompt: str) -> torch.Tensor:
    """The same of the model without the adapter."""
    config = RunConfig.read(read_json(folder / "config.json")).model
    model = AdaptedModel(load_backbone(config))
    ids = model.backbone.tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def served(folder: Path, prompt: str) -> torch.Tensor:
    """``[T, V]``: what anybody gets who loads the folder."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")).logits[0]


# PEFT ---------------------------------------------------------------------------------------------

IN_PEFT = {
    "soft_prompt": {},
    "prefix_tuning": {"layers": "all"},
    "llama_adapter": {"gate": "layer"},
    "lora": {"layers": "last:1"},
}


@pytest.mark.parametrize("method", IN_PEFT)
def test_peft_loads_it(method: str, made: Runs, tiny_folder: Path, tmp_path: Path) -> None:
    folder = made(method, options=IN_PEFT[method])
    told = export(folder, "peft", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", MANIFEST}
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        wanted = ours(folder, prompt)
        torch.testing.assert_close(logits[0, -ids.shape[1] :], wanted, **TOLERANCE)
        assert not torch.allclose(plain(folder, prompt), wanted, atol=1e-3)
    assert told.difference is not None
    assert told.difference < 1e-4


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("prefix_tuning", {"layers": "last:1"}, "all 2 layers, this one in 1.*layers 'all'"),
        ("prefix_tuning", {"initialization": "zero", "layers": "all"}, "factor on its mass"),
        ("llama_adapter", {}, "gate 'layer'"),
        ("soft_prompt", {"position": "end"}, "position 'start'"),
        ("bottleneck", {}, "no method like"),
        ("full", {}, "no method like"),
        ("none", {}, "no method like"),
    ],
    ids=str,
)
def test_what_peft_cannot_hold(
    method: str, options: dict[str, Any], reason: str, made: Runs, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"PEFT cannot hold .*{reason}"):
        export(made(method, options=options), "peft", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))  # nor a part of it


# Merged -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_merged_into_the_weights(method: str, made: Runs, tmp_path: Path) -> None:
    folder = made(method)
    told = export(folder, "merged", tmp_path / "out")
    assert told.notes == ["weights in float32, safetensors"]
    assert not list((tmp_path / "out").glob("*.bin"))
    for prompt in PROMPTS:
        wanted = ours(folder, prompt)
        torch.testing.assert_close(served(tmp_path / "out", prompt), wanted, **TOLERANCE)
        assert not torch.allclose(plain(folder, prompt), wanted, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_is_merged_in_every_family(kind: str, tmp_path: Path) -> None:
    """As the target does, without a run."""
    from polyprefix.methods import save_for_peft

    model = AdaptedModel(backbone(kind))
    scramble(model.attach({"name": "lora", "layers": "all"}, text=TEXT))
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        wanted = model(ids).logits
    save_for_peft(model.adapter(), tmp_path)
    merged = PeftModel.from_pretrained(tiny_model(kind), tmp_path).merge_and_unload(safe_merge=True)
    merged.save_pretrained(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        # the sum is rounded before it is multiplied, in weights that are drawn wide
        torch.testing.assert_close(loaded(input_ids=ids).logits, wanted, atol=5e-5, rtol=5e-5)


def test_merged_in_another_dtype(made: Runs, tmp_path: Path) -> None:
    folder = made("lora")
    told = export(folder, "merged", tmp_path / "out", options={"dtype": "bfloat16"})
    assert told.notes == ["weights in bfloat16, safetensors"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    difference = (served(tmp_path / "out", PROMPTS[0]).float() - ours(folder, PROMPTS[0])).abs()
    assert 1e-5 < difference.max() < 0.3


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("soft_prompt", "--to vocabulary"),
        ("prefix_tuning", "depends on the text"),
        ("llama_adapter", "depends on the text"),
        ("bottleneck", "depends on the text"),
        ("none", "nothing was trained"),
    ],
)
def test_what_weights_cannot_hold(method: str, reason: str, made: Runs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=reason):
        export(made(method), "merged", tmp_path / "out")


# Vocabulary ---------------------------------------------------------------------------------------


@pytest.fixture
def tied_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with a tied head."""
    folder = tmp_path / "tied"
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, tie_word_embeddings=True)
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("position", ["start", "end"])
def test_a_soft_prompt_in_the_vocabulary(
    position: str, tied: bool, made: Runs, tied_folder: Path, tmp_path: Path
) -> None:
    options = {"position": position, "length": 5}
    folder = made(
        "soft_prompt", options=options, **({"model": {"name": str(tied_folder)}} if tied else {})
    )
    out = tmp_path / "out"
    told = export(folder, "vocabulary", out)
    assert told.difference is not None
    assert told.difference < 1e-5
    before = 5 if position == "start" else 0
    for prompt in PROMPTS:
        wanted = ours(folder, prompt)
        found = served(out, prompt)[before:]
        known = wanted.shape[1]
        torch.testing.assert_close(found[:, :known], wanted, **TOLERANCE)
        assert not torch.allclose(plain(folder, prompt)[-1], wanted[-1], atol=1e-2)
        # each new token is one of the old ones as an output, not the end of a text
        new = found[:, known : known + 5]
        same = [i for i in range(known) if torch.equal(found[:, i], new[:, 0])]
        assert same
        assert 2 not in same
        assert (new == new[:, :1]).all()


@pytest.mark.parametrize("position", ["start", "end"])
def test_greedy_generations_are_the_runs(position: str, made: Runs, tmp_path: Path) -> None:
    folder = made("soft_prompt", options={"position": position})
    export(folder, "vocabulary", tmp_path / "out", check=False)
    model, _ = load_run(RunFolder(folder), "cpu")
    asked = [model.backbone.tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    wanted = generate(model, asked, Decoding(max_new_tokens=12, stop=()), batch_tokens=999)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    served_model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for suppress in (None, []):  # a server that does not know of suppression writes the same
        for prompt, answer in zip(PROMPTS, wanted, strict=True):
            inputs = tokenizer(prompt, return_tensors="pt")
            more = {} if suppress is None else {"suppress_tokens": None}
            written = served_model.generate(**inputs, max_new_tokens=12, do_sample=False, **more)
            ids = written[0, inputs["input_ids"].shape[1] :]
            assert tokenizer.decode(ids, skip_special_tokens=True) == answer.text
    assert "<|soft_0|>" not in tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True)


def test_tokens_that_are_suppressed(made: Runs, tmp_path: Path) -> None:
    export(made("soft_prompt", options={"length": 4}), "vocabulary", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer.convert_tokens_to_ids([f"<|soft_{i}|>" for i in range(4)])
    assert read_json(tmp_path / "out" / "generation_config.json")["suppress_tokens"] == ids


def test_a_prompt_with_a_tuned_backbone(made: Runs, tmp_path: Path) -> None:
    folder = made("soft_prompt", options={"tune_backbone": True, "length": 3})
    export(folder, "vocabulary", tmp_path / "out")
    wanted = ours(folder, PROMPTS[0])
    found = served(tmp_path / "out", PROMPTS[0])[3:, : wanted.shape[1]]
    torch.testing.assert_close(found, wanted, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_added_in_every_family(kind: str, tmp_path: Path) -> None:
    """Scaled embeddings, tied heads and spare rows among them."""
    model = AdaptedModel(tiny_backbone(kind))
    model.backbone.tokenizer = backbone(kind).tokenizer
    scramble(model.attach({"name": "soft_prompt", "length": 3, "initialization": "uniform"}))
    row = list(range(5, 18))
    with torch.no_grad():
        wanted = model(torch.tensor([model.wrap(row)])).logits
    changed = tiny_model(kind)
    vocabulary = len(changed.get_input_embeddings().weight)
    # the last row is a spare one, as where tables are padded
    ids = [vocabulary - 1, vocabulary, vocabulary + 1]
    add_rows(changed, model.adapter().soft_tokens().detach(), ids, 7)
    changed.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = loaded(input_ids=torch.tensor([[*ids, *row]])).logits
    known = vocabulary - 1
    torch.testing.assert_close(logits[..., :known], wanted[..., :known], **TOLERANCE)
    for new in ids:
        assert torch.equal(logits[..., new], logits[..., 7])


@pytest.mark.parametrize("method", ["lora", "prefix_tuning", "llama_adapter", "bottleneck", "full"])
def test_what_a_vocabulary_cannot_hold(method: str, made: Runs, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"method {method!r} has no soft tokens"):
        export(made(method), "vocabulary", tmp_path / "out")


# The tokenizer ------------------------------------------------------------------------------------

CHAT = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}\n"


def tokenizer_of(folder: Path, processor: Any, template: Any = None) -> Any:
    """The tiny model's, with another post-processor."""
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if processor is not None:
        backend.post_processor = processor
    else:
        state = json.loads(backend.to_str()) | {"post_processor": None}
        backend = Tokenizer.from_str(json.dumps(state))
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    made.chat_template = template
    return made


BOS = processors.TemplateProcessing(
    single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
)
ENDED = processors.TemplateProcessing(
    single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
)
BYTES = processors.ByteLevel(trim_offsets=False)


@pytest.mark.parametrize("position", ["start", "end"])
@pytest.mark.parametrize(
    ("processor", "bos"),
    [
        (BOS, True),
        (ENDED, True),
        (BYTES, False),
        (processors.Sequence([BYTES, BOS]), True),
        (None, False),
    ],
    ids=["template", "ended", "bytes", "sequence", "none"],
)
def test_the_tokenizer_inserts_them(
    processor: Any, bos: bool, position: str, tiny_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(tiny_folder, processor)
    bare = tokenizer("people", add_special_tokens=False)["input_ids"]
    made = add_soft_tokens(tokenizer, 3, position, tmp_path)  # type: ignore[arg-type]
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text_ids = [*([1] if bos else []), *bare]
    wanted = [*made.ids, *text_ids] if position == "start" else [*text_ids, *made.ids]
    assert loaded("people")["input_ids"] == wanted
    assert loaded("people", add_special_tokens=False)["input_ids"] == bare
    assert loaded.encode("".join(made.names), add_special_tokens=False) == made.ids
    assert loaded.decode(wanted, skip_special_tokens=True) == "people"


@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("position", ["start", "end"])
def test_the_chat_template_inserts_them(
    position: str, generation: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    chat = [{"role": "user", "content": "goals"}]
    more = {"tokenize": False, "add_generation_prompt": generation}
    tokenizer = tokenizer_of(tiny_folder, BOS, CHAT)
    plain_text = tokenizer.apply_chat_template(chat, **more)
    made = add_soft_tokens(tokenizer, 2, position, tmp_path)  # type: ignore[arg-type]
    assert made.templates
    found = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(chat, **more)
    soft = "<|soft_0|><|soft_1|>"
    if position == "start":
        assert found == soft + plain_text
    else:
        assert found == plain_text + (soft if generation else "")
    ids = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(chat, return_dict=False)
    assert (ids[:2] == made.ids) == (position == "start")


def test_several_chat_templates(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tiny_folder, BOS, {"default": CHAT, "tool_use": "tools" + CHAT})
    add_soft_tokens(tokenizer, 1, "start", tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path).chat_template
    assert {k: v.startswith("<|soft_0|>") for k, v in loaded.items()} == {
        "default": True,
        "tool_use": True,
    }


def test_a_post_processor_that_cannot_be_changed(tiny_folder: Path, tmp_path: Path) -> None:
    strange = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    with pytest.raises(ConfigError, match="RobertaProcessing"):
        add_soft_tokens(tokenizer_of(tiny_folder, strange), 1, "start", tmp_path)


def test_names_that_are_taken(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tiny_folder, BOS)
    tokenizer.add_tokens(["<|soft_1|>"], special_tokens=True)
    made = add_soft_tokens(tokenizer, 2, "start", tmp_path)
    assert made.names == ["<|soft_prompt_0|>", "<|soft_prompt_1|>"]


def test_for_llama_cpp_the_post_processor_stays(
    made: Runs, tiny_folder: Path, tmp_path: Path
) -> None:
    """The converter knows a tokenizer by what it encodes."""
    folder = made("soft_prompt", options={"length": 2})
    told = export(folder, "vocabulary", tmp_path / "out", options={"gguf": True})
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    original = AutoTokenizer.from_pretrained(tiny_folder)
    assert loaded(PROMPTS)["input_ids"] == original(PROMPTS)["input_ids"]
    known = len(original)
    ids = loaded("<|soft_0|><|soft_1|><s>" + PROMPTS[0], add_special_tokens=False)["input_ids"]
    assert ids == [known, known + 1, *original(PROMPTS[0])["input_ids"]]
    assert told.difference is not None
    assert told.difference < 1e-5
    assert any("add_bos_token" in note for note in told.notes)


# Hub ----------------------------------------------------------------------------------------------


def test_a_folder_for_the_hub(
    made: Runs, tiny_folder: Path, sib_folder: Path, tmp_path: Path
) -> None:
    folder = made("lora", task={"languages": "en,de,sw"})
    out = tmp_path / "out"
    options = {"base_model": "someone/tiny", "license": "apache-2.0"}
    export(folder, "hub", out, options=options)
    card = ModelCard.load(out / "README.md")
    record = RunFolder(folder).record()
    data = card.data
    assert data.base_model == "someone/tiny"
    assert data.library_name == "peft"
    assert data.license == "apache-2.0"
    assert set(data.language) == {"en", "de", "sw"}
    assert data.eval_results is not None
    by_language = {result.dataset_config: result for result in data.eval_results}
    for code, scores in record["scores"].items():
        assert by_language[code].metric_value == round(scores["accuracy"], 4)
        assert f"| {scores['accuracy']:.3f} | {scores['accuracy_stderr']:.3f} |" in card.text
    assert record["commit"] is None or record["commit"] in card.text
    # nothing of this machine
    for path in out.iterdir():
        for place in (tiny_folder, sib_folder, tmp_path):
            assert str(place).encode() not in path.read_bytes(), path.name
    # what the card says how to do
    model = AdaptedModel(load_backbone(RunConfig.read(read_json(folder / "config.json")).model))
    load_adapter(model, out)
    ids = model.backbone.tokenizer(PROMPTS[0])["input_ids"]
    with torch.no_grad():
        assert torch.equal(model(torch.tensor([ids])).logits[0], ours(folder, PROMPTS[0]))
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), out)
    # its record is still a run's
    assert RunFolder(out).record()["scores"] == record["scores"]


def test_a_card_of_what_peft_cannot_load(made: Runs, tmp_path: Path) -> None:
    told = export(made("bottleneck"), "hub", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "polyprefix"
    assert card.data.base_model is None
    assert card.data.license is None
    assert "PEFT cannot load it: PEFT has no method like" in card.text
    assert any("--license" in note for note in told.notes)
    assert any("--base-model" in note for note in told.notes)


def test_texts_in_a_card_are_texts(made: Runs, tmp_path: Path) -> None:
    """Of data sets and models that somebody else has named."""
    folder = made("lora")
    evil = "<script>x</script>\n---\n| a | **b** [c](http://d) `e` \u202etxt {{ 7 * 7 }}"
    record = read_json(folder / "record.json")
    record["task"]["title"] = evil
    record["task"]["prompt"]["template"] = "```\n# " + evil
    record["task"]["prompt"]["choices"] = [evil]
    (folder / "record.json").write_text(json.dumps(record))
    export(folder, "hub", tmp_path / "out", options={"base_model": evil})
    written = (tmp_path / "out" / "README.md").read_text()
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "\u202e" not in written
    assert "<script>" not in re.sub(r"(?ms)^(`{3,}).*?^\1$", "", card.text)
    assert "&lt;script&gt;" in card.text
    assert r"\[c\](http" in card.text
    assert r"\*\*b\*\*" in card.text
    assert "49" not in card.text.split("## Scores")[0]
    assert "````text\n```\n# <script>" in card.text
    results = card.data.eval_results
    assert results is not None
    assert len(results) == 2
    assert results[0].task_name is not None
    assert results[0].task_name.startswith("<script>x</script> --- | a |")


def test_markdown() -> None:
    assert text("a|b_c") == r"a\|b\_c"
    assert text("a\nb") == "a b"
    assert text("<b>&") == "&lt;b&gt;&amp;"
    assert fenced("x\n  y") == "```text\nx\n  y\n```"
    assert fenced("````") == "`````text\n````\n`````"


def test_public_record(made: Runs, sib_folder: Path) -> None:
    record = RunFolder(made("lora")).record()
    record["task"]["bad_rows"] = [f"{sib_folder}/data/x.tsv, line 3: no"]
    public = public_record(record)
    assert public["task"]["bad_rows"] == [f"{sib_folder.name}/data/x.tsv, line 3: no"]
    assert public["config"]["task"]["data"] == sib_folder.name
    assert public["scores"] == record["scores"]


# The command and its folder -----------------------------------------------------------------------


def test_export_command(cli: Cli, made: Runs, tmp_path: Path) -> None:
    folder = made("lora")
    out = tmp_path / "some" / "out"
    code, said, err = cli("export", str(folder), "--to", "peft", "--output", str(out))
    assert code == 0, err
    assert said.splitlines()[-1] == str(out)
    assert "largest difference of logits" in said
    manifest = read_json(out / MANIFEST)
    assert manifest["run"] == folder.name
    assert set(manifest["files"]) | {MANIFEST} == {path.name for path in out.iterdir()}
    assert [path for path in out.parent.iterdir() if path != out] == []


def test_help_has_examples(cli: Cli) -> None:
    for command in ("export", "evaluate"):
        code, out, _ = cli(command, "--help")
        assert code == 0
        assert f"polyprefix {command} " in out


def test_export_says_what_is_wrong(cli: Cli, made: Runs, tmp_path: Path) -> None:
    folder = made("lora")
    out = tmp_path / "out"

    def said(*arguments: str, run: Path = folder, to: str = "peft") -> str:
        code, _, err = cli("export", str(run), "--to", to, "--output", str(out), "-q", *arguments)
        assert code == 2
        assert not out.exists() or (out / "mine").exists()
        return err

    assert "unknown export target 'pfet'. Did you mean 'peft'?" in said(to="pfet")
    assert "is not a run's folder" in said(run=tmp_path)
    assert "option 'dtype' has no effect with --to peft" in said("--dtype", "float32")
    assert "option 'gguf' has no effect with --to merged" in said("--gguf", to="merged")
    assert "unknown dtype 'bf16'" in said("--dtype", "bf16", to="merged")
    out.mkdir()
    (out / "mine").write_text("mine")
    assert "is not empty" in said()
    assert "no export of Polyprefix has written" in said("--overwrite")
    assert (out / "mine").read_text() == "mine"


def test_an_unfinished_run(made: Runs, tmp_path: Path) -> None:
    folder = made("lora")
    record = read_json(folder / "record.json") | {"status": "running"}
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="is running: run it to its end first"):
        export(folder, "peft", tmp_path / "out")


def test_a_run_without_its_adapter(made: Runs, tmp_path: Path) -> None:
    folder = made("lora")
    for path in (folder / "adapter").iterdir():
        path.unlink()
    with pytest.raises(RunError, match="no adapter in"):
        export(folder, "peft", tmp_path / "out")


def test_another_base_model_in_its_place(
    make: Callable[..., RunConfig], tied_folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    config = make("lora", model={"name": str(tied_folder)}, train={"steps": 1})
    folder = Path(config.output) / run(config)["id"]
    (tied_folder / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    with pytest.raises(RunError, match="is not the one the run was made with"):
        export(folder, "merged", tmp_path / "out")


def test_an_earlier_export_is_replaced(made: Runs, tmp_path: Path) -> None:
    """Its files go, those of others stay: a repository's, say."""
    out = tmp_path / "out"
    folder = made("lora")
    export(folder, "hub", out)
    (out / ".gitattributes").write_text("theirs")
    with pytest.raises(RunError, match="--overwrite"):
        export(folder, "peft", out)
    export(folder, "peft", out, overwrite=True)
    assert {path.name for path in out.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        MANIFEST,
        ".gitattributes",
    }


def test_a_manifest_that_points_elsewhere(made: Runs, tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    mine.write_text("mine")
    folder = made("lora")
    export(folder, "peft", out)
    manifest = read_json(out / MANIFEST)
    (out / MANIFEST).write_text(json.dumps(manifest | {"files": ["../mine", str(mine)]}))
    export(folder, "peft", out, overwrite=True)
    assert mine.read_text() == "mine"


def test_what_computes_something_else_is_thrown_away(
    made: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyprefix.methods.lora import Lora

    right = Lora.to_peft

    def wrong(self: Lora) -> Any:
        peft, tensors = right(self)
        return peft, {name: 2 * value for name, value in tensors.items()}

    folder = made("lora")
    monkeypatch.setattr(Lora, "to_peft", wrong)
    with pytest.raises(RunError, match="other logits than the run"):
        export(folder, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_targets() -> None:
    assert list(targets()) == ["hub", "merged", "peft", "vocabulary"]
