"""A tokenizer of which soft tokens are tokens, and which puts them into every text.

Two things put them in. The post-processor does wherever a text is encoded with its special tokens,
as completions are; the chat template does wherever it is rendered, as servers encode its result
without special tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from polyprefix.config import ConfigError, RunError

SAMPLES = ("a text", "1 2 3\n\nB: ", "é 字 नमस्ते 🙂")
"""Texts on which the written tokenizer is compared with the one it was made from."""


@dataclass(frozen=True)
class SoftTokens:
    """Tokens that were added to a tokenizer.

    Attributes:
        names: as they stand in a text.
        ids: theirs.
        position: before the text or behind it.
        templates: whether there is a chat template that inserts them.
    """

    names: list[str]
    ids: list[int]
    position: Literal["start", "end"]
    templates: bool


def add_soft_tokens(
    tokenizer: Any,
    count: int,
    position: Literal["start", "end"],
    folder: Path,
    *,
    processed: bool = True,
) -> SoftTokens:
    """Write ``tokenizer`` with ``count`` more tokens that stand in every text.

    Args:
        tokenizer: of transformers, with a backend of ``tokenizers``; it is changed.
        count: P.
        position: before all else, begin-of-text token included, or behind the text.
        folder: receives the tokenizer.
        processed: have the post-processor insert them; if not, it stays as it is.

    Raises:
        ConfigError: the tokenizer cannot be changed this way.
        RunError: what was written does not encode texts as it should.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ConfigError(
            "the model's tokenizer is not one of the tokenizers library: tokens cannot be put "
            "into every text by a post-processor"
        )
    vocabulary = tokenizer.get_vocab()
    before = {text: tokenizer(text)["input_ids"] for text in SAMPLES}
    names = _names(count, vocabulary)
    tokenizer.add_tokens(
        [AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True
    )
    ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    if len(set(ids)) != count or set(ids) & set(vocabulary.values()):
        raise ConfigError("the model's tokenizer takes no new tokens")
    if processed:
        _insert(tokenizer.backend_tokenizer, names, ids, position, tokenizer.eos_token)
    templates = _insert_in_templates(tokenizer, "".join(names), position)
    tokenizer.save_pretrained(folder)
    made = SoftTokens(names, ids, position, templates)
    if not processed:
        return made
    _load_as_written(folder)
    _check(folder, before, made, tokenizer.eos_token_id)
    return made


def _names(count: int, vocabulary: dict[str, int]) -> list[str]:
    """``<|soft_0|>``, ``<|soft_1|>``...: such as the vocabulary has not."""
    stem = "soft"
    while any(f"<|{stem}_{number}|>" in vocabulary for number in range(count)):
        stem += "_prompt"
    return [f"<|{stem}_{number}|>" for number in range(count)]


# The post-processor -------------------------------------------------------------------------------


def _insert(backend: Any, names: list[str], ids: list[int], position: str, end: str | None) -> None:
    """Put the tokens into the backend's template."""
    state = json.loads(backend.to_str())
    state["post_processor"] = _with_template(state["post_processor"])
    template = _template_in(state["post_processor"])
    assert template is not None
    soft = [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
    for kind in ("single", "pair"):
        pieces = template[kind]
        # What ends a text would stand between a prompt and its answer: runs leave it out as well.
        while end is not None and pieces[-1].get("SpecialToken", {}).get("id") == end:
            pieces = pieces[:-1]
        template[kind] = [*soft, *pieces] if position == "start" else [*pieces, *soft]
    special = template["special_tokens"]
    special |= {n: {"id": n, "ids": [i], "tokens": [n]} for n, i in zip(names, ids, strict=True)}
    backend.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor


def _template_in(processor: dict[str, Any]) -> dict[str, Any] | None:
    if processor["type"] == "TemplateProcessing":
        return processor
    found = [_template_in(part) for part in processor.get("processors", [])]
    return next((template for template in found if template is not None), None)


def _with_template(processor: dict[str, Any] | None) -> dict[str, Any]:
    """The same post-processor, with a template in it."""
    plain: dict[str, Any] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
        "special_tokens": {},
    }
    if processor is None:
        return plain
    kinds = {part["type"] for part in processor.get("processors", [processor])}
    if strange := kinds - {"TemplateProcessing", "ByteLevel"}:
        raise ConfigError(
            f"the model's tokenizer has a post-processor {', '.join(sorted(strange))}, into which "
            "tokens cannot be put"
        )
    if _template_in(processor) is not None:
        return processor
    parts = processor.get("processors", [processor])
    return {"type": "Sequence", "processors": [*parts, plain]}


# The chat template --------------------------------------------------------------------------------


def _insert_in_templates(tokenizer: Any, text: str, position: str) -> bool:
    """Put the tokens into the chat template, or into each of several; whether there is one."""
    found = getattr(tokenizer, "chat_template", None)
    if not found:
        return False
    if isinstance(found, dict):
        tokenizer.chat_template = {k: _in_template(v, text, position) for k, v in found.items()}
    else:
        tokenizer.chat_template = _in_template(found, text, position)
    return True


def _in_template(template: str, text: str, position: str) -> str:
    if position == "start":
        return text + template
    # Jinja drops the newline that a template ends with, but only there.
    template = template.removesuffix("\n")
    return template + "{% if add_generation_prompt %}" + text + "{% endif %}"


# As it is loaded ----------------------------------------------------------------------------------


def _load_as_written(folder: Path) -> None:
    """Have the tokenizer loaded from its file: a model's own class would make the post-processor
    anew."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    for key in ("add_bos_token", "add_eos_token", "auto_map"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check(folder: Path, before: dict[str, list[int]], made: SoftTokens, end: int | None) -> None:
    loaded = AutoTokenizer.from_pretrained(folder)
    for text, ids in before.items():
        while ids and ids[-1] == end:
            ids = ids[:-1]
        wanted = [*made.ids, *ids] if made.position == "start" else [*ids, *made.ids]
        if loaded(text)["input_ids"] != wanted:
            raise RunError(
                f"the tokenizer that was written encodes {text!r} as {loaded(text)['input_ids']} "
                f"instead of {wanted}: this tokenizer cannot be exported to --to vocabulary"
            )
