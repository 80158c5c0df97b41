"""The layers of Glow (Kingma & Dhariwal 2018, arXiv 1807.03039), which VideoFlow has too."""

import torch
import torch.nn as nn
import torch.nn.functional as F

# Log-scales are stored divided by this.
FACTOR = 3.0


class Norm(nn.Module):
    """`(x + b)·exp(3 l)` for each channel, of `steps` time steps each if they are given; set from the first batch."""

    setting = False

    def __init__(self, channels, steps=None):
        super().__init__()
        shape = (channels, 1, 1) if steps is None else (steps, channels, 1, 1)
        self.bias, self.log = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        if Norm.setting:
            self.set(x)
        return (x + self.bias) * torch.exp(FACTOR * self.log)

    def inverse(self, z):
        return z * torch.exp(-FACTOR * self.log) - self.bias

    def log_det(self):
        return FACTOR * self.log.sum()

    def set(self, x):
        mean = x.mean((0, -2, -1), keepdim=True)
        deviation = ((x - mean) ** 2).mean((0, -2, -1), keepdim=True).sqrt()
        self.bias.copy_(-mean[0])
        self.log.copy_(-torch.log(deviation[0] + 1e-6) / FACTOR)


def initialise(function, *data):
    """Evaluates a function once while every normalization sets itself."""
    Norm.setting = True
    with torch.no_grad():
        function(*data)
    Norm.setting = False


class EdgeConv(nn.Module):
    """A 3×3 convolution, zero-padded, that sees one more channel: one on the padding and zero inside.

    That channel is the same for all samples, so its part is computed once and added.
    """

    def __init__(self, inputs, outputs, size, deviation):
        super().__init__()
        self.weight = nn.Parameter(deviation * torch.randn(outputs, inputs, 3, 3))
        self.edge = nn.Parameter(deviation * torch.randn(outputs, 1, 3, 3))
        self.register_buffer("border", F.pad(torch.zeros(1, 1, *size), (1, 1, 1, 1), value=1.0))

    def forward(self, x):
        return F.conv2d(x, self.weight, padding=1) + self.around()

    def around(self):
        return F.conv2d(self.border, self.edge)


class ZeroConv(nn.Module):
    """An `EdgeConv` that starts at zero, with a bias and a scale. Without inputs it is a constant map."""

    def __init__(self, inputs, outputs, size):
        super().__init__()
        self.conv, self.norm, self.inputs = EdgeConv(inputs, outputs, size, 0.0), Norm(outputs), inputs

    def forward(self, x=None):
        # Never set from data: it stays where it starts.
        h = self.conv(x) if self.inputs else self.conv.around()
        return (h + self.norm.bias) * torch.exp(FACTOR * self.norm.log)


class Pointwise(nn.Module):
    """A 1×1 convolution without a bias, and the normalization after it."""

    def __init__(self, inputs, outputs, steps=None):
        super().__init__()
        self.weight, self.norm = nn.Parameter(0.05 * torch.randn(outputs, inputs, 1, 1)), Norm(outputs, steps)

    def forward(self, x):
        return self.norm(F.conv2d(x, self.weight))


class CouplingNet(nn.Module):
    """The network of a coupling; the second hidden layer is rectified, or `tanh · σ` of two convolutions."""

    def __init__(self, inputs, width, outputs, size, gated):
        super().__init__()
        self.first, self.norm = EdgeConv(inputs, width, size, 0.05), Norm(width)
        self.second, self.gated = Pointwise(width, 2 * width if gated else width), gated
        self.last = ZeroConv(width, outputs, size)

    def forward(self, x):
        h = self.second(torch.relu(self.norm(self.first(x))))
        if self.gated:
            value, gate = h.chunk(2, 1)
            return self.last(torch.tanh(value) * torch.sigmoid(gate))
        return self.last(torch.relu(h))


class Mix(nn.Module):
    """The invertible 1×1 convolution `W = P L (U + diag s)`, a rotation at the start."""

    def __init__(self, channels):
        super().__init__()
        p, lower, upper = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels))[0])
        s = upper.diagonal()
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(s.abs().log())
        for name, constant in [("p", p), ("sign", s.sign()), ("eye", torch.eye(channels)), ("inverse", None)]:
            self.register_buffer(name, constant)

    def weight(self):
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_s.exp())
        return (self.p @ (self.lower.tril(-1) + self.eye) @ upper)[..., None, None]

    def invert(self):
        """Keeps the inverse matrix, computed in double precision, for `Step.decode`."""
        weight = self.weight().detach()
        self.inverse = torch.linalg.inv(weight[..., 0, 0].double()).to(weight.dtype)[..., None, None]


class Step(nn.Module):
    """Normalization, mixing, coupling."""

    def __init__(self, channels, width, size, gated):
        super().__init__()
        self.norm, self.mix, self.pixels = Norm(channels), Mix(channels), size[0] * size[1]
        self.net = CouplingNet((channels + 1) // 2, width, 2 * (channels // 2), size, gated)

    def encode(self, x):
        """The latent and the log-determinant of every sample."""
        x = F.conv2d(self.norm(x), self.mix.weight())
        seen, moved = x.chunk(2, 1)
        shift, log_scale = self.parameters_of(seen)
        log_det = self.pixels * (self.norm.log_det() + self.mix.log_s.sum()) + log_scale.sum((1, 2, 3))
        return torch.cat([seen, (moved + shift) * log_scale.exp()], 1), log_det

    def decode(self, z):
        seen, moved = z.chunk(2, 1)
        shift, log_scale = self.parameters_of(seen)
        x = torch.cat([seen, moved * torch.exp(-log_scale) - shift], 1)
        return self.norm.inverse(F.conv2d(x, self.mix.inverse))

    def parameters_of(self, seen):
        h = self.net(seen)
        return h[:, 0::2], F.logsigmoid(h[:, 1::2] + 2.0)
