"""No adaptation: the backbone as it is, to compare with."""

from __future__ import annotations

from polyprefix.methods.base import Adapter, MethodConfig, register_method


class NoneConfig(MethodConfig):
    """``none`` has no keys."""


@register_method
class NoAdaptation(Adapter):
    """See the module's text."""

    method = "none"
    title = "No adaptation"
    paper = "baseline"
    Config = NoneConfig
    trains = False

    @classmethod
    def reference_learning_rate(cls, config: NoneConfig) -> float:
        return 0.0

    @classmethod
    def claims_no_op(cls, config: NoneConfig) -> bool:
        return True
