"""Gates of releases: they compare sets of rows, not models."""
