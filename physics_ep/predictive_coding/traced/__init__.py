"""Any differentiable torch model as a predictive coding network: recorded, cut into units, relaxed, learnt from."""
