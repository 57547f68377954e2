"""The simulated device itself: it refuses what a GPU refuses, and counts what it is asked for."""

from __future__ import annotations

import copy
import os
import re

import pytest
import torch

from tests.support.simulated_gpu import DeviceTensor, SimulatedGpu, UnavailableError, shim

MIXED = {
    "sum with a vector": lambda x: x + torch.ones(3),
    "stack with a number": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
    "concatenation": lambda x: torch.cat([x, torch.ones(1)]),
    "write into a number": lambda x: torch.tensor(1.0).add_(x[0]),
    "write a vector by index": lambda x: x.__setitem__(torch.tensor([0, 1]), torch.ones(2)),
    "index of a CPU tensor": lambda x: torch.ones(3)[x.long()],
    "product": lambda x: torch.ones(2, 3) @ x,
    "generator of the CPU": lambda x: torch.randn(3, device="cuda", generator=torch.Generator()),
    "generator of the device": lambda x: torch.randn(3, generator=torch.Generator("cuda")),
    "product of integers": lambda x: torch.outer(x, x).long() @ x.long(),
    "linear algebra in half precision": lambda x: torch.linalg.inv(torch.outer(x, x).bfloat16()),
}


@pytest.mark.parametrize("case", MIXED)
def test_what_a_gpu_refuses_is_refused(gpu: SimulatedGpu, case: str) -> None:
    """If it were done all the same, a fault on a GPU would pass CI."""
    with pytest.raises(RuntimeError, match=r"same device|device type for generator|not implemented"):
        MIXED[case](torch.ones(3, device="cuda"))


def test_numpy_is_refused_and_cpu_numbers_are_allowed(gpu: SimulatedGpu) -> None:
    """As on a GPU: copies to the host are explicit, and numbers may be the host's."""
    x = torch.ones(3, device="cuda")
    assert x.device == torch.device("cuda", 0) != torch.device("cuda")
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        x.numpy()
    assert x.cpu().numpy().tolist() == x.tolist() == [1.0, 1.0, 1.0]
    assert (x * torch.tensor(2.0)).device.type == "cuda"
    assert x[torch.tensor([0, 2])].device.type == "cuda"


def test_waits_are_told_apart(gpu: SimulatedGpu) -> None:
    """The counts tell a read from an upload, and an upload from nothing: the table of counts rests on them."""
    x = torch.randn(8, device="cuda")
    with gpu.counting() as counts:
        y = (2 * x + 1).relu()
        y[:2] = 0.0  # y[0] = 0.0 would be an upload
        y.masked_fill_(y > 1, 0.0)
        y[y > 1] = 0.0
    assert (counts.waited, counts.uploads) == (0, 0)
    assert counts.launches >= 5
    with gpu.counting() as counts:
        bool((x > 0).any()), float(x.sum()), x.cpu(), x[x > 0], torch.tensor([1.0], device="cuda")
        torch.linalg.eigh(x[:, None] * x)
        torch.cuda.synchronize()
        torch.ones(5).to("cuda", non_blocking=True)
    assert counts.kinds() == {"read": 2, "download": 1, "shape": 1, "upload": 1, "check": 1, "explicit": 1}
    assert (counts.uploads, counts.uploaded, counts.downloaded) == (2, 4 + 20, 32)
    assert all("test_simulation.py" in at for _, _, at in counts.waits)
    assert re.search(r"2  read _local_scalar_dense \S*gpu/test_simulation\.py:\d+", counts.table())


def test_work_on_the_host_is_counted(gpu: SimulatedGpu) -> None:
    """Large CPU tensors in a step on a device are work in the wrong place."""
    with gpu.counting() as counts:
        torch.ones(2000) + 1
        torch.ones(2) + 1
    assert {name for name, _ in counts.on_host} == {"ones", "add"}


