"""Reads the record of a run: summary and verdict, lineage, and the HTML report. Writes nothing into a run."""
