"""The former place of ``opennmt_sd.config.tagger``; it goes with version 1.0."""

from opennmt_sd.config.tagger import *  # noqa: F403
