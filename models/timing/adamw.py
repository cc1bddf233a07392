"""AdamW (Loshchilov and Hutter, ICLR 2019) over torch tensors."""

from __future__ import annotations

from typing import Any

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Adam with decoupled weight decay: the numbers of torch.optim.AdamW on the CPU, to the last bit.

    torch's own optimiser imports torch's compiler, which takes five seconds, and checks its settings at every step:
    with a network this small, that takes longer than the arithmetic.
    """

    def __init__(self, parts: dict[str, Any], *, rate: float, decay: dict[str, float]) -> None:
        import torch

        self.parts, self.rate, self.decay = parts, rate, decay
        self.first = {name: torch.zeros_like(part, requires_grad=False) for name, part in parts.items()}
        self.second = {name: torch.zeros_like(part, requires_grad=False) for name, part in parts.items()}
        self.steps = 0

    def step(self) -> None:
        """Change every tensor by its gradient, and forget the gradients."""
        import torch

        self.steps += 1
        rate = self.rate / (1 - BETA1**self.steps)
        scale = (1 - BETA2**self.steps) ** 0.5
        with torch.no_grad():
            for name, part in self.parts.items():
                first, second, gradient = self.first[name], self.second[name], part.grad
                if decay := self.decay.get(name):
                    part.mul_(1 - self.rate * decay)
                first.lerp_(gradient, 1 - BETA1)
                second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
                part.addcdiv_(first, (second.sqrt() / scale).add_(EPSILON), value=-rate)
                part.grad = None
