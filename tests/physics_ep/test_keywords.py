"""Keywords that a system's constructor does not have. If these fail, a letter that is wrong is answered by Python,
without the names that there are, or documentation and editors show no signature."""

from __future__ import annotations

import inspect

import pytest

from hardware_models.hopfield.network import HopfieldNetwork
from physics_ep import registry
from physics_ep.entries import load
from physics_ep.errors import InputError


def test_a_wrong_keyword_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match="activation") as caught:
        HopfieldNetwork([2, 3], activaton="tanh")  # type: ignore[call-arg]
    assert "HopfieldNetwork" in str(caught.value)
    assert "Did you mean 'activation'?" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "activation" in inspect.signature(HopfieldNetwork).parameters
    assert not {"args", "kwargs"} & set(inspect.signature(HopfieldNetwork).parameters)


@pytest.mark.parametrize("name", sorted(set(registry.systems())))
def test_all_system_constructors_answer_alike(name: str) -> None:
    build = load(registry.systems()[name])
    if any(each.kind is each.VAR_KEYWORD for each in inspect.signature(build).parameters.values()):
        pytest.skip("takes any keyword: what it hands them to answers")
    with pytest.raises(InputError, match="no_such_keyword"):
        build(no_such_keyword=1)
