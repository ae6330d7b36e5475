"""Probes of releases: they measure a set of rows, not a model."""
