"""What this plugin takes from OpenNMT-py and argparse beyond their public names, and where that
was seen.

OpenNMT-py has no hooks for most of what a plugin needs, so some of its functions are wrapped where
they stand. Each stands in :data:`SEEN` with a fingerprint of its source: a release that moves one
of them fails a test, instead of translating wrongly.
"""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Container
from typing import Any

VERSION = "3.5.1"  # of OpenNMT-py, the last release

# module:name of what is wrapped or relied upon, and the fingerprint of its source in VERSION.
SEEN = {
    "onmt.opts:model_opts": "80c54199974d836d",
    "onmt.utils.parse:ArgumentParser.parse_known_args": "3512ca954757bb1f",
    "onmt.model_builder:build_model": "cdbaa8ac66ad1309",
    "onmt.model_builder:load_test_model": "8f40e940beed2c63",
    "onmt.decoders.decoder:RNNDecoderBase.forward": "54ff3c2cf7fcdf5d",
    "onmt.utils.loss:LossCompute.from_opts": "f5fc217cc18084df",
    "onmt.utils.optimizers:build_torch_optimizer": "1e0344fd58db1a8c",
    "onmt.models.model:BaseModel.load_state_dict": "139b9b67a02c4e57",
    "onmt.translate.translator:Translator.translate_batch": "ee2e336d29f89014",
    "onmt.translate.translator:Translator._translate_batch_with_strategy": "40b7c96228e75466",
    "onmt.translate.translator:Translator._score_target": "b6cd462d9a819242",
    "onmt.translate.translator:Inference._decode_and_generate": "6193776f64f084ea",
    "onmt.translate.translator:Inference._translate": "2fcf3143a75dc918",
    "onmt.translate.translation:TranslationBuilder._build_target_tokens": "335ed9e8256d8b06",
    "onmt.translate.beam_search:BeamSearchBase": "c40eea36581f8e22",
    "onmt.translate.greedy_search:GreedySearch": "cdc744ef00fb8d71",
    "onmt.translate.decode_strategy:DecodeStrategy": "f6e3cc040a45a741",
    "onmt.translate.penalties:PenaltyBuilder": "55c946f9592812f7",
    "onmt.inputters.dynamic_iterator:DynamicDatasetIter._tuple_to_json_with_tokIDs": "43ea8922a1c028d8",  # noqa: E501
    "onmt.inputters.text_utils:parse_features": "9ebdc6ec083108ad",
    "onmt.inputters.text_utils:textbatch_to_tensor": "ab213a433bbc989a",
    "onmt.inputters.text_utils:_addcopykeys": "386d3403ccabc17b",
    "onmt.inputters.text_utils:process": "3246424cfb5a5418",
    "onmt.inference_engine:InferenceEngine.infer_list": "037da87bb3beacaa",
    "onmt.transforms.misc:FilterTooLongTransform.apply": "a08f898fa47553ae",
    "onmt.modules.copy_generator:CopyGenerator": "c75d2e7bd4001dbe",
    "onmt.modules.copy_generator:CopyGeneratorLoss": "fe77a64ae7a701d0",
    "onmt.utils.loss:LossCompute._compute_coverage_loss": "c648976ba34c3698",
    "onmt.utils.loss:LossCompute.forward": "df496dc3fe738897",
    "onmt.utils.parse:ArgumentParser.validate_train_opts": "7d928c9ce22d2a2e",
    "onmt.utils.parse:ArgumentParser.validate_prepare_opts": "8dd01625b9150509",
    "onmt.utils.parse:ArgumentParser.validate_model_opts": "40e2847fe806b836",
    "onmt.utils.parse:ArgumentParser.validate_translate_opts_dynamic": "6343f512ec08b68e",
    "onmt.inputters.text_corpus:ParallelCorpus.load": "de0bbd9596ee169c",
    "onmt.inputters.inputter:_read_vocab_file": "1f873f43cf8af540",
    "onmt.inputters.dynamic_iterator:build_dynamic_dataset_iter": "8f33902cd3bdbaed",
    "onmt.modules.embeddings:convert_to_torch_tensor": "168d4464aab03913",
    "onmt.modules.embeddings:Embeddings.load_pretrained_vectors": "387d6958bc1897a7",
    "onmt.models.model_saver:load_checkpoint": "3813df7bf683a64b",
    "onmt.models.model_saver:ModelSaver": "4854606463d71cb3",
    "onmt.bin.average_models:average_models": "d94f490daa544f52",
    "onmt.bin.release_model:main": "45643e1d4a527db5",
}


# ---------------------------------------------------------------- argparse, Python 3.10 to 3.12


def options_of(parser: ArgumentParser) -> list[Action]:
    """Return the options that a parser knows."""
    return list(parser._actions)


def option_named(parser: ArgumentParser, spelling: str) -> Action | None:
    """Return the option that a parser knows by this spelling (``--config``), if it does."""
    return parser._option_string_actions.get(spelling)


def add_spelling(parser: ArgumentParser, option: Action, spelling: str) -> None:
    """Let a parser take one more spelling for an option."""
    option.option_strings = [*option.option_strings, spelling]
    parser._option_string_actions[spelling] = option


def never_guess(parser: ArgumentParser, names: Container[str]) -> None:
    """Take options, by the names of their values, out of a parser's guessing of abbreviations."""
    guess = parser._get_option_tuples

    def guess_others(text: str) -> list[Any]:
        return [found for found in guess(text) if found[0].dest not in names]

    parser._get_option_tuples = guess_others  # type: ignore[assignment,method-assign]
