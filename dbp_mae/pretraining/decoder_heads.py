"""The heads of the autoencoder's decoder."""

HEAD_WIDTH = 32
"""Of each; the decoder's width is a multiple of it."""
