"""Monitors: they watch all probes over a whole run and say what moved for the worse."""
