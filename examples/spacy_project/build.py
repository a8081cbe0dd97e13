"""Put a trained tagger into a spaCy pipeline and save it: python build.py TAGGER PIPELINE."""

import sys

import spacy


def build(tagger: str, pipeline: str) -> None:
    """Save a pipeline whose names a rule finds first, and the tagger where the rule has none."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    rules = nlp.add_pipe("entity_ruler")
    rules.add_patterns([{"label": "product", "pattern": "OpenNMT"}])
    nlp.add_pipe("structured_ner", config={"path": tagger})
    nlp.to_disk(pipeline)
    doc = nlp("Barack Obama tried OpenNMT in New York.")
    print([(entity.text, entity.label_) for entity in doc.ents])


if __name__ == "__main__":
    build(*sys.argv[1:])
