"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cli


@pytest.fixture
def arguments(tiny_folder: Path, sib_folder: Path, tmp_path: Path) -> list[str]:
    return [
        "run", "--model", str(tiny_folder), "--method", "prefix_tuning", "--task", "sib200",
        "--data", str(sib_folder), "--output", str(tmp_path / "runs"), "--quiet",
        "--set", "train.steps=3",
    ]  # fmt: skip


def test_help_is_quick_and_does_not_import_torch() -> None:
    code = (
        "import sys; sys.argv = ['polyprefix', '--help']\n"
        "from polyprefix.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'datasets', 'peft'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
    assert time.perf_counter() - started < 10  # a second on an idle machine; not a benchmark


@pytest.mark.parametrize("command", [[], ["run"], ["show"], ["predict"], ["list"]])
def test_every_command_explains_itself(cli: Cli, command: list[str]) -> None:
    code, out, _ = cli(*command, "--help")
    assert code == 0
    assert "Usage" in out
    if command in (["run"], ["predict"]):
        assert "Examples" in out


def test_run_show_predict(cli: Cli, arguments: list[str], tmp_path: Path) -> None:
    code, out, err = cli(*arguments)
    assert code == 0, err
    for text in ("English", "German", "Swahili", "Atlantic-Congo", "majority", "source"):
        assert text in out
    folder = out.strip().splitlines()[-1]
    code, shown, _ = cli("show", folder)
    assert code == 0
    assert shown.strip() in out
    code, as_json, _ = cli("show", folder, "--json")
    assert json.loads(as_json)["status"] == "finished"

    code, out, _ = cli("predict", folder, "--text", "People talk about goals.")
    [answer] = [json.loads(line) for line in out.splitlines()]
    assert answer["text"] == "People talk about goals."
    assert answer["prediction"] in answer["probabilities"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)

    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "People talk about goals."}\n\nAbout rivers.\n')
    code, out, _ = cli("predict", folder, "--input", str(texts))
    first, second = [json.loads(line) for line in out.splitlines()]
    assert first["logprobs"] == pytest.approx(answer["logprobs"], abs=1e-4)
    assert second["text"] == "About rivers."


def test_predictions_of_a_run_and_of_predict_agree(
    cli: Cli, arguments: list[str], sib_folder: Path
) -> None:
    """The model that is loaded again scores the test set as the run did."""
    _, out, _ = cli(*arguments)
    folder = Path(out.strip().splitlines()[-1])
    lines = (sib_folder / "data/annotated/swh_Latn/test.tsv").read_text().splitlines()[1:4]
    texts = [argument for line in lines for argument in ("--text", line.split("\t")[2])]
    _, out, _ = cli("predict", str(folder), *texts)
    rows = (folder / "predictions" / "swh_Latn.jsonl").read_text().splitlines()[:3]
    for answer, row in zip(out.splitlines(), rows, strict=True):
        assert list(json.loads(answer)["logprobs"].values()) == pytest.approx(
            json.loads(row)["logprobs"], abs=1e-4
        )


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("methods", ["prefix_tuning", "llama_adapter", "lora", "2101.00190"]),
        ("tasks", ["sib200", "xnli", "205"]),
        ("models", ["polyprefix/nano", "bloom", "xglm"]),
        ("languages", ["swh_Latn", "Swahili", "Atlantic-Congo"]),
    ],
)
def test_lists(cli: Cli, kind: str, texts: list[str]) -> None:
    code, out, _ = cli("list", kind)
    assert code == 0
    for text in texts:
        assert text in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--set", "train.learning_rte=1"], "Did you mean 'learning_rate'"),
        (["--set", "train.steps=0"], "train.steps"),
        (["--set", "train.steps=3", "--set", "train.epochs=1"], "not both"),
        (["--set", "method.lenght=3"], "Did you mean 'length'"),
        (["--set", "method.layers=last:9"], "the model has 2 layers"),
        (["--set", "nonsense"], "expected key=value"),
        (["--method", "prefix_tunning"], "Did you mean 'prefix_tuning'"),
        (["--task", "sib20"], "Did you mean 'sib200'"),
        (["--languages", "klingon"], "klingon"),
        (["--languages", "sw,fr"], "fra_Latn"),
        (["--data", "nowhere"], "nowhere"),
        (["--model", "./nowhere"], "./nowhere"),
        (["--set", "runtime.device=cuda:99"], "runtime.device"),
        (["--set", "task.max_length=1"], "task.max_length"),
        (["--set", "train.max_grad_norm=inf"], "train.max_grad_norm"),
        (["--set", "train.betas=[0.9, 1.5]"], "train.betas"),
        (["--output", "/dev/null/runs"], "/dev/null"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_a_message(
    cli: Cli, arguments: list[str], changes: list[str], message: str
) -> None:
    code, _, err = cli(*arguments, *changes)
    assert code == 2
    assert message in err
    assert err.startswith("error: ")


def test_an_unsupported_family_is_named(
    cli: Cli, arguments: list[str], tiny_folder: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "opt"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "opt"}))
    code, _, err = cli(*arguments, "--model", str(folder))
    assert code == 2
    assert "'opt'" in err
    assert "llama" in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {name: x\n", "line 2"),
        ("- a\n- b\n", "expected keys and values"),
        ("model: {name: x}\nmethod: {name: lora}\n", "no task"),
        ("model: {name: x}\nmethod: {}\ntask: {name: sib200}\n", "method.name"),
        ("model: {nam: x}\nmethod: {name: lora}\ntask: {name: sib200}\n", "Did you mean 'name'"),
    ],
)
def test_a_bad_configuration_file(cli: Cli, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content)
    code, _, err = cli("run", str(path))
    assert code == 2
    assert message in err


