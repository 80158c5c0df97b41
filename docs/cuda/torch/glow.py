"""Glow (Kingma & Dhariwal 2018, arXiv 1807.03039): the paper's CIFAR-10 model, beside `glow-bench`.

    python glow.py --levels 3 --steps-per-level 32 --width 512 --batch 64 --train-steps 10

The layers are ours: activation normalization, an invertible 1×1 convolution `P L (U + diag s)`, and an affine coupling
`(x + t)·σ(s + 2)` whose network has convolutions of 3×3, 1×1 and 3×3 with normalization and rectifiers; every 3×3 convolution
sees one more channel that is one on its zero padding; a learned prior for what is split off and for the top; uniform
dequantization within the step. Layers are initialised from one batch before the clock runs, the gradient's norm is bounded by
100, and Adam has a rate of 1e-4. Sampling is at temperature 0.7 and ends in bytes; it comes before training, since some steps at
that rate on noise, without a warm-up, make a model of this size useless for samples.

What differs: activations are kept for the backward pass, where our program computes them again from the layers' outputs
(`--plain` keeps them there too), so that ours does more arithmetic with less memory. The inverses of the 1×1 convolutions are
computed once before sampling. The noise of dequantization is drawn on the device.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import common
from layers import Mix, Step, ZeroConv, initialise

LEVELS = 256


class Glow(nn.Module):
    """`levels × (squeeze, steps × Step, split)` over images of `(channels, *size)` with an even number of channels inside."""

    def __init__(self, levels, steps, width, size, channels=3, gated=False):
        super().__init__()
        self.levels, self.splits, self.shapes = nn.ModuleList(), nn.ModuleList(), []
        for level in range(levels):
            channels, size = 4 * channels, (size[0] // 2, size[1] // 2)
            self.levels.append(nn.ModuleList(Step(channels, width, size, gated) for _ in range(steps)))
            if level + 1 < levels:
                channels //= 2
                self.splits.append(ZeroConv(channels, 2 * channels, size))
            self.shapes.append((channels, *size))
        self.top = ZeroConv(0, 2 * channels, size)

    def encode(self, y):
        """For every level, finest first, its latent and what is kept beside it, and the log-determinant."""
        latents, total = [], 0.0
        for level, steps in enumerate(self.levels):
            y = F.pixel_unshuffle(y, 2)
            for step in steps:
                y, log_det = step.encode(y)
                total = total + log_det
            kept, latent = y.chunk(2, 1) if level < len(self.splits) else (None, y)
            latents.append((latent, kept))
            y = kept
        return latents, total

    def prior(self, level, kept, count):
        """Mean and `ln σ` of `count` latents of a level given what is kept."""
        if level < len(self.splits):
            h = self.splits[level](kept)
            return h[:, 0::2], h[:, 1::2]
        return self.top().expand(count, -1, -1, -1).chunk(2, 1)

    def log_prob(self, y):
        latents, total = self.encode(y)
        for level, (latent, kept) in enumerate(latents):
            total = total + common.normal_log_prob(latent, *self.prior(level, kept, len(y)))
        return total

    def decode(self, draw):
        """Images from latents `draw(level, kept)`, which is asked for the coarsest level first. See `invert`."""
        kept = None
        for level in reversed(range(len(self.levels))):
            latent = draw(level, kept)
            h = latent if kept is None else torch.cat([kept, latent], 1)
            for step in reversed(self.levels[level]):
                h = step.decode(h)
            kept = F.pixel_shuffle(h, 2)
        return kept

    def invert(self):
        """Prepares `decode` for the present parameters."""
        for module in self.modules():
            if isinstance(module, Mix):
                module.invert()
        return self

    def bits(self, levels):
        """The mean bits/dim of images of bytes with fresh noise of dequantization."""
        y = dequantised(levels)
        return -(self.log_prob(y).mean() / y[0].numel() - math.log(LEVELS)) / math.log(2)

    def sample(self, count, temperature):
        def draw(level, kept):
            mean, log_std = self.prior(level, kept, count)
            return mean + temperature * log_std.exp() * torch.randn_like(mean)
        return to_bytes(self.decode(draw))


def dequantised(levels):
    y = levels.to(torch.get_default_dtype())
    return (y + torch.rand_like(y)) / LEVELS - 0.5


def to_bytes(y):
    return ((y + 0.5) * LEVELS).floor().clamp(0, LEVELS - 1).to(torch.uint8)


def random_bytes(*shape, device):
    return torch.randint(LEVELS, shape, dtype=torch.uint8, device=device)


def test():
    checks = common.Checks()
    for gated in (False, True):
        model = Glow(2, 2, 8, (8, 8), gated=gated)
        initialise(model.bits, random_bytes(16, 3, 8, 8, device="cpu"))
        y = dequantised(random_bytes(2, 3, 8, 8, device="cpu"))
        common.shake(model)
        with torch.no_grad():
            latents, log_det = model.encode(y)
            checks.close("decode(encode(y))", model.invert().decode(lambda level, _: latents[level][0]), y)
            wanted = log_det + sum(common.normal_log_prob(z, *model.prior(i, kept, 2)) for i, (z, kept) in enumerate(latents))
            checks.close("log-likelihood", model.log_prob(y), wanted)
        flat = lambda x: torch.cat([z.flatten() for z, _ in model.encode(x[None])[0]])
        checks.close("log-determinant", log_det, torch.stack([common.jacobian_log_det(flat, x) for x in y]))
        checks.close("samples", model.sample(3, 0.7).shape, torch.Size([3, 3, 8, 8]))
    checks.finish()


def main():
    parser = common.options(__doc__, batch=64, train_steps=10, repeats=7)
    sizes = {"levels": 3, "steps_per_level": 32, "width": 512, "size": 32}
    common.add_sizes(parser, sizes)
    args = common.start(parser)
    if args.test:
        test()
    size = (args.size, args.size)
    model = Glow(args.levels, args.steps_per_level, args.width, size).to(args.device)
    draw = lambda: (random_bytes(args.batch, 3, *size, device=args.device),)
    initialise(model.bits, *draw())
    common.compile_blocks(args, Step, "encode", "decode")
    sampler = common.compiled(args, model.invert().sample)
    seconds, peak = common.sample(args, lambda: sampler(args.batch, 0.7))
    found = common.train(args, model, common.compiled(args, model.bits), draw, 1e-4, 100.0, args.batch)
    found |= {"sampling_per_s": seconds and args.batch / seconds, **peak}
    common.report(args, "glow", **common.sizes(args, sizes), parameters=common.parameter_count(model), **found)


if __name__ == "__main__":
    main()
