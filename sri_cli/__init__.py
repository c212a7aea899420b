"""sri: autoregressive slot VAEs, from data set to new scenes."""

__version__ = "0.1.0"
