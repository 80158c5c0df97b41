"""Writes whole models with clips, latents, likelihoods and predictions, made by a composition in PyTorch.

    python flow-video/tests/parity.py torch_videoflow.py /some/folder
    FLOW_PARITY=/some/folder cargo test -p flow-video --test all parity -- --ignored

The first argument is the file of that composition, with a class `VideoFlow` written to the authors' code. Needs torch and
safetensors.
"""

import importlib.util
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

specification = importlib.util.spec_from_file_location("videoflow", sys.argv[1])
videoflow = importlib.util.module_from_spec(specification)
specification.loader.exec_module(videoflow)


# Of the frames that are drawn with noise; the test has the same numbers.
TEMPERATURE, FRAMES = 0.8, 3


def put_norm(out, name, norm):
    out[f"{name}.bias"], out[f"{name}.log_scale"] = norm.b.flatten(), norm.logs.flatten()


def put_mixing(out, name, mixing):
    """The composition multiplies rows from the left: its matrix transposed, factored again."""
    p, l, u = torch.linalg.lu(mixing.w().detach().double().T)
    d = u.diagonal()
    out[f"{name}.p"], out[f"{name}.l"], out[f"{name}.u"] = p, l.tril(-1), u.triu(1)
    out[f"{name}.sign"], out[f"{name}.log_s"] = d.sign(), d.abs().log()


def put_net(out, name, net, gated):
    convs = {"1": net.c1, "2": net.c2, "2_gate": net.c3} if gated else {"1": net.c1, "2": net.c2}
    for key, conv in convs.items():
        number, _, gate = key.partition("_")
        suffix = f"_{gate}" if gate else ""
        weight = conv.W if number == "1" else conv.W[:, :, 0, 0]
        out[f"{name}.w{number}{suffix}"] = weight
        out[f"{name}.b{number}{suffix}"] = conv.an.b.flatten()
        out[f"{name}.l{number}{suffix}"] = conv.an.logs.flatten()
    out[f"{name}.w3"], out[f"{name}.b3"], out[f"{name}.l3"] = net.out.W, net.out.b.flatten(), net.out.logs.flatten()


def put_branch(out, name, branch):
    rows = lambda conv, part: torch.stack([getattr(norm, part).flatten() for norm in conv.an])
    out[f"{name}.first.flag"] = branch.c1.W[:, 0].permute(1, 2, 3, 0)
    out[f"{name}.first.weight"] = branch.c1.W[:, 1:].permute(2, 3, 4, 1, 0)
    out[f"{name}.first.bias"], out[f"{name}.first.log_scale"] = rows(branch.c1, "b"), rows(branch.c1, "logs")
    middle = [branch.c2, branch.c3] if branch.gatu else [branch.c2]
    out[f"{name}.second.weight"] = torch.cat([conv.W[:, :, 0, 0, 0].T for conv in middle], 1)
    out[f"{name}.second.bias"] = torch.cat([rows(conv, "b") for conv in middle], 1)
    out[f"{name}.second.log_scale"] = torch.cat([rows(conv, "logs") for conv in middle], 1)
    out[f"{name}.last.flag"] = branch.out.W[:, 0].permute(1, 2, 3, 0)
    out[f"{name}.last.weight"] = branch.out.W[:, 1:].permute(2, 1, 3, 4, 0)
    out[f"{name}.last.bias"], out[f"{name}.last.log_scale"] = branch.out.b.flatten(), branch.out.logs.flatten()


