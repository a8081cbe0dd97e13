"""Configurations that ship with the package (also reachable as `opennmt_sd/conf`)."""
