"""The shipped weights, installed as the package `diveqcodec.models`; it holds no code."""
