"""How the plugin gets into OpenNMT-py: two registries and a few wrapped functions.

This may run while ``onmt`` is still half imported (the autoload calls it as soon as
``onmt.model_builder`` has been executed), hence the two rules here: modules are fetched by their
full name, never as attributes of ``onmt``; and the encoder and the decoder are imported when a
model is built, since they import onmt in turn.
"""

from __future__ import annotations

import functools
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from typing import Any

from opennmt_sd._autoload import hush
from opennmt_sd.onmt.checkpoint import CHOICES, allow_namespace
from opennmt_sd.onmt.command_checks import register_checks
from opennmt_sd.onmt.corpora import register_corpora
from opennmt_sd.onmt.input_faults import vector_size_faults
from opennmt_sd.onmt.kept_options import kept_options
from opennmt_sd.onmt.loading import register_loading
from opennmt_sd.onmt.names import (
    DECODERS,
    ENCODERS,
    has_our_decoder,
    has_our_encoder,
    is_ours,
)
from opennmt_sd.onmt.options import add_options
from opennmt_sd.onmt.refusals import check_training
from opennmt_sd.onmt.translation import register_translation
from opennmt_sd.onmt.weights import kept_weights
from opennmt_sd.ops import calibration
from opennmt_sd.seq2seq.dropout_mixin import DropoutMixin
from opennmt_sd.seq2seq.dropout_plan import DropoutPlan
from opennmt_sd.seq2seq.dropout_schedule import Schedule, next_step
from opennmt_sd.seq2seq.refusals import UnsupportedOptionsError
from opennmt_sd.seq2seq.wrapping import wrap

_Function = Callable[..., Any]


def register_plugin() -> None:
    """Register all of it; see :func:`opennmt_sd.onmt.register`."""
    hush()
    import_module("onmt.model_builder")  # with autoload on, this may come back here: no harm
    allow_namespace()
    _register_types()
    opts, builder = import_module("onmt.opts"), import_module("onmt.model_builder")
    wrap(opts, "model_opts", _with_options)
    register_checks()
    register_loading()
    register_corpora()
    wrap(builder, "build_model", _with_plan)
    register_translation()


def _register_types() -> None:
    # `from onmt.encoders import ...` finds a module that is not yet an attribute of `onmt`.
    from onmt.decoders import register_decoder, str2dec
    from onmt.decoders.decoder import DecoderBase
    from onmt.encoders import register_encoder, str2enc
    from onmt.encoders.encoder import EncoderBase

    class SdEncoder(EncoderBase):
        """Stands in the registry; building imports the real one."""

        @classmethod
        def from_opt(cls, opt: Namespace, embeddings: Any) -> Any:
            from opennmt_sd.onmt.encoder import StructuredRNNEncoder

            return StructuredRNNEncoder.from_opt(opt, embeddings)

    class SdDecoder(DecoderBase):
        """Stands in the registry; building imports the real one."""

        @classmethod
        def from_opt(cls, opt: Namespace, embeddings: Any) -> Any:
            from opennmt_sd.onmt.decoder import StructuredRNNDecoder

            return StructuredRNNDecoder.from_opt(opt, embeddings)

    for name in ENCODERS.keys() - str2enc:
        register_encoder(name)(SdEncoder)
    for name in DECODERS.keys() - str2dec:
        register_decoder(name)(SdDecoder)


def _with_options(model_opts: _Function) -> _Function:
    """Wrap `onmt.opts.model_opts`: the options of a model, for --help, YAML and checkpoints."""

    @functools.wraps(model_opts)
    def wrapped(parser: Any) -> None:
        model_opts(parser)
        add_options(parser)

    return wrapped


def _with_plan(build_model: _Function) -> _Function:
    """Wrap `build_model`, of training alone: checks, a resumed run's schedule, the log line."""

    @functools.wraps(build_model)
    def wrapped(
        model_opt: Namespace, opt: Namespace, vocabs: Any, checkpoint: Any, device_id: int
    ) -> Any:
        if not (is_ours(model_opt) or is_ours(opt)):
            return build_model(model_opt, opt, vocabs, checkpoint, device_id)
        check_training(model_opt, opt)
        # Only now: their modules are half imported when this plugin is.
        wrap(import_module("onmt.utils.loss").LossCompute, "from_opts", _with_our_loss)
        wrap(import_module("onmt.utils.optimizers"), "build_torch_optimizer", _with_our_optimizer)
        faults = [] if checkpoint else [*vector_size_faults(model_opt, vocabs)]
        if faults:
            raise UnsupportedOptionsError(faults)
        _multiply_as_told(model_opt, opt)
        step = next_step(checkpoint, opt)  # before stock empties the checkpoint
        _tell_of_a_new_optimizer(checkpoint, opt)
        calibration.take((checkpoint or {}).get(CHOICES))
        model = build_model(model_opt, opt, vocabs, checkpoint, device_id)
        _follow_schedule(model, model_opt, opt, step)
        return model

    return wrapped


