"""Our AdamW against torch's own."""

import subprocess
import sys

import pytest
import torch

from models.timing.adamw import AdamW


def two_layers() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "layer": torch.randn(5, 4, generator=generator).requires_grad_(True),
        "shift": torch.zeros(4).requires_grad_(True),
    }


def loss(parts: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softplus(rows @ parts["layer"] + parts["shift"]).mean()


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_hundred_steps_give_the_bits_of_torch(decay):
    own, other = two_layers(), two_layers()
    optimiser = AdamW(own, rate=2e-3, decay={"layer": decay})
    reference = torch.optim.AdamW(
        [
            {"params": [other["layer"]], "weight_decay": decay},
            {"params": [other["shift"]], "weight_decay": 0.0},
        ],
        lr=2e-3,
        foreach=False,
    )
    generator = torch.Generator().manual_seed(4)
    for _ in range(100):
        rows = torch.randn(8, 5, generator=generator)
        loss(own, rows).backward()
        optimiser.step()
        reference.zero_grad()
        loss(other, rows).backward()
        reference.step()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert not torch.equal(own["layer"], two_layers()["layer"])


def test_a_step_imports_no_compiler():
    program = (
        "import sys, torch; from models.timing.adamw import AdamW; part = torch.ones(2, requires_grad=True); "
        "optimiser = AdamW({'a': part}, rate=0.1, decay={}); part.sum().backward(); optimiser.step(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
