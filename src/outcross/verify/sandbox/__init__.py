"""Running programs that nobody trusts: what a machine can isolate, and a pool of warm sandboxes."""
