"""Writes networks of the latent prior with inputs, values and gradients, made by a composition in PyTorch.

    python flow-video/tests/parity_latent.py torch_videoflow.py /some/folder
    FLOW_PARITY=/some/folder cargo test -p flow-video latent::parity -- --ignored

The first argument is the file of that composition, with a class `Stack3(channels, hidden, channels, steps, gated, dilation)`
written to the authors' code. Needs torch and safetensors. With `--speed` as the second argument it measures instead what
`latent::speed` measures: seconds of one core for a single clip.
"""

import importlib.util
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

specification = importlib.util.spec_from_file_location("videoflow", sys.argv[1])
videoflow = importlib.util.module_from_spec(specification)
specification.loader.exec_module(videoflow)

# channels, steps, height, width, hidden, blocks, dilations, gated; and clips
CASES = [
    ([12, 3, 32, 32, 32, 5, 1, 1], 1),
    ([48, 3, 8, 8, 128, 2, 1, 1], 2),
    ([4, 3, 16, 16, 64, 2, 1, 0], 3),
    ([6, 1, 9, 9, 16, 2, 1, 1], 2),
    ([6, 2, 5, 12, 16, 3, 1, 1], 2),
    ([3, 5, 7, 6, 20, 4, 0, 1], 2),
]


def network(config):
    channels, steps, height, width, hidden, blocks, dilations, gated = config
    side = min(height, width)
    rates = [1] + [r + 1 for r in (1, 3) if dilations and 3 + 2 * r <= side]
    stack = lambda d: videoflow.Stack3(channels, hidden, channels, steps, bool(gated), d)
    net = torch.nn.ModuleList([torch.nn.ModuleDict({f"dilation{d}": stack(d) for d in rates}) for _ in range(blocks)])
    return net


def run(net, x):
    """x is (B, T, C, H, W)."""
    x = x.transpose(1, 2)
    for block in net:
        x = x + sum(branch(x) for branch in block.values())
    return x[:, :, -1]


def named(net, of):
    """The crate's parameters by name, of `of(parameter)`: the parameter itself or its gradient."""
    rows = lambda conv, part: torch.stack([of(getattr(norm, part)).flatten() for norm in conv.an])
    out = {}
    for i, block in enumerate(net):
        for name, branch in block.items():
            put = lambda key, value: out.__setitem__(f"block{i}.{name}.{key}", value.detach().contiguous())
            w = of(branch.c1.W)
            put("first.flag", w[:, 0].permute(1, 2, 3, 0))
            put("first.weight", w[:, 1:].permute(2, 3, 4, 1, 0))
            put("first.bias", rows(branch.c1, "b"))
            put("first.log_scale", rows(branch.c1, "logs"))
            middle = [branch.c2, branch.c3] if branch.gatu else [branch.c2]
            put("second.weight", torch.cat([of(conv.W)[:, :, 0, 0, 0].T for conv in middle], 1))
            put("second.bias", torch.cat([rows(conv, "b") for conv in middle], 1))
            put("second.log_scale", torch.cat([rows(conv, "logs") for conv in middle], 1))
            w = of(branch.out.W)
            put("last.flag", w[:, 0].permute(1, 2, 3, 0))
            put("last.weight", w[:, 1:].permute(2, 1, 3, 4, 0))
            put("last.bias", of(branch.out.b).flatten())
            put("last.log_scale", of(branch.out.logs).flatten())
    return out


def export(folder, number, config, clips, dtype):
    torch.manual_seed(number)
    net = network(config).to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.03 * torch.randn_like(p)
    x = torch.randn(clips, config[1], config[0], *config[2:4], dtype=dtype, requires_grad=True)
    value = run(net, x)
    weight = torch.randn_like(value)
    (value * weight).sum().backward()
    zero = lambda p: torch.zeros_like(p) if p.grad is None else p.grad
    tensors = {"config": torch.tensor(config), "x": x, "weight": weight, "value": value, "grad.x": x.grad}
    tensors |= {f"model.{k}": v for k, v in named(net, lambda p: p).items()}
    tensors |= {f"grad.{k}": v for k, v in named(net, zero).items()}
    norms = [m for m in net.modules() if isinstance(m, videoflow.ActNorm)]
    tensors = {k: v.detach().clone() for k, v in tensors.items()}
    for norm in norms:
        norm.init = True
    with torch.no_grad():
        tensors["initialized.value"] = run(net, x)
    tensors |= {f"initialized.{k}": v for k, v in named(net, lambda p: p).items() if not k.endswith("weight")}
    ending = "" if dtype == torch.float32 else "_f64"
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    save_file(tensors, folder / f"latent{number}{ending}.safetensors")


def speed():
    torch.set_num_threads(1)
    for name, hidden, blocks, first in (("bair-quant", 256, 5, 12), ("small", 64, 2, 4)):
        total = 0
        for channels, side in ((first, 32), (2 * first, 16), (4 * first, 8)):
            net = network([channels, 3, side, side, hidden, blocks, 1, 1])
            x = torch.randn(1, 3, channels, side, side)
            least = 1e9
            with torch.no_grad():
                for _ in range(8 if hidden > 100 else 40):
                    start = time.process_time()
                    run(net, x)
                    least = min(least, time.process_time() - start)
            print(f"{name} C={channels} {side}x{side}: forward {1e3 * least:.2f} ms", flush=True)
            total += least
        print(f"{name}: {1e3 * total:.2f} ms")


if sys.argv[2] == "--speed":
    speed()
else:
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for number, (config, clips) in enumerate(CASES):
        for dtype in (torch.float32, torch.float64):
            export(target, number, config, clips, dtype)
