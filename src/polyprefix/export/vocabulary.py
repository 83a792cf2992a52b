"""``--to vocabulary``: a model of which a soft prompt is part, for servers that know nothing of it.

The P vectors become rows of the input embedding, and their tokens stand in every text that the
tokenizer encodes or its chat template renders (:mod:`polyprefix.export.soft_tokens`).

The output head gets P rows too, and no finite row makes a token impossible to write. Each new row
is a copy of the row of one token t of the vocabulary, so that, whatever the model reads, a soft
token has exactly the logit of t. Greedy decoding is unchanged, since t has the lower id. All other
logits are what they were, and probabilities are those of the run times 1 / (1 + P p(t)). So t is a
special token that no text holds, such as padding: of those the one whose largest probability over
texts of random tokens is least, or of all tokens where there are none. A head that is tied to the
input embedding is untied first: tied, the vectors of the prompt, which are larger than tokens,
would be written. ``generation_config.json`` suppresses the tokens as well, which transformers
obeys: there not even P p(t) is lost.

llama.cpp has no post-processor, and its converter (``convert_hf_to_gguf.py``) goes wrong over this
one: it knows a tokenizer by what it encodes, takes a last token of the template for the end of a
text and a first one for its begin. So there is ``gguf``, which leaves the post-processor alone;
prompts and the chat template hold the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyprefix.config import ConfigError, RunError
from polyprefix.export.base import Source, Target, register_target
from polyprefix.export.merged import loaded_model, save_model
from polyprefix.export.soft_tokens import SoftTokens, add_soft_tokens

TEXTS, TOKENS = 16, 32
"""Number and length of the texts of random tokens that t is chosen by."""


def least_written(
    model: Any, soft: torch.Tensor, vocabulary: int, among: Sequence[int] = ()
) -> tuple[int, float]:
    """The token whose largest probability after any token of some texts is least, and that
    probability.

    Args:
        model: computes in float32.
        soft: ``[P, d]``, as the embedding module returns tokens; stands before the texts.
        vocabulary: ids up to here are tokens.
        among: candidates, by default all.
    """
    generator = torch.Generator().manual_seed(0)
    largest = torch.full((vocabulary,), -torch.inf)
    room = getattr(model.config, "max_position_embeddings", None) or TOKENS + len(soft)
    with torch.no_grad():
        for _ in range(TEXTS):
            length = max(1, min(TOKENS, room - len(soft)))
            ids = torch.randint(vocabulary, (length,), generator=generator)
            inputs = torch.cat([soft, model.get_input_embeddings()(ids)])[None]
            logits = model(inputs_embeds=inputs).logits[0, :, :vocabulary].float()
            largest = torch.maximum(largest, logits.log_softmax(-1).amax(0))
    candidates = torch.tensor(list(among) or range(vocabulary))
    token = int(candidates[largest[candidates].argmin()])
    return token, float(largest[token].exp())


def _special(model: Any, tokenizer: Any, vocabulary: int) -> list[int]:
    """Special tokens but for those that end a text, which models do write."""
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    added = tokenizer.added_tokens_decoder.items()
    found = {i for i, token in added if token.special} | set(tokenizer.all_special_ids)
    return sorted(i for i in found if i not in ends and i < vocabulary)


def add_rows(model: Any, soft: torch.Tensor, ids: Sequence[int], as_token: int) -> None:
    """Make soft tokens part of a model.

    Args:
        model: a causal language model of transformers; its head is untied.
        soft: ``[P, d]``, as the embedding module is to return them.
        ids: P ids that no token has.
        as_token: of the vocabulary, whose logit each of them gets.

    Raises:
        ConfigError: the model's embedding is not a table of rows.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone())
    model.config.tie_word_embeddings = False
    if max(ids) >= len(embedding.weight):
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    place = torch.tensor(list(ids))
    scale = float(getattr(embedding, "embed_scale", 1.0))  # Gemma 3, XGLM
    with torch.no_grad():
        embedding.weight[place] = soft.to(embedding.weight) / scale
        head.weight[place] = head.weight[as_token].clone()
        if getattr(head, "bias", None) is not None:
            head.bias[place] = head.bias[as_token].clone()
        back = embedding(place)
    if not torch.allclose(back, soft.to(back), atol=1e-4, rtol=1e-4):
        raise ConfigError("the model's embedding does not return its rows: tokens cannot be added")


