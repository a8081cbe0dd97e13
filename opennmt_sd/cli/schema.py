"""The former place of ``opennmt_sd.config.lm``; it goes with version 1.0."""

from opennmt_sd.config.lm import *  # noqa: F403
