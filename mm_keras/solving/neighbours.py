"""Votes of the nearest examples, and the logits that follow from them."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Votes:
    """The votes of examples for the labels of others that are near them.

    The nearest example has one vote; each other one has the part of a vote that its kernel is of the nearest one's kernel. So
    the nearest one decides how far others may be away and still count. This is a kernel regression (Nadaraya, "On Estimating
    Regression", 1964, equation 2) in which the prior has votes, too.

    Attributes:
        yes: float32 [n, L], the votes for each label.
        total: float32 [n, 1], all votes; 0 where no example votes.
        prior: float32 [L], the share of each label among all examples, within (0, 1).
        multi_label: whether labels are independent of each other.
    """

    yes: np.ndarray
    total: np.ndarray
    prior: np.ndarray
    multi_label: bool

    @classmethod
    def of(cls, exponents: np.ndarray, targets: np.ndarray, voters: np.ndarray, prior: np.ndarray, multi_label: bool) -> Votes:
        """Counts the votes.

        Args:
            exponents: float32 [n, K], see `Similarities.exponents`; -inf for an example that does not vote. It is overwritten.
            targets: 0 and 1, float32 [K, L], the labels of those who vote.
            voters: float32 [K], the weight of each one's vote.
            prior, multi_label: see the attributes.
        """
        nearest = exponents.max(axis=1, keepdims=True)
        exponents -= np.where(np.isfinite(nearest), nearest, 0)
        votes = np.exp(exponents, out=exponents)
        votes *= voters
        return cls(votes @ targets, votes.sum(axis=1, keepdims=True), prior, multi_label)

    def logits(self, pull: float) -> np.ndarray:
        """float32 [n, L]: logarithms of shares, or log-odds if multi-label, with `pull` further votes from the prior."""
        yes = np.log(self.yes + pull * self.prior)
        if not self.multi_label:
            return yes - np.log(self.total + pull)
        return yes - np.log(np.maximum(self.total - self.yes, 0) + pull * (1 - self.prior))
