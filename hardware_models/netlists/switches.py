"""Switches of netlists, S by a voltage and W by a current: a conductance that a threshold turns over.

A switch without hysteresis is a behavioural current v(a,b) if(v(c,d) > VT, 1 / RON, 1 / ROFF) (ngspice's manual,
section 2.6.3). One with hysteresis has a memory, and which of its two states it rests in is no matter of its
voltages: it is not read.
"""

from __future__ import annotations

from typing import Any

from .lines import Line, pairs, tokens

OPEN = 1e12
"""Ohms of an open switch whose model has no ROFF: one over ngspice's gmin."""
_FORMS = {
    "s": ("NAME NODE NODE CONTROL+ CONTROL- MODEL", 6, "sw", ("vt", "vh")),
    "w": ("NAME NODE NODE VSOURCE MODEL", 5, "csw", ("it", "ih")),
}


def read_switch(level: Any, line: Line, words: list[str]) -> None:
    """Add the behavioural source that a switch is.

    Parameters
    ----------
    level : hardware_models.netlists.reader.Level
    line : Line
    words : list of str
        The words of the line.

    Raises
    ------
    InputError
        If the line or its model is not as above, or the model has hysteresis.
    """
    form, length, kind, (threshold, hysteresis) = _FORMS[words[0][0].lower()]
    head = words[:-1] if words[-1].lower() in ("on", "off") else words
    if len(head) != length:
        what = f"{head[length]!r} is one word too many" if len(head) > length else "a word is missing"
        raise line.error(f"{what}: {form} would be read")
    level.alone(line, "a switch")
    found = level.section.model(head[-1].lower())
    if found is None:
        raise level.undefined(line, "model", head[-1], level.section.names("models"))
    model, section = found
    told = tokens(model.text)
    if told[2].lower() != kind:
        raise line.error(f"model {head[-1]!r} is of type {told[2].lower()}, but this switch needs {kind.upper()}")
    values = {threshold: 0.0, hysteresis: 0.0, "ron": 1.0, "roff": OPEN}
    value = level.scope_of(section).value
    for name, text in pairs(model, told[3:]).items():
        if name not in values:
            raise model.error(f"switches have no {name.upper()} here, but {', '.join(p.upper() for p in values)}")
        values[name] = model.check(value, text)
    if values[hysteresis]:
        raise model.error(
            f"a switch with hysteresis ({hysteresis.upper()}) is not read, since its state depends on what was "
            f"before: {hysteresis.upper()}=0 would be"
        )
    if not (values["ron"] > 0 and values["roff"] > 0):
        raise model.error("RON and ROFF must be positive")
    control = f"i({head[3]})" if kind == "csw" else f"v({head[3]},{head[4]})"
    on, off = (repr(1 / values[name]) for name in ("ron", "roff"))
    law = f"v({head[1]},{head[2]})*if({control}>{values[threshold]!r},{on},{off})"
    level.behavioural(line, head, "i", law)