@register_target
class Vocabulary(Target):
    """See the module's text."""

    name = "vocabulary"
    options = ("dtype", "gguf")

    def refuse(self, source: Source) -> None:
        method = source.adapter.method
        if not source.adapter.num_soft_tokens:
            hint = {"lora": "merged", "full": "merged"}.get(method)
            raise ConfigError(
                f"method {method!r} has no soft tokens that a vocabulary could hold: only runs of "
                f"'soft_prompt' can be exported{f'; --to {hint} makes a model of it' * bool(hint)}"
            )

    def write(self, source: Source, folder: Path) -> list[str]:
        model, tokenizer = source.with_trained_backbone()
        soft = source.adapter.soft_tokens().detach().float()
        before, after = source.adapter.prompt_ids()
        if before and after:
            raise ConfigError("soft tokens on both sides of the text cannot be exported")
        known = max(tokenizer.get_vocab().values()) + 1
        rows = len(model.get_input_embeddings().weight)
        if known > rows:
            raise RunError(f"the tokenizer has {known} ids, the model {rows} rows")
        special = _special(model, tokenizer, known)
        gguf = bool(source.options.get("gguf"))
        made = add_soft_tokens(
            tokenizer, len(soft), "start" if before else "end", folder, processed=not gguf
        )
        token, share = least_written(model, soft, known, special)
        tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
        add_rows(model, soft, made.ids, token)
        settings = model.generation_config
        settings.suppress_tokens = [*(settings.suppress_tokens or []), *made.ids]
        notes = [save_model(model, None, source.dtype, folder)]
        notes += _where(made, tokenizer, gguf=gguf)
        notes.append(
            f"as outputs they have the logit of {tokenizer.convert_ids_to_tokens(token)!r}, whose "
            f"largest probability in {TEXTS} texts of random tokens was {share:.1g}; transformers "
            "suppresses them. Elsewhere, where answers are sampled, give them a logit bias of -100"
        )
        if tied:
            notes.append("the output head was tied to the input embedding and is a copy of it now")
        return notes

    def logits(self, source: Source, folder: Path, texts: Sequence[str]) -> list[torch.Tensor]:
        model, tokenizer = loaded_model(folder)
        first, last = source.adapter.prompt_ids()
        known = max(source.model.backbone.tokenizer.get_vocab().values()) + 1
        found = []
        with torch.no_grad():
            for text in texts:
                ids = tokenizer(text)["input_ids"]
                if source.options.get("gguf"):  # as a prompt that holds them is encoded
                    soft = tokenizer.get_added_vocab()
                    new = sorted(i for i in soft.values() if i >= known)
                    ids = [*new[: len(first)], *ids, *new[: len(last)]]
                output = model(torch.tensor([ids]))
                found.append(output.logits[0, len(first) :, :known])
        return found


def _where(made: SoftTokens, tokenizer: Any, *, gguf: bool) -> list[str]:
    """What the user has to know of where the tokens stand."""
    named = f"tokens {made.names[0]} to {made.names[-1]} (ids {made.ids[0]} to {made.ids[-1]})"
    chat = "; the chat template holds them" if made.templates else "; there is no chat template"
    if not gguf:
        return [
            f"{named} stand at the {made.position} of every text that is encoded with special "
            f"tokens{chat}"
        ]
    begin = tokenizer.bos_token
    notes = [f"{named} have to stand at the {made.position} of every prompt{chat}"]
    if (
        made.position == "start"
        and begin is not None
        and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    ):
        notes.append(
            f"the run has them before {begin}, and llama.cpp puts {begin} before all: run it with "
            "--override-kv tokenizer.ggml.add_bos_token=bool:false, or say so in the file with "
            "gguf-set-metadata FILE tokenizer.ggml.add_bos_token '' --force (an empty text is "
            f"false), and let prompts begin with the tokens and {begin}"
        )
    return notes
