"""The language model: its data, its models, its task for the trainer."""
