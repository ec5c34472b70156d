"""An encoder of three linear layers, two of one shape, its decorrelation, and the equations as a loop."""

import torch
from torch import Tensor, nn

from dbp_mae.params import DecorrelationParams
from dbp_mae.pretraining.decorrelator import Decorrelator

WIDTH = 12
PARAMS = DecorrelationParams(
    update="paper",
    eps=1e-2,
    total_eps=None,
    kappa=0.3,
    sample=1.0,
    every=1,
    block=768,
    layers=["qkv", "proj", "fc1", "fc2"],
)


class Encoder(nn.Module):
    """Linear layers under the names that decorrelation looks for; the first and last have one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(WIDTH, 20)
        self.proj = nn.Linear(20, WIDTH)
        self.fc2 = nn.Linear(WIDTH, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.proj(torch.relu(self.fc1(x)))))

    @property
    def layers(self) -> dict[str, nn.Linear]:
        return {"fc1": self.fc1, "proj": self.proj, "fc2": self.fc2}


def correlated_tokens(count: int, width: int = WIDTH) -> Tensor:
    """Draw Gaussian vectors with a random covariance: (1, count, width)."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    return (torch.randn(count, width, generator=generator) @ mixing + 0.1).unsqueeze(0)


def decorrelated(**changes: object) -> tuple[Encoder, Decorrelator]:
    """Return the encoder with every R at the identity."""
    torch.manual_seed(0)
    encoder = Encoder()
    params = PARAMS.model_copy(update=changes)
    assert params.eps is not None
    return encoder, Decorrelator(encoder, params, params.eps, seed=0)


def underway(**changes: object) -> tuple[Encoder, Decorrelator]:
    """Return the encoder with every R off the identity, neither symmetric nor commuting with M."""
    encoder, decorrelator = decorrelated(**changes)
    for layer in decorrelator.layers.values():
        r = decorrelator_of(layer)
        r += 0.3 / r.shape[-1] ** 0.5 * torch.randn(r.shape)
    return encoder, decorrelator


def observe(encoder: Encoder, decorrelator: Decorrelator, tokens: Tensor) -> Tensor:
    """Run a forward pass under observation."""
    with decorrelator.training_pass(tokens.shape[:-1].numel()):
        return encoder(tokens)


def watch_inputs(encoder: Encoder) -> dict[nn.Module, Tensor]:
    """Return what holds each layer's inputs, (k, d), once a forward pass has been run."""
    seen: dict[nn.Module, Tensor] = {}
    for layer in encoder.layers.values():
        layer.register_forward_pre_hook(lambda layer, inputs: seen.update({layer: inputs[0][0]}))
    return seen


def decorrelator_of(layer: nn.Linear) -> Tensor:
    """Return R's blocks, (n, b, b)."""
    return layer.parametrizations["weight"][0].decorrelator


def matrix(layer: nn.Linear) -> Tensor:
    """Return R, (d, d)."""
    return torch.block_diag(*decorrelator_of(layer))


def original(layer: nn.Linear) -> nn.Parameter:
    """Return W, (o, d)."""
    return layer.parametrizations["weight"].original


def loop_over_equations(
    states: Tensor, r: Tensor, eps: float, kappa: float
) -> tuple[Tensor, float]:
    """Return the next R and the correlation loss, element by element in float64."""
    r = r.double()
    d = len(r)
    vectors = states.double().tolist()
    step, loss = torch.zeros_like(r), 0.0
    for i in range(d):
        for j in range(d):
            moment = sum(z[i] * z[j] for z in vectors) / len(vectors)
            part, weight = (moment - 1, kappa) if i == j else (moment, 1 - kappa)
            step[i, j] = weight * part
            loss += weight * part**2 / d**2
    return r - eps * step @ r, loss
