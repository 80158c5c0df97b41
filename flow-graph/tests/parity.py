"""Compares exported log-likelihoods with an independent composition of GraphAF in PyTorch, in f64.

    FLOW_PARITY=/some/folder cargo test -p flow-graph parity -- --ignored
    python flow-graph/tests/parity.py /some/folder

Needs torch and safetensors. Every decision evaluates a dense graph network on a sub-graph of its own; nothing is
shared between decisions. Ends with an error when a decision differs by more than 1e-4, relatively.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def first_neighbours(n, bonds):
    """The first neighbour of every atom among the earlier ones."""
    first = [0] * (n + 1)
    for atom in range(1, n):
        first[atom] = min(to for later, to, _ in bonds if later == atom)
    return first


def distances(n, bonds, start):
    """Distances in bonds from one atom, by breadth-first search."""
    neighbours = {v: [b if a == v else a for a, b, _ in bonds if v in (a, b)] for v in range(n)}
    found, queue = {start: 0}, [start]
    for u in queue:
        for v in neighbours[u]:
            if v not in found:
                found[v] = found[u] + 1
                queue.append(v)
    return found


def ring_flags(n, bonds):
    """For every atom the sizes of the rings that the bonds closed, 3 … 8, in the order of the bonds."""
    flags = [set() for _ in range(n)]
    for k, (atom, to, _) in enumerate(bonds):
        before = bonds[:k]
        far = distances(n, before, atom)
        if to not in far:
            continue
        size, at = far[to] + 1, to
        flags[at].add(size)
        while at != atom:
            near = [b if a == at else a for a, b, _ in before if at in (a, b)]
            at = min(v for v in near if far.get(v, 1 << 30) == far[at] - 1)
            flags[at].add(size)
    return flags


def features(config, atoms, bonds, closed_below):
    """Multi-hot input features; an atom code of None shows nothing of a type."""
    types, n = len(config["vocabulary"]), len(atoms)
    wide = types if config["features"] == "type" else types + 16
    x = torch.zeros(n, wide, dtype=torch.float64)
    rings = ring_flags(n, bonds)
    for v, code in enumerate(atoms):
        if code is not None:
            x[v, code] = 1
        if config["features"] == "state":
            x[v, types + min(8, sum(o for a, b, o in bonds if v in (a, b)))] = 1
            x[v, types + 9] = float(v < closed_below)
            for size in rings[v]:
                x[v, types + 10 + min(size, 8) - 3] = 1
    return x


def embed(config, w, atoms, bonds, closed_below):
    """Embeddings of all atoms."""
    h = features(config, atoms, bonds, closed_below) @ w["embed"]
    n, width = len(atoms), config["width"]
    for layer in range(config["layers"]):
        out = h.clone() if config["residual"] and h.shape[1] == width else torch.zeros(n, width, dtype=torch.float64)
        for kind in range(3):
            a = torch.eye(n, dtype=torch.float64)
            for u, v, order in bonds:
                if order == kind + 1:
                    a[u, v] = a[v, u] = 1
            z = a @ (h @ w[f"gnn.{layer}.weight"][:, kind * width : (kind + 1) * width])
            out = out + (torch.relu(z) if layer + 1 < config["layers"] else z)
        h = out
    return h * w["norm.scale"] + w["norm.shift"]


def decide(config, w, head, condition, geometry, target, classes, noise, closed):
    """The log-density of one decision."""
    pre = condition @ w[f"{head}.weight"] + w[f"{head}.bias"]
    for name, row in geometry:
        pre = pre + w[f"{head}.{name}"][row]
    if config["head"]["kind"] == "spline":
        h, k = torch.relu(pre), 0
        while f"{head}.hidden.{k}.weight" in w:
            h = torch.relu(h @ w[f"{head}.hidden.{k}.weight"] + w[f"{head}.hidden.{k}.bias"])
            k += 1
        logits = h @ w[f"{head}.output.weight"] + w[f"{head}.output.bias"]
        if closed is not None:
            logits[closed] = -float("inf")
        return torch.log_softmax(logits, 0)[target].item()
    x = config["head"]["noise"] * noise
    if target < classes:
        x[target] += 1
    h, log_det, hidden = torch.tanh(pre), 0.0, config["head"]["hidden"]
    for layer in range(config["head"]["layers"]):
        part = slice(layer * hidden, (layer + 1) * hidden)
        out = h[part] @ w[f"{head}.output.weight"][part] + w[f"{head}.output.bias"][layer]
        s = torch.exp(w[f"{head}.output.log_range"][layer]) * torch.tanh(out[classes:])
        x, log_det = (x + out[:classes]) * torch.exp(s), log_det + s.sum()
    return (torch.distributions.Normal(0.0, 1.0).log_prob(x).sum() + log_det).item()


def score(config, w, case):
    """Log-densities of all atom and all bond decisions of a molecule."""
    types, stop_class = len(config["vocabulary"]), config["stop"] == "class"
    atoms, bonds, n = case["atoms"], [tuple(b) for b in case["bonds"]], len(case["atoms"])
    classes, first = types + stop_class, first_neighbours(n, bonds)
    noise = {k: torch.tensor(case[f"noise_{k}"], dtype=torch.float64) for k in ("atoms", "bonds")}
    of_atoms, of_bonds = [], []

    def atom_decision(i, target):
        old = [b for b in bonds if b[0] < i]
        h = embed(config, w, atoms[:i], old, first[i - 1] if i else 0)
        k = len(of_atoms)
        closed = types if stop_class and i == 0 else None
        noisy = noise["atoms"][k * classes : (k + 1) * classes].clone()
        of_atoms.append(decide(config, w, "atom", h.sum(0), [], target, classes, noisy, closed))

    def bond_decisions(i, code):
        start = first[i - 1] if config["candidates"] == "frontier" else max(0, i - config["candidates"]["window"])
        for j in range(start, i):
            own = [b for b in bonds if b[0] == i and b[1] < j]
            now = [b for b in bonds if b[0] < i] + own
            h = embed(config, w, atoms[:i] + [code], now, own[0][1] if own else first[i - 1])
            far = distances(i + 1, now, i).get(j, 0)
            geometry = [("distance", min(far, 15)), ("offset", min(i - j, 15))] if config["geometry"] == "distances" else []
            target = next((order - 1 for a, b, order in bonds if (a, b) == (i, j)), 3)
            k = len(of_bonds)
            noisy = noise["bonds"][k * 4 : (k + 1) * 4].clone()
            condition = torch.cat([h[j], h[i], h.sum(0)])
            of_bonds.append(decide(config, w, "bond", condition, geometry, target, 4, noisy, None))

    for i in range(n):
        atom_decision(i, atoms[i])
        if i:
            bond_decisions(i, atoms[i])
    if n < config["max_atoms"]:
        atom_decision(n, types)
        if not stop_class:
            bond_decisions(n, None)
    return of_atoms, of_bonds


def main():
    torch.set_num_threads(1)
    failed = False
    for model in ("paper", "spline"):
        folder = Path(sys.argv[1]) / model
        config = json.loads((folder / "config.json").read_text())["task"]
        w = {k: v.double() for k, v in load_file(folder / "model.safetensors").items()}
        largest, whole = 0.0, 0.0
        for case in json.loads((folder / "cases.json").read_text()):
            of_atoms, of_bonds = score(config, w, case)
            theirs = case["log_p_atoms"] + case["log_p_bonds"]
            ours = of_atoms + of_bonds
            assert len(ours) == len(theirs), (model, len(ours), len(theirs))
            largest = max([largest] + [abs(a - b) / max(1, abs(a)) for a, b in zip(ours, theirs)])
            whole = max(whole, abs(sum(ours) - sum(theirs)) / max(1, abs(sum(ours))))
        print(f"{model}: largest relative difference {largest:.2e} per decision, {whole:.2e} per molecule")
        failed |= not largest < 1e-4
    sys.exit(failed)


if __name__ == "__main__":
    main()