def _tell_of_a_new_optimizer(checkpoint: Any, opt: Namespace) -> None:
    from onmt.utils.logging import logger

    stateless = checkpoint is not None and checkpoint.get("optim", True) is None
    if stateless and opt.reset_optim != "all":
        logger.warning(
            "opennmt_sd: train_from %s has no state of an optimizer (it was released or averaged): "
            "training begins at step 1, with a new one",
            opt.train_from,
        )


def _multiply_as_told(model_opt: Namespace, opt: Namespace) -> None:
    """Set torch's precision of float32 products: this run's, or the one of the checkpoint."""
    import torch

    value = opt.sd_matmul_precision or model_opt.sd_matmul_precision
    model_opt.sd_matmul_precision = opt.sd_matmul_precision = value
    if value:
        torch.set_float32_matmul_precision(value)


def _follow_schedule(model: Any, model_opt: Namespace, opt: Namespace, step: int) -> None:
    from onmt.utils.logging import logger

    schedule = Schedule.of(model_opt)
    rate = schedule.rate_at(step)
    attention = schedule.attention_rate_at(step)
    if (rate, attention) != (schedule.dropout[0], schedule.attention_dropout[0]):
        model.update_dropout(rate, attention)
    kept, weights = kept_options(model_opt, opt), kept_weights(model_opt, opt)
    schedule.hand_to(opt)
    if weights:
        logger.warning(
            "opennmt_sd: the checkpoint's weights are of %s; another model begins without "
            "train_from",
            ", ".join(weights),
        )
    if kept:
        logger.warning(
            "opennmt_sd: kept from the checkpoint: %s; %s--override_opts would take this run's",
            ", ".join(kept),
            "of a model with its weights " if weights else "",
        )
    if rate != schedule.dropout[0]:
        logger.info("opennmt_sd: step %d resumes the schedule of dropout: %s", step, schedule)
    logger.info("opennmt_sd: %s", _summary(model, model_opt, rate))


def _summary(model: Any, model_opt: Namespace, rate: float) -> str:
    """Write the one line at the start of training."""
    from opennmt_sd.nn.precision import engine_of

    plan = DropoutPlan.from_opt(model_opt)
    plan.follow(rate)
    ours = (("encoder", has_our_encoder(model_opt)), ("decoder", has_our_decoder(model_opt)))
    engine = engine_of(model)
    sides = tuple(side for side, is_ours in ours if is_ours)
    return f"dropout {plan.describe(sides)}; engine {engine}"


def _with_our_loss(from_opts: _Function) -> _Function:
    """Wrap `LossCompute.from_opts`: behind our decoder the generator leaves out what is dropped."""

    @functools.wraps(from_opts)
    def wrapped(cls: Any, opt: Namespace, model: Any, *args: Any, **kwargs: Any) -> Any:
        from onmt.decoders.decoder import InputFeedRNNDecoder

        from opennmt_sd.onmt.copying import CopyLossCompute
        from opennmt_sd.onmt.loss import StructuredLossCompute

        loss = from_opts(cls, opt, model, *args, **kwargs)
        decoder = getattr(model, "decoder", None)
        ours = any(isinstance(part, DropoutMixin) for part in model.children())
        if opt.copy_attn and ours and isinstance(decoder, InputFeedRNNDecoder):
            return CopyLossCompute.take_over(
                loss, by_length=getattr(opt, "copy_loss_by_seqlength", False)
            )
        return StructuredLossCompute.take_over(loss) if isinstance(decoder, DropoutMixin) else loss

    return wrapped


def _with_our_optimizer(build: _Function) -> _Function:
    """Wrap `build_torch_optimizer`, for a model with a part of ours: Adam in fewer passes, an
    Adafactor that stays finite where units are dropped.

    Stock's Adafactor estimates a squared gradient by a row's sum times a column's, each at least
    its `eps1` of 1e-30. Where both are 0 (an unseen word, a unit dropped at every step) the product
    is 0 in float32, and 0 divided by 0 makes the weights NaN from the first update on.
    """

    @functools.wraps(build)
    def wrapped(model: Any, opt: Namespace) -> Any:
        from opennmt_sd.seq2seq.fused_adam import FusedAdam

        optimizer = build(model, opt)
        if not any(isinstance(part, DropoutMixin) for part in model.children()):
            return optimizer
        if opt.optim == "adafactor":
            for group in optimizer.param_groups:
                group["eps1"] = max(group["eps1"], 1e-18)  # its square is a float32
        return FusedAdam.take_over(optimizer)

    return wrapped
