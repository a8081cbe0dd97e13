"""The small licensed samples that ship with the package: who made them is said beside each."""

from __future__ import annotations

from pathlib import Path

# 20,000 / 500 / 500 German-English pairs: {train,valid,test}.{de,en}, and vocab.{de,en}.
TATOEBA = Path(__file__).parent / "tatoeba-de-en"

# Shakespeare's plays, tokenised: {train,valid,test}.txt, rare words as <unk>.
SHAKESPEARE = Path(__file__).parent / "shakespeare"

# WNUT-17, emerging entities: {train,dev,test}.conll, word TAB tag, IOB2.
WNUT17 = Path(__file__).parent / "wnut17"
