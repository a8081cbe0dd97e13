"""The language model: its data, its models, its task for the trainer."""

from opennmt_sd.lm.data import Corpus
from opennmt_sd.lm.model import LanguageModel
from opennmt_sd.lm.reference import ReferenceLanguageModel
from opennmt_sd.lm.sample import sample
from opennmt_sd.lm.task import LMTask
from opennmt_sd.lm.text import CorpusError, Reading
from opennmt_sd.lm.vocabulary import Vocabulary

__all__ = [
    "Corpus",
    "CorpusError",
    "LMTask",
    "LanguageModel",
    "Reading",
    "ReferenceLanguageModel",
    "Vocabulary",
    "sample",
]
