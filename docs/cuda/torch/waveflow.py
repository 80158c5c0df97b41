"""WaveFlow (Ping et al. 2020, arXiv 1912.01219): our preset `waveflow-h16-c64`, beside `waveflow-bench`.

    python waveflow.py --batch 8 --seconds 2 --train-steps 3

The model has 16 rows and 8 flows, each with a network of 8 layers and 64 channels that is causal over rows: convolutions of 3×3
with 1 row and `2^l` columns between their taps, gates `tanh · σ`, and in every layer a 1×1 convolution of the spectrogram's 80
bands, which two transposed convolutions of stride 16 upsample. Kernels are weight-normalized; rows are permuted after each flow
(the paper's strategy b). A training step minimises the negative log-likelihood of clips of 16,000 samples in whole frames of 256,
the gradient's norm is bounded by 5, and Adam has a rate of 2e-4. Synthesis makes `--seconds` of audio at 22,050 Hz and
temperature 0.6 from one spectrogram: each flow is inverted row by row, the last rows of every layer's input are kept, and
nothing is computed twice. The weights are multiplied out before, and what the spectrogram adds to a layer is computed once for
all rows. `parameters` counts the weights multiplied out, as they are published.

What differs: activations are kept for the backward pass, where our program computes each flow's network again (`--plain` keeps
them there too). Where our program evaluates the whole network of a flow for every row, on devices for which it has no kernels,
this one does not. `--compile` of any kind compiles the loss, and for synthesis the pass over one row of one flow.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

import common

RATE = 22050


class Layer(nn.Module):
    """One residual layer: `(B, C, rows, W)` to what is added to it and what goes to the head."""

    def __init__(self, channels, mels, dilation):
        super().__init__()
        conv = lambda *sizes, **more: weight_norm(nn.Conv2d(*sizes, **more))
        self.dilation, self.reach = dilation, 2 * dilation[0]
        self.gate = conv(channels, 2 * channels, 3, dilation=dilation, padding=(0, dilation[1]))
        self.condition, self.out = conv(mels, 2 * channels, 1), conv(channels, 2 * channels, 1)

    def forward(self, x, condition):
        """`x` has `reach` rows more, before the first; `condition` is what the spectrogram adds."""
        value, gate = (self.gate(x) + condition).chunk(2, 1)
        return self.out(torch.tanh(value) * torch.sigmoid(gate)).chunk(2, 1)


class Network(nn.Module):
    """From rows of a waveform, `(B, 1, rows, W)`, the `ln s` and `t` of the rows after them."""

    def __init__(self, channels, mels, dilations):
        super().__init__()
        self.front = weight_norm(nn.Conv2d(1, channels, 1))
        self.layers = nn.ModuleList(Layer(channels, mels, dilation) for dilation in dilations)
        self.head = nn.Conv2d(channels, 2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def conditions(self, context):
        return [layer.condition(context) for layer in self.layers]

    def forward(self, x, conditions):
        x, total = self.front(x), 0.0
        for layer, condition in zip(self.layers, conditions):
            more, skip = layer(F.pad(x, (0, 0, layer.reach, 0)), condition)
            x, total = x + more, total + skip
        return self.head(total).unbind(1)

    def row(self, x, conditions, queues):
        """The same for the next row, `(B, 1, 1, W)`, from the last rows of every layer's input, which it returns anew."""
        x, total, known = self.front(x), 0.0, []
        for layer, condition, queue in zip(self.layers, conditions, queues):
            seen = torch.cat([queue, x], 2)
            more, skip = layer(seen, condition)
            x, total = x + more, total + skip
            known.append(seen[:, :, 1:])
        log_s, shift = self.head(total).unbind(1)
        return log_s, shift, known

    def queues(self, x):
        """Those before the first row."""
        channels = self.front.out_channels
        return [x.new_zeros(len(x), channels, layer.reach, x.shape[-1]) for layer in self.layers]


