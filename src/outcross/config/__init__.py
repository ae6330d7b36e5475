"""From a run file to objects: `find` resolves `use:` names, `bind` checks arguments, `overrides` applies `--mix.real_floor 0.8`,
`runfile` is the schema and puts it all together. Nothing here is read by the engine."""
