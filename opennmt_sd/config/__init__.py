"""The trainers' configurations: a key's type, default, range and meaning, said once.

A schema (``shared.py``, ``lm.py``, ``tagger.py``) declares its keys; validation (``checks.py``),
the texts for what Hydra refuses (``composing.py``) and ``--help`` (``help.py``) read it. Only
``checks.py`` imports torch: ``--help`` and the shell's completion answer at once.
"""
