"""The experiments of `scripts/reproduce.py`, one module each; see docs/quantizers.md."""