def test_memory_is_that_of_live_storages(gpu: SimulatedGpu) -> None:
    """Views share a storage, units are 512 bytes, and a full device says so."""
    with gpu.counting() as counts:
        x = torch.zeros(1024, device="cuda")
        view = x[:10]
        del x
        assert gpu.live == 4096
        y = view + 1
        assert gpu.live == 4096 + 512
        del view, y
    assert gpu.live == 0
    assert counts.peak_bytes == 4096 + 512
    with SimulatedGpu(memory=1000), pytest.raises(torch.OutOfMemoryError):
        torch.zeros(1024, device="cuda")


def test_random_numbers_are_those_of_a_generator_of_the_device(gpu: SimulatedGpu) -> None:
    """A seed of the device gives the same numbers again, and leaves the host's generator alone."""
    before = torch.get_rng_state()
    first = torch.randn(4, device="cuda", generator=torch.Generator("cuda").manual_seed(3))
    again = torch.randn(4, device="cuda", generator=torch.Generator("cuda").manual_seed(3))
    torch.cuda.manual_seed(5)
    free = torch.randn(4, device="cuda")
    torch.cuda.manual_seed(5)
    assert torch.equal(first, again)
    assert torch.equal(free, torch.randn(4, device="cuda"))
    assert torch.equal(before, torch.get_rng_state())
    generator = torch.Generator("cuda").manual_seed(3)
    twin = copy.deepcopy(generator)
    assert twin.device == generator.device
    assert torch.equal(torch.randn(4, device="cuda", generator=twin), first)


def test_modules_optimizers_autograd_and_autocast(gpu: SimulatedGpu) -> None:
    """Training of an ordinary module gives the CPU's numbers, and parameters keep their identity in `Module.to`."""

    def build() -> torch.nn.Sequential:
        torch.manual_seed(0)
        convolution, dense = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Linear(64, 10)
        return torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(), dense)

    here, there = build(), build()
    optimizer = torch.optim.Adam(there.parameters())
    identities = [id(p) for p in there.parameters()]
    there.to("cuda")
    assert [id(p) for p in there.parameters()] == identities
    x, y = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    torch.nn.functional.cross_entropy(here(x), y).backward()
    with gpu.counting() as counts:
        torch.nn.functional.cross_entropy(there(x.to("cuda")), y.to("cuda")).backward()
    assert counts.kinds() == {"upload": 2}
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad.cpu())
    optimizer.step()
    assert not torch.equal(here[0].weight, there[0].weight.cpu())
    with torch.autocast("cuda", torch.bfloat16):
        assert there(x.to("cuda")).dtype == torch.bfloat16
    twin = copy.deepcopy(there)
    assert isinstance(twin[0].weight, DeviceTensor)
    assert isinstance(twin[0].weight, torch.nn.Parameter)
    numbers = torch.randn(2, 3, dtype=torch.complex64, device="cuda")
    assert torch.equal((numbers.mH @ numbers).cpu(), numbers.cpu().mH @ numbers.cpu())


@pytest.mark.parametrize(
    ("owner", "name", "planted", "reason"),
    [
        (os.environ, "CXX", "/no/compiler", r"needs a C\+\+ compiler, and /no/compiler"),
        (os.environ, "CXX", "false", r"false \(CXX\) does not compile device.cpp"),
        (torch, "__version__", "2.0.1+cpu", r"made for torch \S+, and this is 2\.0\.1"),
        (torch.version, "cuda", "13.0", "built for real devices"),
    ],
    ids=["no compiler", "a compiler that fails", "another torch", "a real device"],
)
def test_without_what_it_needs_the_reason_is_told(monkeypatch, owner, name: str, planted: str, reason: str) -> None:
    """Tests on the device are skipped with this reason, in place of an error that nobody understands."""
    monkeypatch.setattr(shim, "LOADED", [])
    put = monkeypatch.setitem if owner is os.environ else monkeypatch.setattr
    put(owner, name, planted)
    with pytest.raises(UnavailableError, match=reason):
        shim.install()
    assert not shim.LOADED
