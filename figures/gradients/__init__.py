"""Figures of EP's gradient against exact ones: over beta, scheme, precision and step.

`errors` compares schemes and dtypes, `schemes` maps holomorphic EP, `clamping` sets coupled learning beside EP,
`automatic` shows what beta='auto' picks, `stepwise` holds EP's course against backprop through time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from physics_ep.faces import lazy

if TYPE_CHECKING:
    from .automatic import AutoBeta as AutoBeta, auto_beta as auto_beta, draw_auto_beta as draw_auto_beta
    from .clamping import (
        RuleComparison as RuleComparison,
        clamping_error as clamping_error,
        draw_clamping as draw_clamping,
    )
    from .errors import (
        ErrorCurves as ErrorCurves,
        draw_errors as draw_errors,
        estimator_error as estimator_error,
        precision_error as precision_error,
    )
    from .schemes import (
        HolomorphicMap as HolomorphicMap,
        draw_holomorphic as draw_holomorphic,
        holomorphic_map as holomorphic_map,
    )
    from .stepwise import (
        StepwiseCourses as StepwiseCourses,
        bptt_equality as bptt_equality,
        draw_bptt_equality as draw_bptt_equality,
    )
else:
    __getattr__, __dir__, __all__ = lazy(
        __name__,
        {
            "AutoBeta": "automatic",
            "ErrorCurves": "errors",
            "HolomorphicMap": "schemes",
            "RuleComparison": "clamping",
            "StepwiseCourses": "stepwise",
            "auto_beta": "automatic",
            "bptt_equality": "stepwise",
            "clamping_error": "clamping",
            "draw_auto_beta": "automatic",
            "draw_bptt_equality": "stepwise",
            "draw_clamping": "clamping",
            "draw_errors": "errors",
            "draw_holomorphic": "schemes",
            "estimator_error": "errors",
            "holomorphic_map": "schemes",
            "precision_error": "errors",
        },
    )
