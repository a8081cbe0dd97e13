"""Entity scores as the official ``conlleval`` counts them, and what kind of errors there are.

Counting is seqeval's, in its default mode (no ``mode="strict"``, no ``scheme``): that one reads
entities by conlleval's rules, also from sequences that break their scheme, where the strict mode
would drop them. Tags of the prefixes B, I and O are counted as conlleval does, to the last digit;
E and S, which the official script knows in part only, close an entity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opennmt_sd.tagger.schemes import Entity, canonical, entities

Tags = Sequence[Sequence[str]]

ERRORS = ("missed", "spurious", "wrong type", "wrong boundary", "wrong both")


@dataclass(frozen=True)
class Score:
    """Percentages of one type, or of all; ``support``: entities in the gold standard."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """All scores of one data set.

    Attributes:
        all: micro-averaged over every entity.
        types: of each type, sorted.
        accuracy: of tags, in percent.
        errors: of each of :data:`ERRORS`, how many.
    """

    all: Score
    types: dict[str, Score]
    accuracy: float
    errors: dict[str, int]

    def __str__(self) -> str:
        """Return a table, and a line of errors."""
        width = max([3, *map(len, self.types)])
        rows = [f"{'':<{width}}  precision  recall     F1  entities"]
        rows += [
            f"{name:<{width}}  {s.precision:9.2f}  {s.recall:6.2f} {s.f1:6.2f}  {s.support:8,}"
            for name, s in [*self.types.items(), ("all", self.all)]
        ]
        errors = ", ".join(f"{count:,} {kind}" for kind, count in self.errors.items())
        return "\n".join([*rows, f"errors: {errors}"])

    def flat(self) -> dict[str, float]:
        """Return what logs show: ``f1``, ``precision``, ``recall``, ``accuracy``, ``f1/PER``"""
        flat = {"f1": self.all.f1, "precision": self.all.precision, "recall": self.all.recall}
        flat["accuracy"] = self.accuracy
        flat.update({f"f1/{name}": score.f1 for name, score in self.types.items()})
        flat.update({f"errors/{kind}": float(count) for kind, count in self.errors.items()})
        return flat


def score(gold: Tags, predicted: Tags) -> Scores:
    """Compare the tags of the same sentences, in one scheme (accuracy compares tag by tag).

    Raises:
        ValueError: another number of sentences, or of words in one.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(predicted)} predicted sentences for {len(gold)} gold ones")
    for number, (g, p) in enumerate(zip(gold, predicted), start=1):
        if len(g) != len(p):
            raise ValueError(f"sentence {number}: {len(p)} predicted tags for {len(g)} words")
    from seqeval.metrics.sequence_labeling import (  # type: ignore[import-untyped]  # no types
        precision_recall_fscore_support as count,
    )

    lists = [canonical(s) for s in gold], [canonical(s) for s in predicted]
    found = [[entities(s) for s in side] for side in lists]
    names = sorted({e.type for side in found for sentence in side for e in sentence})
    # zero_division=0: no entity at all is 0, as conlleval prints it, and no warning.
    per_type = zip(*count(*lists, zero_division=0)) if names else iter(())
    whole = count(*lists, average="micro", zero_division=0) if names else (0.0, 0.0, 0.0, 0)
    words = sum(map(len, gold))
    equal = sum(g == p for gs, ps in zip(*lists) for g, p in zip(gs, ps))
    return Scores(
        all=_score(*whole),
        types={name: _score(*row) for name, row in zip(names, per_type)},
        accuracy=100 * equal / max(words, 1),
        errors=errors(*found),
    )


def _score(precision: float, recall: float, f1: float, support: int) -> Score:
    return Score(100 * float(precision), 100 * float(recall), 100 * float(f1), int(support))


def errors(
    gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> dict[str, int]:
    """Count each wrong entity once.

    A gold entity that was not found is: of the wrong type (its words exactly, another type), of a
    wrong boundary (overlapped by one of its type), wrong in both (overlapped by another type
    only), or missed. A predicted entity that overlaps no gold one is spurious.
    """
    counts = dict.fromkeys(ERRORS, 0)
    for golds, preds in zip(gold, predicted):
        right = set(golds) & set(preds)
        for entity in golds:
            if entity in right:
                continue
            near = [p for p in preds if _overlap(p, entity)]
            if any(p[1:] == entity[1:] for p in near):
                counts["wrong type"] += 1
            elif any(p.type == entity.type for p in near):
                counts["wrong boundary"] += 1
            else:
                counts["wrong both" if near else "missed"] += 1
        counts["spurious"] += sum(not any(_overlap(p, g) for g in golds) for p in preds)
    return counts


def _overlap(a: Entity, b: Entity) -> bool:
    return a.start < b.end and b.start < a.end
