"""The command line: one file per command. `shell` is what they share: errors, consoles, run folders."""
