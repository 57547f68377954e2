"""Theory that experiments are held against: early inference, noise, EP step by step, limits of mappings.

Start with `early_inference`, which compares the first movements of a nudged network with backprop's errors.
"""
