"""Moved to `_autoload`; environments that were installed before the move still name this."""

from opennmt_sd._autoload import install

__all__ = ["install"]
