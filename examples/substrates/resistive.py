"""A network of resistors and ideal diodes learns handwritten digits from nothing but the voltages across its parts.

Prints the test error before training and after each epoch, and the residual of the last step's nudged phases, in
amperes. The last number is the final test error in per cent, below 15.
"""

import torch

from hardware_models import ResistiveNetwork
from physics_ep import EquilibriumPropagation, SquaredError, relax
from physics_ep.data import digits

torch.manual_seed(0)
data = digits()
train_x, test_x = data.train_x.flatten(1), data.test_x.flatten(1)
network = ResistiveNetwork([64, 64, 10], diode="ideal", input_gain=64.0)  # conductances in siemens, volts
ep = EquilibriumPropagation(SquaredError(), beta=0.2)  # beta: a conductance from each output to its target
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)


def test_error() -> float:
    outputs = network.outputs(relax(network, test_x).require().state)
    return 100 * float((outputs.argmax(1) != data.test_y).float().mean())


print("before training", test_error(), "%")
for epoch in range(4):
    for rows in torch.randperm(len(train_x)).split(32):
        optimizer.zero_grad()
        step = ep.backward(network, train_x[rows], torch.eye(10)[data.train_y[rows]])
        optimizer.step()
        network.constrain()  # no conductance is negative
    error = test_error()
    print("epoch", epoch + 1, "test error", error, "%")
print("residual", max(float(phase.residual.max()) for phase in step.equilibria), "A")
print("test error in per cent", error)
