"""Prompts of XQuAD, MLQA and TyDi QA: ours, and lm-evaluation-harness's to the byte."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest

from polyprefix.config import ConfigError
from polyprefix.tasks import get_task
from polyprefix.tasks.squad_json import ExtractiveTask

XQUAD, MLQA, TYDIQA = (get_task(name) for name in ("xquad", "mlqa", "tydiqa_goldp"))
TASKS = [XQUAD, MLQA, TYDIQA]

# lm-evaluation-harness 0.4.13, `doc_to_text` of lm_eval/tasks/{xquad,mlqa,tydiqa}/*.yaml.
HARNESS = {
    "xquad": {
        "ar": "سيا: {{context}}\n\nسؤال: {{question}}\n\nإجابة:",
        "de": "Kontext: {{context}}\n\nFrage: {{question}}\n\nAntwort:",
        "el": "Συμφραζόμενα: {{context}}\n\nΕρώτηση: {{question}}\n\nΑπάντηση:",
        "en": "Context: {{context}}\n\nQuestion: {{question}}\n\nAnswer:",
        "es": "Contexto: {{context}}\n\nPregunta: {{question}}\n\nRespuesta:",
        "hi": "प्रसंग: {{context}}\n\nसवाल: {{question}}\n\nउत्तर:",
        "ro": "Context: {{context}}\n\nÎntrebare: {{question}}\n\nRăspuns:",
        "ru": "Контекст: {{context}}\n\nВопрос: {{question}}\n\nОтвет:",
        "th": "บริบท: {{context}}\n\nคำถาม: {{question}}\n\nคำตอบ:",
        "tr": "Bağlam: {{context}}\n\nSoru: {{question}}\n\nCevap:",
        "vi": "Bối cảnh: {{context}}\n\nCâu hỏi: {{question}}\n\nTrả lời:",
        "zh": "语境: {{context}}\n\n问题: {{question}}\n\n回答:",
    },
    "mlqa": dict.fromkeys(
        ("ar", "de", "en", "es", "hi", "vi", "zh"),
        "Context: {{context}}\n\nQuestion: {{question}}\n\nAnswer:",
    ),
    "tydiqa_goldp": {
        "ar": "السياق: {{context}}\n\nالسؤال: {{question}}\n\nالإجابة:",
        "bn": "প্রসঙ্গ: {{context}}\n\nপ্রশ্ন: {{question}}\n\nউত্তর:",
        "en": "Context: {{context}}\n\nQuestion: {{question}}\n\nAnswer:",
        "fi": "Konteksti: {{context}}\n\nKysymys: {{question}}\n\nVastaus:",
        "id": "Konteks: {{context}}\n\nPertanyaan: {{question}}\n\nJawaban:",
        "ko": "맥락: {{context}}\n\n질문: {{question}}\n\n답변:",
        "ru": "Контекст: {{context}}\n\nВопрос: {{question}}\n\nОтвет:",
        "sw": "Muktadha: {{context}}\n\nSwali: {{question}}\n\nJibu:",
        "te": "సందర్భం: {{context}}\n\nప్రశ్న: {{question}}\n\nసమాధానం:",
    },
}

FIELDS = [
    {"context": "He was born in 1911.", "question": "When was he born?"},
    {"context": " two\nlines {{ x }} {% if %}\u2028 ", "question": "<b>&amp;</b> 'why' \"so\"? "},
]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_prompt_begins_with_the_passage(task: ExtractiveTask) -> None:
    assert task.prompt.render(FIELDS[0]) == (
        "He was born in 1911.\nQuestion: When was he born?\nAnswer:"
    )
    assert task.prompt.render({"context": " a\n", "question": "b "}) == "a\nQuestion: b\nAnswer:"
    assert task.prompt.fields == ("context", "question")
    assert (task.passage, task.stop, task.headline) == ("context", ("\n",), "f1")
    assert task.metrics == ("squad", "mlqa")


def harness_text(template: str, fields: dict[str, str]) -> str:
    """As lm-evaluation-harness renders a template."""
    environment = jinja2.Environment(
        loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(template).render(**fields)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_harness_s_prompt_to_the_byte(task: ExtractiveTask) -> None:
    assert set(task.language_codes.values()) == HARNESS[task.name].keys()
    for code, own in task.language_codes.items():
        prompt = task.prompt_of(code, "lm-eval")
        for fields in FIELDS:
            ours = prompt.render(fields).encode()
            assert ours == harness_text(HARNESS[task.name][own], fields).encode()
        assert (prompt.stop, prompt.max_new_tokens) == (("\n",), 256)
    with pytest.raises(ConfigError, match="unknown prompt of task"):
        task.prompt_of("eng_Latn", "lm_eval")


def test_the_harness_s_prompt_to_the_byte_on_every_question(real_data: Path) -> None:
    for code, own in XQUAD.language_codes.items():
        prompt = XQUAD.prompt_of(code, "lm-eval")
        examples = XQUAD.read_local(real_data / "xquad", code, "test").examples
        for example in examples[::40]:
            text = harness_text(HARNESS["xquad"][own], example.fields)
            assert prompt.render(example.fields).encode() == text.encode()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_harness_itself(task: ExtractiveTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own tasks as they are, on questions of ours in place of the hub's."""
    pytest.importorskip("lm_eval")
    pytest.importorskip("evaluate")
    import datasets
    from lm_eval.tasks import TaskManager

    # Its XQuAD imports a module for scores that transformers no longer has; prompts do not use it.
    for name in ("transformers.data.metrics", "transformers.data.metrics.squad_metrics"):
        try:
            __import__(name)
        except ModuleNotFoundError:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    manager = TaskManager()
    names = {
        "xquad": "xquad_{0}",
        "mlqa": "mlqa_{0}_{0}",
        "tydiqa_goldp": "tydiqa_goldp_{0}",
    }
    for code, own in task.language_codes.items():
        language = getattr(get_module(task), "LANGUAGE_NAMES", {}).get(code, own)
        rows = [
            {**fields, "id": f"{language}-{n}", "title": "", "answers": {"text": ["1911"]}}
            for n, fields in enumerate(FIELDS)
        ]
        data = dict.fromkeys(("train", "validation", "test"), datasets.Dataset.from_list(rows))
        monkeypatch.setattr(datasets, "load_dataset", lambda data=data, **_: data)
        [theirs] = manager.load([names[task.name].format(own)])["tasks"].values()
        prompt = task.prompt_of(code, "lm-eval")
        docs = list(theirs.eval_docs)
        assert len(docs) == len(FIELDS)
        for doc, fields in zip(docs, FIELDS, strict=True):
            assert prompt.render(fields) == theirs.fewshot_context(doc, num_fewshot=0)
        assert tuple(theirs.config.generation_kwargs["until"]) == prompt.stop
        assert "max_gen_toks" not in theirs.config.generation_kwargs
        assert theirs.config.target_delimiter == " "


def get_module(task: ExtractiveTask) -> Any:
    return __import__(type(task).__module__, fromlist=["*"])
