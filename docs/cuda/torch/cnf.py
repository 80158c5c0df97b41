"""Continuous flows: their solver, their fields, and the normalizations at their ends.

The solver is dopri5 (Dormand & Prince 1980) with the step control of our programs.
A step is accepted if its error is at most one, and the next one is `0.9·error^(-1/5)` times as long, between a fifth and ten
times. The error is the root mean square over all entries of a part of the state, relative to `tolerance·(1 + |y|)`, and of the
parts the largest; all rows share their steps. The first step is that of Hairer, Nørsett & Wanner (1993, II.4).
"""

import math

import torch
import torch.nn as nn
from torch.utils.checkpoint import checkpoint

# Times and coefficients of the stages, the last of which is evaluated at the end of the step and is the first of the next one;
# weights of the error.
C = [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1]
A = [[], [1 / 5], [3 / 40, 9 / 40], [44 / 45, -56 / 15, 32 / 9], [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
     [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656], [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84]]
ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]


class Solver:
    """Solves `dy/dt = rates(t, *y)` for a tuple `y` of tensors.

    With `steps` it takes so many equal steps, else as many as the tolerance asks for. `evaluations` counts those of the last
    solve. Gradients pass the steps, whose lengths are held fixed.
    """

    def __init__(self, steps=None, tolerance=1e-5):
        self.steps, self.tolerance, self.evaluations = steps, tolerance, 0

    def solve(self, rates, y, start, end):
        def evaluate(t, y):
            self.evaluations += 1
            return rates(t, *y)
        self.evaluations, span, way = 0, abs(end - start), math.copysign(1.0, end - start)
        slope = evaluate(start, y)
        size = self.first_step(evaluate, y, slope, start, way, span) if self.steps is None else span / self.steps
        t, done, grows = start, 0, True
        while t != end:
            size, last = self.fitted(size, abs(end - t), done)
            h, slopes = way * size, [slope]
            for stage in range(1, 7):
                at = moved(y, slopes, [h * a for a in A[stage]])
                # The slope at the end is part of the error, and of the next step.
                if stage < 6 or self.steps is None or not last:
                    slopes.append(evaluate(t + h * C[stage], at))
            if self.steps is None:
                error = self.error(y, at, slopes, h)
                factor = max(0.9 * max(error, 1e-10) ** -0.2, 0.2)
                size *= min(factor, 0.95 if error > 1 else 10.0 if grows else 1.0)
                grows = error <= 1
                if error > 1:
                    continue
            t, y, slope, done = end if last else t + h, at, slopes[-1], done + 1
        return y

    def fitted(self, size, left, done):
        """The length of the next step and whether it is the last: no sliver is left for one more."""
        if self.steps is not None:
            return (left, True) if done + 1 == self.steps else (size, False)
        if size >= left:
            return left, True
        return (left / 2 if 2 * size > left else size), False

    @torch.no_grad()
    def error(self, before, after, slopes, h):
        zero = tuple(torch.zeros_like(y) for y in before)
        return self.relative(moved(zero, slopes, [h * weight for weight in ERROR]), before, after)

    def relative(self, difference, before, after):
        scaled = (d / (1 + torch.maximum(a.abs(), b.abs())) for d, a, b in zip(difference, before, after))
        found = float(torch.stack([(s * s).mean() for s in scaled]).max().sqrt()) / self.tolerance
        if not math.isfinite(found):
            raise ArithmeticError("the solver met a number that is not finite")
        return found

    @torch.no_grad()
    def first_step(self, evaluate, y, slope, start, way, span):
        size, speed = self.relative(y, y, y), self.relative(slope, y, y)
        trial = min(1e-6 if min(size, speed) < 1e-5 else 0.01 * size / speed, span)
        ahead = evaluate(start + way * trial, moved(y, [slope], [way * trial]))
        bend = self.relative(moved(ahead, [slope], [-1.0]), y, y) / trial
        return min(100 * trial, (0.01 / max(speed, bend, 1e-15)) ** 0.2, span)


def moved(y, slopes, factors):
    """`y + Σ factor·slope`, part by part."""
    for slope, factor in zip(slopes, factors):
        if factor != 0:
            y = tuple(torch.add(a, b, alpha=factor) for a, b in zip(y, slope))
    return y


