"""Floats: what is trained, from pixels to latents to classes, and back. May round as it likes."""
