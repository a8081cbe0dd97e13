"""What the plugin takes from OpenNMT-py is still what it was written for."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from opennmt_sd.onmt.compat import SEEN, VERSION, fingerprint


@pytest.mark.parametrize("where", SEEN)
def test_stock_is_as_it_was_seen(plugin: None, where: str) -> None:
    moved = (
        f"OpenNMT-py {version('OpenNMT-py')} has another {where} than {VERSION}, which the plugin "
        "wraps: read it, mend the wrapper where it must be, and note the new fingerprint in SEEN"
    )
    assert fingerprint(where) == SEEN[where], moved
