"""Compares exported networks with an independent composition in PyTorch, in f64.

    FLOW_PARITY=/some/folder cargo test -p flow-points parity -- --ignored
    python flow-points/tests/parity.py /some/folder

Needs torch and safetensors. Prints the largest difference of every tensor relative to its own largest entry, and exits with
1 above its limit: 1e-10 for the networks in f64, which shows the formulas; 1e-5 for those in f32, which adds their round-off.
Gradients of an f32 encoder pass six batch normalizations and a maximum; there the limit is twice the most that this
composition itself loses in f32, printed beside, where that is more.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

failed = []
limit = 1e-5


def distance(a, b):
    return (a.double() - b.double()).abs().max().item() / max(b.abs().max().item(), 1e-30)


def compare(name, ours, reference, allowed=None, beside=""):
    error = distance(ours, reference)
    if not error <= (allowed or limit):
        failed.append(name)
    print(f"{name:<40} {error:.2e}{beside}")


def parameters(tensors, dtype=torch.float64):
    named = {k[6:]: v.to(dtype) for k, v in tensors.items() if k.startswith("model.")}
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


def encoder(tensors, dtype):
    """Outputs of both heads, and the gradients of all parameters that have one."""
    p = parameters(tensors, dtype)
    points = tensors["points"].to(dtype)
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
    objective = sum((outputs[k] * tensors[f"w_{k}"].to(dtype)).sum() for k in outputs)
    # What only adds a constant before a batch normalization has no gradient but round-off.
    constant = lambda k: k.endswith(".bias") and ("conv" in k or ".fc1" in k or ".fc2" in k or k == "bn4.bias")
    trained = {k: v for k, v in p.items() if v.requires_grad and not constant(k)}
    return outputs, dict(zip(trained, torch.autograd.grad(objective, trained.values())))


def check_encoder(path):
    tensors = load_file(path)
    outputs, gradients = encoder(tensors, torch.float64)
    own, allowed = {}, None
    if tensors["points"].dtype == torch.float32:
        _, in_f32 = encoder(tensors, torch.float32)
        own = {name: distance(in_f32[name], gradient) for name, gradient in gradients.items()}
        allowed = max(limit, 2 * max(own.values()))
    for head, value in outputs.items():
        compare(head, tensors[f"out.{head}"], value.detach())
    for name, gradient in gradients.items():
        beside = f"   PyTorch in f32 {own[name]:.2e}" if own else ""
        compare(f"gradient of {name}", tensors[f"grad.{name}"], gradient, allowed, beside)


folder = Path(sys.argv[1])
for ending, limit in (("", 1e-5), ("_f64", 1e-10)):
    for name, check in (("field", check_field), ("field_times", check_field), ("encoder", check_encoder)):
        print(f"{name}{ending}.safetensors")
        check(folder / f"{name}{ending}.safetensors")
print("beyond the limit: " + (", ".join(failed) or "nothing"))
sys.exit(bool(failed))
