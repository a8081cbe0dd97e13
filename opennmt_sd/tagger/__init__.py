"""The tagger: its data, its models, its scores, and the spaCy component."""
