"""Bytes: the `.dvq` container, entropy coding, lossless parts. Nothing here knows torch."""
