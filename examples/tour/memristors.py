"""A memristor of the VTEAM model takes a pulse, and a circuit stands on the resistance that the pulse leaves.

Prints the memristor's state before and after the pulse, and the current that is missing at the circuit's operating
point; at last the voltage at the memristor over that of a divider by the resistance that was left: 1.
"""

from hardware_models import Circuit, Part, Parts, transient

# R_on, R_off, v_on, v_off, k_on, k_off, alpha_on, alpha_off, w_max, window, state
cell = (100.0, 16e3, -0.2, 0.3, -2e-8, 3e-8, 1.0, 3.0, 1e-8, 2.0, 0.3)
pulse = ((0.0, -0.6), (0.1, -0.6), (0.1, 0.0))  # volts over seconds
parts = Parts.collect(
    [
        Part("V1", "voltage_source", ("in", "0"), (0.1,), waveform=pulse),
        Part("R1", "resistor", ("in", "a"), (1e-2,)),
        Part("X1", "vteam_memristor", ("a", "0"), cell),
    ]
)
course = transient(parts, 0.2)  # course.states, course.memristor_currents
after = Circuit(course.present(parts))  # the circuit that the pulse leaves behind
print(course.states[[0, -1], 0, 0], after.operating_point().residual_si)

left = float(course.states[-1, 0, 0])
resistance = 100.0 * left + 16e3 * (1 - left)
found = float(after.node_voltages(after.operating_point())["a"])
print("voltage over that of a divider:", found / (0.1 * resistance / (resistance + 100)))
