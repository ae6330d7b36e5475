"""The collapse laboratory: small simulations with a closed form beside each, and the published claims they test."""
