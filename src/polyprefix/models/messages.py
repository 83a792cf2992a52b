"""Messages that torchao shows wherever it is installed, and that are about nothing used here: CUDA
libraries of its own that do not load, and a call that torch has another for. transformers and PEFT
import it, quantised model or not, so this is imported before them."""

from __future__ import annotations

import logging

_UNRELATED = {"torchao": "Failed to load ", "torch.utils._pytree": "register_constant()"}


def _hide(name: str, text: str) -> None:
    logging.getLogger(name).addFilter(lambda record: text not in record.getMessage())


for _name, _text in _UNRELATED.items():
    _hide(_name, _text)
