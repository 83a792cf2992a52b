"""Scores of choices, less a model's preference for some choices whatever the question is.

A model asked without training may say "yes" or "A" to nearly everything, and how much so differs by
language. Batch calibration (Zhou et al. 2024, "Batch Calibration: Rethinking Calibration for
In-Context Learning and Prompt Engineering", ICLR, https://arxiv.org/abs/2309.17249) takes the mean
probability of each choice over the questions themselves for that preference, and divides by it. It
needs no labels and no further forward pass.

Choices are matched by their place among the task's labels. Where the same labels or letters are
offered every time, the preference for a label is taken out; where every example has choices of its
own (XCOPA's two sentences), a preference for a place, which there is only if the prompt shows them
in order: otherwise the two scores differ by chance.

What it supposes is that the labels are about equally frequent, since it makes the choices so (see
:func:`calibrate`): where they are not, right answers may be lost. So a calibrated score stands
beside the raw one, and never in its place; no checkpoint is chosen by it. It is of a set of
examples, here all test examples of one language: a single answer has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def calibrate(logprobs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Batch calibration of the choices' log-probabilities.

    With p[i, j] the probability of choice j among the choices of example i, the calibrated score is
    log p[i, j] - log(mean over i of p[i, j]); the largest of an example's is its calibrated answer.

    What holds, for any input:

    * The mean over the examples of exp(score) is 1 for every choice.
    * A constant added to an example's log-probabilities changes nothing (of the whole text's
      probability only what tells the choices apart counts); choices in another order give the same
      scores in that order.
    * A bias b[j], added to choice j of every example, moves all examples' differences between two
      choices by the same amount. With Z[i] the sum over j of p[i, j] exp(b[j]), that is at most
      log(max Z / min Z), so never more than max b - min b, and nothing at all where the examples
      agree about p. (Without calibration it is b[j] - b[k].) So of a strong bias most is taken out,
      not all.

    Args:
        logprobs: ``[N, C]`` natural logarithms, of N examples of one language and C choices.

    Returns:
        ``[N, C]`` scores in the same order. Those of a single example are all 0.

    Raises:
        ValueError: no examples, not the same choices in every example, or a value is not finite.
    """
    if len({len(values) for values in logprobs}) != 1:
        raise ValueError("calibration needs examples, all with the same number of choices")
    scores = np.asarray(logprobs, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("calibration needs finite log-probabilities")
    scores = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    prior = np.logaddexp.reduce(scores, axis=0) - np.log(len(scores))
    return np.asarray(scores - prior, dtype=np.float64)
