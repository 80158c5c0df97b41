"""VideoFlow (Kumar et al. 2020, arXiv 1903.01434): our preset `bair-quant`, beside `videoflow-bench`.

    python videoflow.py --batch 5 --train-steps 5

A clip has three given frames and one that is predicted, 64×64×3. All four pass a Glow of three levels with 24 steps each, width
512 and gated coupling networks. The prior of a level's latents is a residual network of five blocks and 256 channels over the
latents of the three frames before, beside the mean that the frame's own coarser part predicts; it predicts the change of the
last latent. A block adds up branches of dilation 1, and 2 and 4 where the latent is large enough; a branch is a causal 2×3×3
convolution over time and space, a gated 1×1 one and another 2×3×3 one, with normalization for each time step and a channel that
is one on the padding, as in our program. A training step minimises the bits/dim of the fourth frame, and gradients also flow
through the latents of the given ones; the gradient's norm is bounded by 100, and Adam has a rate of 1e-4. Sampling draws the
next frame of one clip at temperature 0.7, given the latents of the frames before, and ends in bytes; it comes before training.

What differs: activations are kept for the backward pass, where our program computes them again. A convolution over two time
steps is written as one over space with the two steps side by side in the channels, which is also what our program does on a
GPU. All time steps are computed in every block; our kernels for the CPU leave out those that the last step does not need. The
inverses of the 1×1 convolutions are computed once before sampling.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import common
import glow
from layers import FACTOR, Norm, Pointwise, Step, initialise


class TimeConv(nn.Module):
    """A causal convolution of 2×3×3 over `(B, T, C, H, W)`, padded with zeros, that sees one more channel: one on the padding.

    What that channel adds is the same for all samples, so it is computed once: `(T, O, H, W)`.
    """

    def __init__(self, inputs, outputs, steps, size, dilation, deviation):
        super().__init__()
        self.dilation = dilation
        self.weight = nn.Parameter(deviation * torch.randn(outputs, 2 * inputs, 3, 3))
        self.flag = nn.Parameter(deviation * torch.randn(outputs, 2, 3, 3))
        inside = torch.zeros(steps, 2, *size)
        border = F.pad(inside, (dilation,) * 4, value=1.0)
        # There is nothing before the first step.
        border[0, 0] = 1.0
        self.register_buffer("border", border)

    def forward(self, x):
        before = F.pad(x[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        pairs = torch.cat([before, x], 2).flatten(0, 1)
        y = F.conv2d(pairs, self.weight, padding=self.dilation, dilation=self.dilation)
        return y.unflatten(0, x.shape[:2]) + F.conv2d(self.border, self.flag, dilation=self.dilation)


class Branch(nn.Module):
    """What one dilation adds to `(B, T, C, H, W)`; nothing at the start."""

    def __init__(self, channels, hidden, steps, size, dilation):
        super().__init__()
        self.first, self.norm = TimeConv(channels, hidden, steps, size, dilation, 0.05), Norm(hidden, steps)
        self.second = Pointwise(hidden, 2 * hidden, steps)
        self.last = TimeConv(hidden, channels, steps, size, dilation, 0.0)
        self.scale = Norm(channels)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        h = self.second.norm(F.conv2d(h.flatten(0, 1), self.second.weight).unflatten(0, x.shape[:2]))
        value, gate = h.chunk(2, 2)
        h = self.last(torch.tanh(value) * torch.sigmoid(gate))
        return (h + self.scale.bias) * torch.exp(FACTOR * self.scale.log)


class Block(nn.Module):
    """A residual block of branches: dilation 2 from a side of 5 on, 4 from 9 on."""

    def __init__(self, channels, hidden, steps, size):
        super().__init__()
        dilations = [d for d, least in [(1, 1), (2, 5), (4, 9)] if min(size) >= least]
        self.branches = nn.ModuleList(Branch(channels, hidden, steps, size, d) for d in dilations)

    def forward(self, x):
        return x + sum(branch(x) for branch in self.branches)


class LatentPrior(nn.Module):
    """Mean and `ln σ` of the next latent of a level given the last ones, `(B, n, C, H, W)`.

    `joined` says whether the network also sees the mean that the frame's coarser part predicts.
    """

    def __init__(self, channels, size, joined, past, blocks, hidden):
        super().__init__()
        self.joined, seen = joined, (2 if joined else 1) * channels
        self.blocks = nn.ModuleList(Block(seen, hidden, past, size) for _ in range(blocks))
        self.out = nn.Conv2d(seen, 2 * channels, 1)
        self.log = nn.Parameter(torch.zeros(2 * channels, 1, 1))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, past, alone):
        x = past
        if self.joined:
            x = torch.cat([past, alone[:, None].expand(-1, past.shape[1], -1, -1, -1)], 2)
        for block in self.blocks:
            x = block(x)
        h = self.out(x[:, -1]) * torch.exp(FACTOR * self.log)
        return past[:, -1] + h[:, 0::2], h[:, 1::2]


class VideoFlow(nn.Module):
    def __init__(self, levels, steps, width, size, past=3, blocks=5, hidden=256):
        super().__init__()
        self.flow, self.past = glow.Glow(levels, steps, width, size, gated=True), past
        priors = [LatentPrior(shape[0], shape[1:], level + 1 < levels, past, blocks, hidden)
                  for level, shape in enumerate(self.flow.shapes)]
        self.priors = nn.ModuleList(priors)

    def prior(self, level, past, kept):
        """Mean and `ln σ` of the next latent of a level; `kept` is that of the frame itself."""
        alone, _ = self.flow.prior(level, kept, len(past))
        return self.priors[level](past, alone)

    def encode(self, clips):
        """Of clips `(B, n + 1, C, H, W)` for every level the past latents, the last latent and what is kept beside it, and the
        log-determinant of the last frame."""
        latents, log_det = self.flow.encode(clips.flatten(0, 1))
        found = []
        for latent, kept in latents:
            latent = latent.unflatten(0, clips.shape[:2])
            kept = None if kept is None else kept.unflatten(0, clips.shape[:2])[:, -1]
            found.append((latent[:, :-1], latent[:, -1], kept))
        return found, log_det.view(clips.shape[:2])[:, -1]

    def log_prob(self, clips):
        """`ln p` of the last frame given those before it."""
        latents, total = self.encode(clips)
        for level, (past, latent, kept) in enumerate(latents):
            total = total + common.normal_log_prob(latent, *self.prior(level, past, kept))
        return total

    def bits(self, levels):
        """The mean bits/dim of the last frames of clips of bytes."""
        y = glow.dequantised(levels)
        return -(self.log_prob(y).mean() / y[0, 0].numel() - math.log(glow.LEVELS)) / math.log(2)

    def decode(self, past, noise):
        """The next frame from the past latents of all levels and from `noise(mean)` for each. See `Glow.invert`."""
        def draw(level, kept):
            mean, log_std = self.prior(level, past[level], kept)
            return mean + log_std.exp() * noise(mean)
        return self.flow.decode(draw)

    def predict(self, past, temperature):
        return glow.to_bytes(self.decode(past, lambda mean: temperature * torch.randn_like(mean)))

    def past_latents(self, clips):
        """The past latents of all levels of clips of bytes, for `predict`."""
        with torch.no_grad():
            return [past.clone() for past, _, _ in self.encode((clips.to(torch.get_default_dtype()) + 0.5) / glow.LEVELS - 0.5)[0]]


def test():
    checks = common.Checks()
    model = VideoFlow(2, 2, 6, (12, 12), past=2, blocks=2, hidden=4)
    clips = glow.random_bytes(4, 3, 3, 12, 12, device="cpu")
    initialise(model.bits, clips)
    common.shake(model)
    y = glow.dequantised(clips[:2])
    model.flow.invert()

    def noises(last, given):
        """The whitened latents of one last frame."""
        latents, _ = model.encode(torch.cat([given, last[None]])[None])
        whitened = []
        for level, (past, latent, kept) in enumerate(latents):
            mean, log_std = model.prior(level, past, kept)
            whitened.append((latent - mean) * torch.exp(-log_std))
        return whitened

    with torch.no_grad():
        log_prob, (latents, _) = model.log_prob(y), model.encode(y)
    for i, clip in enumerate(y):
        given, last = clip[:-1], clip[-1]
        with torch.no_grad():
            noise = noises(last, given)
            pasts = [past[i:i + 1] for past, _, _ in latents]
            # `decode` asks for the coarsest level first.
            rest = list(noise)
            checks.close("decode(encode(y))", model.decode(pasts, lambda _: rest.pop())[0], last)
        log_det = common.jacobian_log_det(lambda v: torch.cat([z.flatten() for z in noises(v, given)]), last)
        normal = sum(common.normal_log_prob(z, torch.zeros(()), torch.zeros(())) for z in noise)
        checks.close("log-likelihood", log_prob[i], normal[0] + log_det)
    x = torch.randn(2, 3, 4, 6, 6)
    conv = TimeConv(4, 5, 3, (6, 6), 2, 1.0)
    seen = torch.cat([F.pad(x, (2,) * 4), F.pad(torch.zeros(2, 3, 1, 6, 6), (2,) * 4, value=1.0)], 2).transpose(1, 2)
    first = torch.cat([torch.zeros(2, 4, 1, 10, 10), torch.ones(2, 1, 1, 10, 10)], 1)
    weight = torch.cat([conv.weight.unflatten(1, (2, 4)), conv.flag[:, :, None]], 2).transpose(1, 2)
    wanted = F.conv3d(torch.cat([first, seen], 2), weight, dilation=(1, 2, 2)).transpose(1, 2)
    checks.close("convolution over time", conv(x), wanted)
    checks.finish()


def main():
    parser = common.options(__doc__, batch=5, train_steps=5, repeats=9)
    sizes = {"levels": 3, "steps_per_level": 24, "width": 512, "size": 64, "prior_blocks": 5, "prior_width": 256}
    common.add_sizes(parser, sizes)
    args = common.start(parser)
    if args.test:
        test()
    size = (args.size, args.size)
    model = VideoFlow(args.levels, args.steps_per_level, args.width, size, 3, args.prior_blocks, args.prior_width)
    model.to(args.device)
    draw = lambda count: glow.random_bytes(count, model.past + 1, 3, *size, device=args.device)
    initialise(model.bits, draw(1))
    common.compile_blocks(args, Step, "encode", "decode")
    common.compile_blocks(args, Block, "forward")
    model.flow.invert()
    past, predict = model.past_latents(draw(1)), common.compiled(args, model.predict)
    seconds, peak = common.sample(args, lambda: predict(past, 0.7))
    found = common.train(args, model, common.compiled(args, model.bits), lambda: (draw(args.batch),), 1e-4, 100.0, args.batch)
    found |= {"sampling_per_s": seconds and 1 / seconds, "predict_ms": seconds and 1e3 * seconds, **peak}
    parameters = common.parameter_count(model)
    common.report(args, "videoflow", frames=model.past + 1, **common.sizes(args, sizes), parameters=parameters, **found)


if __name__ == "__main__":
    main()
