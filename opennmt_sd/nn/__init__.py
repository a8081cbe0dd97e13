"""Modules: drop-ins for torch's own that take a dropout pattern."""

from opennmt_sd.nn.cell import StructuredLSTMCell
from opennmt_sd.nn.conversion import convert, revert
from opennmt_sd.nn.dropout import StructuredDropout
from opennmt_sd.nn.gru import StructuredGRU
from opennmt_sd.nn.gru_cell import StructuredGRUCell
from opennmt_sd.nn.linear import MaskedLinear
from opennmt_sd.nn.lstm import StructuredLSTM
from opennmt_sd.nn.report import ConversionReport, conversion_report

__all__ = [
    "ConversionReport",
    "MaskedLinear",
    "StructuredDropout",
    "StructuredGRU",
    "StructuredGRUCell",
    "StructuredLSTM",
    "StructuredLSTMCell",
    "conversion_report",
    "convert",
    "revert",
]
