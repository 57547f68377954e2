"""Experiments on trained networks: exact training, learning on a device, one network on three substrates.

Start with `in_situ`, which trains through the pulses of a device and beside it writes a trained network into it.
"""
