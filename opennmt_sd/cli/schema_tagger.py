"""The former place of ``opennmt_sd.config.tagger``. Deprecated: ends with version 0.4."""

import warnings

from opennmt_sd.config.shared import *  # noqa: F403
from opennmt_sd.config.tagger import *  # noqa: F403

warnings.warn(
    "opennmt_sd.cli.schema_tagger is deprecated and ends with version 0.4 (June 2027): its "
    "classes are in opennmt_sd.config.tagger and opennmt_sd.config.shared",
    DeprecationWarning,
    stacklevel=2,
)