class WaveFlow(nn.Module):
    """Waveforms `(B, T)` given spectrograms `(B, M, T / hop)`. Sample `j h + i` is in row `i` and column `j`."""

    def __init__(self, height, channels, flows, layers, mels=80, upsample=(16, 16)):
        super().__init__()
        self.height, self.hop = height, math.prod(upsample)
        self.upsample = nn.ModuleList(
            weight_norm(nn.ConvTranspose2d(1, 1, (3, 2 * s), stride=(1, s), padding=(1, s // 2)), dim=0) for s in upsample)
        dilations = [(1, 2 ** layer) for layer in range(layers)]
        self.flows = nn.ModuleList(Network(channels, mels, dilations) for _ in range(flows))
        self.row = Network.row
        half, up = height // 2, torch.arange(height)
        halves = torch.cat([up[:half].flip(0), up[half:].flip(0)])
        permutations = [halves if flow >= flows // 2 else up.flip(0) for flow in range(flows)]
        # For every flow the row of the waveform that its rows are, and how its rows are permuted; each is its own inverse.
        orders = [up]
        for permutation in permutations:
            orders.append(orders[-1][permutation])
        self.register_buffer("permutations", torch.stack(permutations))
        self.register_buffer("orders", torch.stack(orders))

    def context(self, mel):
        """`(B, M, h, W)`: the upsampled spectrogram as the waveform's rows."""
        x = mel[:, None]
        for stage in self.upsample:
            x = F.leaky_relu(stage(x), 0.4)
        return x[:, 0].unflatten(2, (-1, self.height)).transpose(2, 3)

    def encode(self, audio, mel):
        """The latent `(B, h, W)` and the log-determinant."""
        context, total = self.context(mel), 0.0
        x = audio.unflatten(1, (-1, self.height)).transpose(1, 2)
        for flow, order, permutation in zip(self.flows, self.orders, self.permutations):
            log_s, shift = flow(x[:, None, :-1], flow.conditions(context[:, :, order[1:]]))
            x = torch.cat([x[:, :1], x[:, 1:] * log_s.exp() + shift], 1)[:, permutation]
            total = total + log_s.sum((1, 2))
        return x, total

    def loss(self, audio, mel):
        """The mean negative log-likelihood of a sample in nats."""
        z, log_det = self.encode(audio, mel)
        log_prob = log_det - 0.5 * (z * z + math.log(2 * math.pi)).sum((1, 2))
        return -log_prob.mean() / audio.shape[1]

    def decode(self, z, mel):
        """The waveform of a latent, row by row."""
        context = self.context(mel)
        for index in reversed(range(len(self.flows))):
            flow, order = self.flows[index], self.orders[index]
            z = z[:, self.permutations[index]]
            conditions, rows, queues = flow.conditions(context[:, :, order[1:]]), [z[:, :1]], flow.queues(z)
            for i in range(self.height - 1):
                log_s, shift, queues = self.row(flow, rows[-1][:, None], [c[:, :, i:i + 1] for c in conditions], queues)
                rows.append((z[:, i + 1:i + 2] - shift) * torch.exp(-log_s))
            z = torch.cat(rows, 1)
        return z.transpose(1, 2).flatten(1)

    def fold(self):
        """Multiplies the weights out, for synthesis: there is no training after that."""
        for module in self.modules():
            if parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
        return self.requires_grad_(False)


def test():
    checks = common.Checks()
    checks.close("parameters", common.parameter_count(WaveFlow(16, 64, 8, 8).fold()), 5_925_074)
    model = WaveFlow(8, 4, 4, 3, mels=3, upsample=(2, 4))
    common.shake(model, 0.1)
    audio, mel = torch.randn(2, 32), torch.randn(2, 3, 4)
    with torch.no_grad():
        z, log_det = model.encode(audio, mel)
    wanted = [common.jacobian_log_det(lambda x: model.encode(x[None], m[None])[0], x) for x, m in zip(audio, mel)]
    checks.close("log-determinant", log_det, torch.stack(wanted))
    normal = common.normal_log_prob(z, torch.zeros(()), torch.zeros(())) + log_det
    checks.close("loss", model.loss(audio, mel), -normal.mean() / 32)
    checks.close("decode(encode(x))", model.fold().decode(z, mel), audio)
    checks.finish()


def main():
    parser = common.options(__doc__, batch=8, train_steps=3, repeats=5)
    # The clip is cut to whole frames.
    sizes = {"height": 16, "channels": 64, "flows": 8, "layers": 8, "clip": 16_000, "seconds": 2.0}
    common.add_sizes(parser, sizes)
    args = common.start(parser)
    if args.test:
        test()
    model = WaveFlow(args.height, args.channels, args.flows, args.layers).to(args.device)

    def draw(batch, frames):
        audio = 0.1 * torch.randn(batch, frames * model.hop, device=args.device)
        return audio, torch.randn(batch, 80, frames, device=args.device)
    frames = max(args.clip // model.hop, 1)
    loss = common.compiled(args, model.loss, args.compile)
    found = common.train(args, model, loss, lambda: draw(args.batch, frames), 2e-4, 5.0, args.batch * frames * model.hop)
    frames = max(round(args.seconds * RATE / model.hop), 1)
    latent = lambda: 0.6 * torch.randn(1, model.height, frames * model.hop // model.height, device=args.device)
    _, mel = draw(1, frames)
    model.fold().row = common.compiled(args, Network.row, args.compile)
    seconds, peak = common.sample(args, lambda: model.decode(latent(), mel))
    made = frames * model.hop
    found |= {"sampling_per_s": seconds and made / seconds, "synthesis_times_real_time": seconds and made / RATE / seconds, **peak}
    common.report(args, "waveflow", **common.sizes(args, sizes), parameters=common.parameter_count(model), **found)


if __name__ == "__main__":
    main()
