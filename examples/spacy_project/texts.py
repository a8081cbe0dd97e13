"""Write a few texts with categories for spacy train: python texts.py FILE."""

import sys

import spacy
from spacy.tokens import DocBin

TEXTS = (
    ("Barack Obama flew to Paris.", "travel"),
    ("We took the train from Berlin to Vienna.", "travel"),
    ("The new phone from Apple is out.", "things"),
    ("I bought a camera and a bag.", "things"),
)


def main(path: str) -> None:
    """Write them, in spaCy's own format."""
    nlp = spacy.blank("en")
    texts = DocBin()
    for text, category in TEXTS:
        doc = nlp(text)
        doc.cats = {name: float(name == category) for name in ("travel", "things")}
        texts.add(doc)
    texts.to_disk(path)


if __name__ == "__main__":
    main(sys.argv[1])
