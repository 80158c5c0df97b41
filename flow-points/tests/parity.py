"""Compares exported networks with an independent composition in PyTorch, in f64.

    FLOW_PARITY=/some/folder cargo test -p flow-points parity -- --ignored
    python flow-points/tests/parity.py /some/folder

Needs torch and safetensors. Prints the largest difference of every tensor relative to its own largest entry, and exits with
1 above its limit: 1e-5, but 5e-5 for gradients of the encoder, which pass six batch normalizations in f32.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

failed = []


def compare(name, ours, reference, limit=1e-5):
    error = (ours.double() - reference).abs().max().item() / max(reference.abs().max().item(), 1e-30)
    if not error <= limit:
        failed.append(name)
    print(f"{name:<40} {error:.2e}")


def parameters(tensors):
    named = {k[6:]: v.double() for k, v in tensors.items() if k.startswith("model.")}
    return {k: v.requires_grad_("running" not in k) for k, v in named.items()}


def layer_count(p):
    return len({k.split(".")[0] for k in p})


def field(p, t, x, z):
    """(W x + b) * sigmoid(Wg c + bg) + Wb c, c = [t, z], tanh in between; groups of consecutive rows share c."""
    groups = z.shape[0]
    c = torch.cat([t.reshape(-1, 1).expand(groups, 1), z], 1)
    h = x.reshape(groups, -1, x.shape[1])
    for i in range(layer_count(p)):
        weight = lambda part: p[f"layer{i}.{part}"]
        y = h @ weight("weight").T + weight("bias")
        gate = torch.sigmoid(c @ weight("gate.weight").T + weight("gate.bias"))
        h = y * gate[:, None, :] + (c @ weight("shift.weight").T)[:, None, :]
        if i + 1 < layer_count(p):
            h = torch.tanh(h)
    return h.reshape(x.shape)


def check_field(path):
    tensors = load_file(path)
    p = parameters(tensors)
    x, z, t = (tensors[k].double().requires_grad_() for k in ("x", "context", "t"))
    value = field(p, t, x, z)
    # Row by row the trace, by one backward pass for each output.
    divergence = sum(
        torch.autograd.grad(value[:, k].sum(), x, create_graph=True)[0][:, k] for k in range(x.shape[1])
    )
    probe = tensors["probe"].double()
    product = torch.autograd.grad((value * probe).sum(), x, create_graph=True)[0]
    compare("value", tensors["out.value"], value.detach())
    compare("divergence", tensors["out.divergence"], divergence.detach())
    compare("divergence by probe", tensors["out.probe_divergence"], (product * probe).sum(1).detach())
    objective = (value * tensors["w"].double()).sum() + (divergence * tensors["u"].double()).sum()
    inputs = {**p, "x": x, "context": z, "t": t}
    for (name, _), gradient in zip(inputs.items(), torch.autograd.grad(objective, inputs.values())):
        compare(f"gradient of {name}", tensors[f"grad.{name}"], gradient)


def normalized(p, name, y):
    mean, variance = y.mean(0), y.var(0, unbiased=False)
    return (y - mean) / torch.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


def check_encoder(path):
    tensors = load_file(path)
    p = parameters(tensors)
    points = tensors["points"].double()
    clouds, count, _ = points.shape
    h = points.reshape(-1, 3)
    for i in range(1, 5):
        h = normalized(p, f"bn{i}", h @ p[f"conv{i}.weight"].T + p[f"conv{i}.bias"])
        if i < 4:
            h = torch.relu(h)
    pooled = h.reshape(clouds, count, -1).max(1).values
    outputs = {}
    for head in ("mean", "log_variance"):
        g = pooled
        for i in (1, 2):
            g = torch.relu(normalized(p, f"{head}.bn{i}", g @ p[f"{head}.fc{i}.weight"].T + p[f"{head}.fc{i}.bias"]))
        outputs[head] = g @ p[f"{head}.fc3.weight"].T + p[f"{head}.fc3.bias"]
        compare(head, tensors[f"out.{head}"], outputs[head].detach())
    objective = sum((outputs[k] * tensors[f"w_{k}"].double()).sum() for k in outputs)
    trained = {k: v for k, v in p.items() if v.requires_grad}
    # What only adds a constant before a batch normalization has no gradient but round-off.
    constant = lambda k: k.endswith(".bias") and ("conv" in k or ".fc1" in k or ".fc2" in k or k == "bn4.bias")
    trained = {k: v for k, v in trained.items() if not constant(k)}
    for name, gradient in zip(trained, torch.autograd.grad(objective, trained.values())):
        compare(f"gradient of {name}", tensors[f"grad.{name}"], gradient, 5e-5)


folder = Path(sys.argv[1])
for file in ("field.safetensors", "field_times.safetensors"):
    print(file)
    check_field(folder / file)
print("encoder.safetensors")
check_encoder(folder / "encoder.safetensors")
print("beyond the limit: " + (", ".join(failed) or "nothing"))
sys.exit(bool(failed))