class Field(nn.Module):
    """Concat-squash layers `(W x + b) ⊙ σ(W_g c + b_g) + W_s c` with `c = [t, context]`, tanh between them."""

    def __init__(self, dim, hidden, context):
        super().__init__()
        widths = [dim, *hidden, dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.gates = nn.ModuleList(nn.Linear(1 + context, b) for b in widths[1:])
        self.shifts = nn.ModuleList(nn.Linear(1 + context, b, bias=False) for b in widths[1:])

    def forward(self, t, x, context, tangents):
        """Velocities of groups of rows `(G, N, D)` at times `(G, 1)` given contexts `(G, C)`, and `J v` of every tangent."""
        c, last = torch.cat([t, context], 1), len(self.layers) - 1
        for i, (layer, gate, shift) in enumerate(zip(self.layers, self.gates, self.shifts)):
            factor = torch.sigmoid(gate(c))[:, None]
            x = layer(x) * factor + shift(c)[:, None]
            tangents = [nn.functional.linear(v, layer.weight) * factor for v in tangents]
            if i < last:
                x = torch.tanh(x)
                tangents = [v * (1 - x * x) for v in tangents]
        return x, tangents


class MovingNorm(nn.Module):
    """`(x - m)/√(v + 1e-4)·e^w + b` with running statistics, which a training pass moves by a tenth for the passes after it."""

    def __init__(self, dim):
        super().__init__()
        self.log, self.shift = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def log_factor(self):
        return self.log - 0.5 * torch.log(self.variance + 1e-4)

    def forward(self, x):
        """The normalized rows, and the log-determinant of one of them."""
        factor = self.log_factor()
        z = (x - self.mean) * factor.exp() + self.shift
        if self.training:
            rows = x.detach().flatten(0, -2)
            self.mean.lerp_(rows.mean(0), 0.1)
            self.variance.lerp_(rows.var(0), 0.1)
        return z, factor.sum()

    def inverse(self, z):
        return (z - self.shift) * torch.exp(-self.log_factor()) + self.mean


class Cnf(nn.Module):
    """A continuous flow between two moving normalizations, from data at time 0 to a standard normal at `T`."""

    def __init__(self, dim, hidden, context, solver, graph=False):
        super().__init__()
        self.field, self.before, self.after = Field(dim, hidden, context), MovingNorm(dim), MovingNorm(dim)
        self.root = nn.Parameter(torch.tensor([math.sqrt(0.5)]))
        self.solver, self.graph, self.evaluate = solver, graph, self.rates

    def rates(self, s, x, context, tangents):
        """`T f` and, of any tangents, `T Σ vᵀ J v` at the scaled time `s`."""
        end = self.root ** 2
        f, products = self.field((s * end).expand(len(x), 1), x, context, tangents)
        divergence = [end * (v * p).sum(-1) for v, p in zip(tangents, products)]
        return (end * f, sum(divergence)) if divergence else (end * f,)

    def integrate(self, state, context, tangents, start, end):
        """The state `(x,)`, or `(x, log-determinant)` where there are tangents, from one scaled time to another."""
        def rates(s, x, _=None):
            operands = torch.full((1,), s, dtype=x.dtype, device=x.device), x, context, tangents
            if self.graph or not torch.is_grad_enabled():
                return self.evaluate(*operands)
            return checkpoint(self.evaluate, *operands, use_reentrant=False, preserve_rng_state=False)
        return self.solver.solve(rates, state, start, end)

    def encode(self, x, context, tangents):
        """The latents of `(G, N, D)` and the log-determinant of every row, `(G, N)`."""
        x, first = self.before(x)
        x, log_det = self.integrate((x, torch.zeros_like(x[..., 0])), context, tangents, 0.0, 1.0)
        z, second = self.after(x)
        return z, log_det + first + second

    def log_prob(self, x, context):
        z, log_det = self.encode(x, context, [torch.randn_like(x)])
        return log_det - 0.5 * (z * z + math.log(2 * math.pi)).sum(-1)

    def decode(self, z, context):
        (x,) = self.integrate((self.after.inverse(z),), context, [], 1.0, 0.0)
        return self.before.inverse(x)
