"""Integers: what decides how a symbol is read, the same on every machine."""
