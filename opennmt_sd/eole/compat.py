"""What this plugin takes from Eole beyond its public names, and where that was seen.

Eole has no hooks for a plugin's options and modules, so five of its functions are wrapped where
they stand. Each stands in :data:`SEEN` with a fingerprint of its source, and so does what the
wrappers rely on.
"""

from __future__ import annotations

from importlib import import_module

VERSION = "0.6.4"  # of Eole

# module:name of what is wrapped or relied upon, and the fingerprint of its source in VERSION.
SEEN = {
    "eole.train_single:TrainingInitializer._update_config_with_metadata": "2677545044462dd5",
    "eole.train_single:main": "6aef349c8267c3fa",
    "eole.config.run:TrainConfig": "bf716f93a8f265f2",
    "eole.config:recursive_update_dict": "1ec22b3716b01814",
    "eole.config:recursive_model_fields_set": "f3e9a5d53bc202a0",
    "eole.utils.optimizers:Optimizer.from_config": "bac4f8535a3a1159",
    "eole.utils.loss:LossCompute": "a99a5f83b019896d",
    "eole.trainer:build_trainer": "0cb774060eec5707",
    "eole.encoders.rnn_encoder:RNNEncoder": "f345d868160e59a8",
    "eole.decoders.rnn_decoder:RNNDecoderBase": "e7de970afa1d25da",
    "eole.decoders.rnn_decoder:StdRNNDecoder": "b6b1d4f250334a41",
    "eole.decoders.rnn_decoder:InputFeedRNNDecoder": "5a23b9914810911f",
    "eole.modules.stacked_rnn:StackedLSTM": "0f21aa9c612b67f2",
    "eole.modules.stacked_rnn:StackedGRU": "8fef5ad5c51162d0",
    "eole.modules.global_attention:GlobalAttention": "a53f7672aee819c2",
    "eole.modules.embeddings:Embeddings": "51d43ce0d852c97b",
    "eole.models.model:EncoderDecoderModel": "dfc6dfacff6ac098",
    "eole.models.model_saver:TrainingModelSaver": "89a52eeb0deaa67c",
}


class UnknownVersionError(RuntimeError):
    """An Eole that this plugin does not know."""


def check_version() -> None:
    """Refuse an Eole whose functions may be other ones than those this plugin was written for.

    Raises:
        UnknownVersionError: it is not of :data:`VERSION`.
    """
    found = import_module("eole").__version__
    if found != VERSION:
        raise UnknownVersionError(
            f"it knows Eole {VERSION}, and this is {found}: pip install eole=={VERSION}"
        )
