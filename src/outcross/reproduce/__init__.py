"""`outcross reproduce`: published claims, run here and judged. Simulations are `outcross.lab`; models that are trained go through the loop."""