def test_missing_files(cli: Cli, tmp_path: Path) -> None:
    for arguments in (["run", "no.yaml"], ["show", str(tmp_path)], ["predict", str(tmp_path)]):
        code, _, err = cli(*arguments)
        assert code == 2
        assert arguments[1] in err


def test_predict_says_which_fields_a_task_has(cli: Cli, arguments: list[str]) -> None:
    _, out, _ = cli(*arguments)
    folder = out.strip().splitlines()[-1]
    code, _, err = cli("predict", folder, "--field", "txt=hello")
    assert code == 2
    assert "text" in err
    code, _, err = cli("predict", folder, "--field", "hello")
    assert "name=text" in err
    code, _, err = cli("predict", folder, "--text", "a", "--input", "b")
    assert "one of --text" in err


def test_predict_from_bad_files(cli: Cli, arguments: list[str], tmp_path: Path) -> None:
    _, out, _ = cli(*arguments)
    folder = out.strip().splitlines()[-1]
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"gr\xfcn\n")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\n{"text"\n')
    for path, message in [
        (latin, "not UTF-8"),
        (broken, "line 2"),
        (tmp_path / "missing.txt", "missing.txt"),
    ]:
        code, _, err = cli("predict", folder, "--input", str(path))
        assert code == 2
        assert message in err
        assert path.name in err


def test_ctrl_c_says_how_to_go_on(
    cli: Cli, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import polyprefix.study

    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(polyprefix.study, "run", pressed)
    code, _, err = cli(*arguments)
    assert code == 130
    assert "the same command goes on" in err


def test_sweep(cli: Cli, arguments: list[str]) -> None:
    """Every combination is a run; side by side, then a line for each; the same again is there."""
    sweeps = ["--sweep", "seed=0,1", "--sweep", "train.learning_rate=1e-2,0.02"]
    code, out, err = cli(*arguments, *sweeps)
    assert code == 0, err
    for seed in (0, 1):
        for rate in ("0.01", "0.02"):
            assert f"seed={seed}, learning_rate={rate}" in out
    assert "Swahili" in out
    folders = [Path(line.split()[0]) for line in out.strip().splitlines()[-4:]]
    records = [json.loads((folder / "record.json").read_text()) for folder in folders]
    asked = [(record["config"]["seed"], record["learning_rate"]) for record in records]
    assert asked == [(0, 0.01), (0, 0.02), (1, 0.01), (1, 0.02)]
    assert all(len(record["together"]) == 4 for record in records)
    assert cli(*arguments, *sweeps) == (0, out, "")


def test_a_sweep_with_a_run_that_fails(cli: Cli, arguments: list[str]) -> None:
    code, out, err = cli(*arguments, "--sweep", "train.learning_rate=0.02,1e25")
    assert code == 2
    assert "Swahili" in out
    assert "error: learning_rate=1e+25: training stopped" in err


def test_a_sweep_of_methods(cli: Cli, arguments: list[str], tmp_path: Path) -> None:
    at = arguments.index("--method")
    without = arguments[:at] + arguments[at + 2 :]
    code, out, err = cli(*without, "--sweep", "method.name=lora,none")
    assert code == 0, err
    assert "name=lora" in out
    assert "name=none" in out


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (["seed"], "expected key=values, as in seed=0,1,2"),
        (["seed="], "expected values with commas"),
        (["seed=0", "seed=1"], "a sweep of 'seed' already"),
        (["seed.x=1"], "holds a value"),
        (["seed=0,one"], "key 'seed'"),
        (["train.stps=1,2"], "Did you mean 'steps'"),
        (["method.lenght=1,2"], "Did you mean 'length'"),
        (["task.max_length=99,100"], "key 'task.max_length'"),
    ],
)
def test_a_mistake_in_a_sweep(
    cli: Cli, arguments: list[str], sweeps: list[str], message: str
) -> None:
    options = [text for one in sweeps for text in ("--sweep", one)]
    code, _, err = cli(*arguments, "--seed", "0", *options)
    assert code == 2
    assert message in err


def test_values_of_a_sweep() -> None:
    from polyprefix.config.files import parse_values

    assert parse_values("0,1") == [0, 1]
    assert parse_values("1e-3, 0.02,null") == [0.001, 0.02, None]
    assert parse_values("last:4,all") == ["last:4", "all"]
    assert parse_values("[0,1],[2]") == [[0, 1], [2]]
