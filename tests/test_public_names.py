"""What was public stays importable from the same place, or warns of its end first."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch

# Of commit 9b6c012, the first whose names others used.
NAMES = {
    "opennmt_sd": "DropoutPattern KeepMask KeepSets MaskedLinear StructuredDropout StructuredLSTM "
    "StructuredLSTMCell __version__ convert ops revert",
    "opennmt_sd.nn": "MaskedLinear StructuredDropout StructuredLSTM StructuredLSTMCell convert "
    "revert",
    "opennmt_sd.ops": "attend_step engine_for forced has_kernels lstm lstm_gates lstm_layer "
    "masked_linear masked_linear_step prepare prepare_memory projected_nll use worth_compacting",
    "opennmt_sd.onmt": "register",
    "opennmt_sd.lm": "Corpus CorpusError LMTask LanguageModel ReferenceLanguageModel Vocabulary "
    "sample",
    "opennmt_sd.cli.schema": "PatternConfig ScheduleConfig OptimConfig TrainerConfig "
    "LMDropoutConfig LMModelConfig PlacesConfig LMDataConfig SampleConfig RunConfig LMConfig "
    "register",
    "opennmt_sd.cli.schema_tagger": "TaggerDropoutConfig TaggerModelConfig TaggerDataConfig "
    "PredictConfig TaggerRunConfig",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_of_before_are_there(module: str) -> None:
    if "cli" in module:
        pytest.importorskip("omegaconf", reason="hydra-core is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_what_ends_says_when_and_what_to_use() -> None:
    from opennmt_sd import ops

    x = torch.zeros(4000, 100)
    with pytest.warns(DeprecationWarning, match=r"ends with version 0.4 .*: use leaves_out"):
        assert ops.worth_compacting(x, 400) is ops.leaves_out(x, 4000 * 100 * 400)
    pytest.importorskip("omegaconf", reason="hydra-core is not installed")
    for name in ("schema", "schema_tagger"):
        module = importlib.import_module(f"opennmt_sd.cli.{name}")
        with pytest.warns(DeprecationWarning, match=r"ends with version 0.4 .*config\.shared"):
            importlib.reload(module)