def put_prior(out, level, prior, top):
    zero = prior.uncond
    if top:
        # Only the edge of a picture of zeros is seen; means first, then log-scales.
        order = torch.cat([torch.arange(0, zero.W.shape[0], 2), torch.arange(1, zero.W.shape[0], 2)])
        out["prior.top.weight"] = zero.W[order, -1:]
        out["prior.top.bias"], out["prior.top.log_scale"] = zero.b.flatten()[order], zero.logs.flatten()[order]
    else:
        out[f"level{level}.split.weight"] = zero.W
        out[f"level{level}.split.bias"], out[f"level{level}.split.log_scale"] = zero.b.flatten(), zero.logs.flatten()
    out[f"level{level}.time.out.weight"] = prior.fin.W
    out[f"level{level}.time.out.bias"] = prior.fin.b.flatten()
    out[f"level{level}.time.out.log_scale"] = prior.fin.logs.flatten()
    for i, block in enumerate(prior.blocks):
        for branch in block:
            put_branch(out, f"level{level}.time.block{i}.dilation{branch.c1.dil}", branch)


def named(model, gated):
    out = {}
    for level, (flow, prior) in enumerate(zip(model.flows, model.priors)):
        for k, step in enumerate(flow):
            put_norm(out, f"level{level}.step{k}.actnorm", step.an)
            put_mixing(out, f"level{level}.step{k}.mix", step.ic)
            put_net(out, f"level{level}.step{k}.coupling", step.nn, gated)
        put_prior(out, level, prior, level == model.L - 1)
    return out


def drawn(model, past, temperature, frames):
    """Frames drawn one after the other and their noise; what is drawn becomes the past."""
    noise, predicted, past = [], [], list(past)
    made = torch.randn_like

    def kept(like):
        noise.append(made(like))
        return noise[-1]

    torch.randn_like = kept
    try:
        for _ in range(frames):
            x, zs = model.sample(past, temperature)
            predicted.append(x)
            past.append(zs)
    finally:
        torch.randn_like = made
    # The composition draws the coarsest level first.
    return noise, torch.stack(predicted, 1)


def export(path, number, dtype, coupling, gated, channels):
    torch.manual_seed(number)
    skip = number % 2 == 0
    sizes = {"C": channels, "HW": 16, "levels": 2, "depth": 3, "width": 16, "coupling": coupling, "gatu": gated}
    model = videoflow.VideoFlow(**sizes, ncond=3, pw=12, pd=2, dil=True, skip=skip)
    clips = torch.randint(0, 256, (2, 6, channels, 16, 16))
    with torch.no_grad():
        model.ddi(clips, 3)
        for p in model.parameters():
            p += 0.02 * torch.randn_like(p)
        model = model.to(dtype)
        for mixing in [m for m in model.modules() if isinstance(m, videoflow.InvConv)]:
            mixing.cache = torch.linalg.inv(mixing.w().double()).to(dtype)
        dims = channels * 16 * 16
        past, scores, latents = [], [], []
        for t in range(6):
            zs, log_prob = model.frame((clips[:, t].to(dtype) + 0.5) / 256 - 0.5, past)
            scores.append(log_prob - torch.log(torch.tensor(256.0, dtype=dtype)) * dims)
            past.append(zs)
            latents.append(zs)
        predicted, _ = model.sample(past, 0.0)
        noise, with_noise = drawn(model, past, TEMPERATURE, FRAMES)
    tensors = {"clips": clips.to(torch.uint8), "log_prob": torch.stack(scores, 1), "predicted": predicted}
    tensors["config"] = torch.tensor([channels, int(coupling == "affine"), int(gated), int(skip)])
    tensors["with_noise"] = with_noise
    tensors |= {f"noise.{i // 2}.{1 - i % 2}": e for i, e in enumerate(noise)}
    for level in range(2):
        # The rows of a clip one after the other.
        tensors[f"latent{level}"] = torch.stack([z[level] for z in latents], 1).flatten(0, 1)
    tensors |= {f"model.{k}": v for k, v in named(model, gated).items()}
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path)


target = Path(sys.argv[2])
target.mkdir(parents=True, exist_ok=True)
for number, (coupling, gated, channels) in enumerate(
    [("affine", True, 1), ("affine", True, 3), ("additive", True, 3), ("affine", False, 1), ("additive", False, 1)]
):
    for dtype, ending in ((torch.float32, ""), (torch.float64, "_f64")):
        export(target / f"video{number}{ending}.safetensors", number, dtype, coupling, gated, channels)
