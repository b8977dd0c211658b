"""Solves the head: an ensemble for each set of modalities that an example can have, chosen and calibrated on held-out folds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
from threadpoolctl import threadpool_limits

from mm_keras.model.solved_head import Answer, Kernels
from mm_keras.solving.answers import Chosen, answer_of_each_set, joined_answers, make_answers, patterns_of, prior_answer
from mm_keras.solving.calibration import Calibration, calibrate
from mm_keras.solving.candidates import MOST_EXACT, Candidate, Regressions, choose_landmarks, families_of
from mm_keras.solving.ensemble import choose_ensemble, mean_loss
from mm_keras.solving.rows import Rows
from mm_keras.solving.validation import Validation, answer_logits, calibrate_again, scaled
from tfrecords_tools.progress import progress_bar

_LEAST_ROWS = 20  # examples, or a quarter of them all, that a set of modalities needs for an ensemble of its own
# Landmarks make a model large. So an ensemble with Gaussian kernels or neighbours is chosen only if accuracy or mAP rises by so
# much, or does not fall while the log-loss, which is less noisy, falls by such a share. The last share is enough where the
# ensemble takes the place of one that has landmarks.
_EARNED = 0.003
_EARNED_LOSS = 0.02
_EARNED_LOSS_OF_MORE = 0.005


@dataclasses.dataclass(frozen=True)
class Solution:
    """A solved head.

    Attributes:
        candidates: all candidates.
        chosen: the ensemble of each set of modalities that has enough examples.
        kernels: the Gaussian kernels that were chosen, their landmarks, and neighbours among these.
        answers: the head's answers.
        pattern_of: the number of an answer for each set of modalities, see `SolvedAnswers`.
        held_out: float32 [N, L]: the logits of each example for the modalities that it has, by regressions that did not learn
            from it. An example whose set of modalities is too rare for them has the logits of the prior.
        validated: float32 [V, L]: the head's logits of the validation examples; None without any.
    """

    candidates: Sequence[Candidate]
    chosen: Sequence[Chosen]
    kernels: Kernels
    answers: Sequence[Answer]
    pattern_of: Sequence[int]
    held_out: np.ndarray
    validated: np.ndarray | None


def solve(rows: Rows, seed: int, validation: Validation | None = None) -> Solution:
    """Solves the head for some training examples.

    Args:
        rows: the examples, all of whose numbers are finite.
        seed: another seed draws other landmarks, where there are more examples than landmarks.
        validation: further examples, for calibration alone.
    """
    num_modalities = rows.present.shape[1]
    least = min(_LEAST_ROWS, max(2, len(rows.targets) // 4))
    patterns = [p for p in patterns_of(rows.present) if len(_with_all(rows, p)) >= least]
    landmarks = choose_landmarks(rows, seed)
    # A thread a kernel, and no threads within BLAS: they would wait for each other whenever a core has other work to do.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(_workers(rows)) as pool:
        regressions = Regressions(rows, landmarks)
        candidates = _try_all(rows, patterns, regressions, pool)
        chosen: list[Chosen] = []
        for ensembles in list(pool.map(lambda modalities: _mix(rows, modalities, candidates), patterns)):
            chosen.append(_choose(rows, ensembles, candidates, chosen))
        numbers = sorted({number for choice in chosen for number in choice.shares})
        fitted = dict(zip(numbers, pool.map(lambda number: regressions.fit(candidates[number]), numbers), strict=True))
    kernels, answers = make_answers(rows, chosen, fitted, np.sort(landmarks))
    if validation:
        pairs = [_calibrated_again(*pair, kernels, rows, validation) for pair in zip(chosen, answers, strict=True)]
        chosen, answers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    values = [_value(rows, choice) for choice in chosen]
    answers += joined_answers(answers, values, rows)
    pattern_of = answer_of_each_set(num_modalities, [answer.modalities for answer in answers], values)
    answers.append(prior_answer(rows))
    held_out = np.empty_like(rows.targets)
    answer_numbers = _own_answers(rows.present, pattern_of)
    for number, choice in enumerate(chosen):
        held_out[answer_numbers == number] = choice.held_out[answer_numbers == number]
    held_out[answer_numbers >= len(chosen)] = answers[-1].bias
    validated = _answer(validation, kernels, answers, pattern_of, rows.multi_label) if validation else None
    return Solution(candidates, chosen, kernels, answers, pattern_of, held_out, validated)


def _workers(rows: Rows) -> int:
    """One thread a core, but at most eight; features of many examples take too much memory for more than two."""
    return min(os.cpu_count() or 1, 8 if len(rows.targets) <= MOST_EXACT else 2)


def _try_all(
    rows: Rows, patterns: Sequence[tuple[int, ...]], regressions: Regressions, pool: ThreadPoolExecutor
) -> list[Candidate]:
    """The candidates of all kernels of all sets of modalities, in their order."""
    tasks = [(family, modalities) for modalities in patterns for family in families_of(rows, modalities)]
    futures = [pool.submit(regressions.candidates, family, modalities) for family, modalities in tasks]
    try:
        with progress_bar("solving", "kernels", len(tasks)) as bar:
            for _ in as_completed(futures):
                bar.update(1)
    except BaseException:  # otherwise the pool finishes all tasks before the exception gets through
        for future in futures:
            future.cancel()
        raise
    return [candidate for future in futures for candidate in future.result()]


def score(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray, multi_label: bool) -> float:
    """Accuracy, or for several labels the mean average precision over those that occur; within [0, 1]."""
    if not multi_label:
        return float(np.average(logits.argmax(axis=1) == targets.argmax(axis=1), weights=weights))
    from sklearn.metrics import average_precision_score

    occurring = np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0))
    scores = [average_precision_score(targets[:, label], logits[:, label], sample_weight=weights) for label in occurring]
    return float(np.mean(scores)) if scores else 0.0


def _with_all(rows: Rows, modalities: Sequence[int]) -> np.ndarray:
    return np.flatnonzero(rows.present[:, list(modalities)].all(axis=1))


def _mix(rows: Rows, modalities: tuple[int, ...], candidates: Sequence[Candidate]) -> list[Chosen]:
    """The ensembles for a set of modalities: of linear candidates, with Gaussian kernels, and with neighbours, too."""
    at = _with_all(rows, modalities)
    usable = [number for number, c in enumerate(candidates) if set(c.modalities) <= set(modalities)]
    linear = [number for number in usable if candidates[number].kernel.gamma is None]
    regressions = [number for number in usable if candidates[number].method != "neighbours"]
    ensembles = []
    for numbers in (linear, regressions, usable):
        held_out = [candidates[number].held_out[at] for number in numbers]
        share_of = choose_ensemble(held_out, rows.targets[at], rows.weights[at], rows.multi_label)
        shares = {numbers[index]: share for index, share in share_of.items()}
        ensembles.append(_calibrated(rows, modalities, at, shares, candidates))
    return ensembles


def _choose(rows: Rows, ensembles: Sequence[Chosen], candidates: Sequence[Candidate], earlier: Sequence[Chosen]) -> Chosen:
    """Chooses one of the ensembles for a set of modalities, by the scores of held-out examples.

    It is the ensemble of linear candidates, or one that was chosen for a part of the set, unless one that reads more is better:
    so a fusion cannot lose to its best part. An ensemble with Gaussian kernels or neighbours replaces it if it gains enough.
    """
    linear, *larger = ensembles
    parts = [choice for choice in earlier if set(choice.modalities) < set(linear.modalities)]
    options = [*(_calibrated(rows, linear.modalities, linear.rows, choice.shares, candidates) for choice in parts), linear]
    best = max(options, key=lambda option: _value(rows, option))
    for option in larger:
        least = _EARNED_LOSS_OF_MORE if any(candidates[n].kernel.gamma is not None for n in best.shares) else _EARNED_LOSS
        gain = _value(rows, option) - _value(rows, best)
        if gain >= _EARNED or (gain >= 0 and _loss(rows, option) <= _loss(rows, best) * (1 - least)):
            best = option
    return best


def _calibrated(
    rows: Rows, modalities: tuple[int, ...], at: np.ndarray, shares: Mapping[int, float], candidates: Sequence[Candidate]
) -> Chosen:
    mixed = sum(share * candidates[number].held_out for number, share in shares.items())
    calibration = calibrate(mixed[at], rows.targets[at], rows.weights[at], rows.multi_label)
    return Chosen(modalities, shares, calibration, calibration(mixed), at)


def _value(rows: Rows, chosen: Chosen) -> float:
    at = chosen.rows
    return score(chosen.held_out[at], rows.targets[at], rows.weights[at], rows.multi_label)


def _loss(rows: Rows, chosen: Chosen) -> float:
    at = chosen.rows
    return mean_loss(chosen.held_out[at], rows.targets[at], rows.weights[at], rows.multi_label)


def _calibrated_again(
    chosen: Chosen, answer: Answer, kernels: Kernels, rows: Rows, validation: Validation
) -> tuple[Chosen, Answer]:
    """The choice and the answer of a set of modalities, calibrated on the validation examples, too."""
    at = chosen.rows
    held_out = chosen.held_out[at], rows.targets[at], rows.weights[at]
    correction = calibrate_again(answer, kernels, held_out, validation, rows.multi_label)
    if correction is None:
        return chosen, answer
    combined = Calibration(chosen.calibration.scale * correction.scale, correction(chosen.calibration.offset))
    return dataclasses.replace(chosen, calibration=combined, held_out=correction(chosen.held_out)), scaled(answer, correction)


def _own_answers(present: np.ndarray, pattern_of: Sequence[int]) -> np.ndarray:
    """The number of the answer, int [N], that examples with the modalities `present` bool [N, M] get."""
    return np.array(pattern_of)[present @ (1 << np.arange(present.shape[1]))]


def _answer(
    validation: Validation, kernels: Kernels, answers: Sequence[Answer], pattern_of: Sequence[int], multi_label: bool
) -> np.ndarray:
    """The head's logits of each validation example, float32 [V, L]."""
    logits = np.empty_like(validation.targets)
    answer_numbers = _own_answers(validation.present, pattern_of)
    for number in np.unique(answer_numbers):
        at = np.flatnonzero(answer_numbers == number)
        logits[at] = answer_logits(answers[number], kernels, validation.blocks, at, multi_label)
    return logits
