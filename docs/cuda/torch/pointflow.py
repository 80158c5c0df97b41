"""PointFlow (Yang et al. 2019, arXiv 1906.12320): the paper's networks, beside `pointflow-bench`.

    python pointflow.py --what bound                       a step of the paper's objective, with its optimizer
    python pointflow.py --what paper-sampling              clouds given latents, dopri5 at 1e-5
    python pointflow.py --what matching                    a step of flow matching, with its optimizer

Clouds have 2,048 random points, and there are 16 of them. The encoder is a PointNet of widths 128, 128, 256 and 512 with batch
normalization, the maximum over points and two heads. The field of points has three hidden concat-squash layers of width 512 that
see time and latent, the field of latents two of 256. For the bound both flows have moving batch normalizations at their ends and
a learned end time that starts at one half; the divergence is `vᵀ J v` with one Gaussian `v` for each point and solve, and `J v`
goes through the network beside the value; the solver is dopri5 with tolerances of 1e-5 and our step control (`cnf.py`). Matching
has eight times for each cloud and eight draws for each latent, stratified times, independent noise, and 1e-4 times the
divergence of the posterior from the standard normal. Adam has a rate of 1e-3, and nothing is clipped.

By default every evaluation of a field is computed again for its gradient, so that only states are kept: that is what our program
does, too. With `--graph` the activations of all evaluations are kept, which is less work and takes some gigabytes for each of
two dozen evaluations.

How many evaluations the solver takes depends on the weights, which are random here and there. `point_evaluations` and
`prior_evaluations` are those of the last solve, from data to noise, and `point_evaluations_per_s` is their number over the
seconds of a whole step or of a sampling: compare that. `--dopri5-steps` fixes the number of steps instead.

What differs: our program on a GPU evaluates a field in pieces of 4,096 points, this one at once. `--compile` of any kind
compiles the encoder and the evaluation of the fields where there is a solver, whose loop depends on data, and for matching the
whole loss.
"""

import math

import torch
import torch.nn as nn

import common
from cnf import Cnf, Solver


class Encoder(nn.Module):
    """Clouds to mean and log-variance of the posterior of their latents."""

    def __init__(self, latent, point=(128, 128, 256, 512), head=(256, 128)):
        super().__init__()

        def layers(widths):
            return [part for a, b in zip(widths, widths[1:]) for part in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())]
        # No rectifier before the maximum.
        self.point = nn.Sequential(*layers([3, *point])[:-1])
        heads = [nn.Sequential(*layers([point[-1], *head]), nn.Linear(head[-1], latent)) for _ in range(2)]
        self.mean, self.log_variance = heads

    def forward(self, clouds):
        h = self.point(clouds.flatten(0, 1)).unflatten(0, clouds.shape[:2]).max(1).values
        return self.mean(h), self.log_variance(h)


class PointFlow(nn.Module):
    def __init__(self, width=512, latent=128, prior=(256, 256), graph=False, **solver):
        super().__init__()
        self.encoder = Encoder(latent)
        self.point = Cnf(3, [width] * 3, latent, Solver(**solver), graph)
        self.prior = Cnf(latent, prior, 0, Solver(**solver), graph)

    def latents(self, clouds):
        """A draw of the posterior, and its log-variance and mean."""
        mean, log_variance = self.encoder(clouds)
        return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean), log_variance, mean

    def bound(self, clouds):
        """`-ln p(X|z) - ln p(z) - H[q]` in nats, the mean over clouds."""
        z, log_variance, _ = self.latents(clouds)
        entropy = 0.5 * (log_variance + 1 + math.log(2 * math.pi)).sum(1)
        prior = self.prior.log_prob(z[None], z.new_zeros(1, 0))[0]
        return -(self.point.log_prob(clouds, z).sum(1) + prior + entropy).mean()

    def matching(self, clouds, times=8, draws=8, weight=1e-4):
        """The squared velocity errors of points and of latents, and the weighed divergence of the posterior."""
        z, log_variance, mean = self.latents(clouds)
        divergence = 0.5 * (log_variance.exp() + mean ** 2 - log_variance - 1).sum(1).mean()
        groups = clouds.reshape(len(clouds) * times, -1, 3)
        # The error of latents does not move the encoder.
        latents = self.prior.before(z.detach())[0].detach().repeat_interleave(draws, 0)[:, None]
        error = velocity_error(self.point.field, groups, z.repeat_interleave(times, 0))
        return error + velocity_error(self.prior.field, latents, z.new_zeros(len(latents), 0)) + weight * divergence


def velocity_error(field, x, context):
    """Of groups of rows `(G, N, D)`, each at a time of its own, on straight paths from data to noise."""
    noise, count = torch.randn_like(x), len(x)
    t = (torch.randperm(count, device=x.device)[:, None] + torch.rand_like(x[:, :1, 0])) / count
    velocity, _ = field(t, torch.lerp(x, noise, t[..., None]), context, [])
    return ((velocity - (noise - x)) ** 2).mean()


def test():
    checks = common.Checks()
    checks.close("parameters", common.parameter_count(PointFlow()), 1_608_346)
    model = PointFlow(8, latent=4, prior=(6,), tolerance=1e-10)
    common.shake(model, 0.2)
    clouds, context = 0.5 * torch.randn(3, 8, 3) + 0.2, torch.randn(3, 4)
    with torch.no_grad():
        # Moves the statistics of the normalizations.
        model.bound(clouds)
    model.eval()

    def gradients(graph):
        model.point.graph = model.prior.graph = graph
        torch.manual_seed(1)
        loss = model.bound(clouds)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    checks.close("gradients with and without recomputation", gradients(False), gradients(True))
    point, basis = model.point, [v.expand(3, 8, 3) for v in torch.eye(3)]
    z, log_det = (t.detach() for t in point.encode(clouds, context, basis))
    checks.close("decode(encode(x))", point.decode(z, context), clouds)
    alone = lambda i: lambda x: point.encode(x[None, None], context[i:i + 1], [v[:1, :1] for v in basis])[0]
    wanted = [common.jacobian_log_det(alone(i), x) for i, cloud in enumerate(clouds) for x in cloud]
    checks.close("log-determinant", log_det.flatten(), torch.stack(wanted), 1e-7)
    value = lambda x: point.field(torch.full((3, 1), 0.3), x, context, [])[0]
    probe = torch.randn(3, 8, 3)
    _, (product,) = point.field(torch.full((3, 1), 0.3), clouds, context, [probe])
    checks.close("J v", product, torch.autograd.functional.jvp(value, clouds, probe)[1])
    point.solver.steps = 100
    checks.close("fixed steps", point.encode(clouds, context, basis)[0], z, 1e-7)
    checks.close("evaluations of fixed steps", point.solver.evaluations, 600)
    checks.finish()


def main():
    parser = common.options(__doc__, batch=16, train_steps=10, repeats=10)
    parser.add_argument("--what", choices=["bound", "paper-sampling", "matching"], default="bound")
    parser.add_argument("--points", type=int, default=2048, help="points of a cloud")
    parser.add_argument("--width", type=int, default=512, help="width of the hidden layers of the field of points")
    parser.add_argument("--dopri5-steps", type=int, help="so many equal steps instead of a tolerance")
    parser.add_argument("--graph", action="store_true", help="keep the activations of all evaluations")
    args = common.start(parser)
    if args.test:
        test()
    model = PointFlow(args.width, graph=args.graph, steps=args.dopri5_steps).to(args.device)
    if args.compile and args.what != "matching":
        compiled = lambda function: common.compiled(args, function, args.compile)
        model.encoder.forward = compiled(model.encoder.forward)
        for cnf in (model.point, model.prior):
            cnf.evaluate = compiled(cnf.rates)
    clouds = torch.randn(args.batch, args.points, 3, device=args.device)
    latents = torch.randn(args.batch, 128, device=args.device)
    found = {"points": args.points, "width": args.width, "parameters": common.parameter_count(model)}
    if args.what == "paper-sampling":
        model.eval()
        draw = lambda: model.point.decode(torch.randn_like(clouds), latents)
        seconds, peak = common.sample(args, draw)
        found |= {"sampling_s": seconds, "sampling_per_s": seconds and args.batch / seconds, **peak}
    else:
        loss = model.bound if args.what == "bound" else common.compiled(args, model.matching, args.compile)
        found |= common.train(args, model, loss, lambda: (clouds,), 1e-3, None, args.batch)
        seconds = found.get("train_step_s")
    for name in ["point", "prior"] if args.what != "matching" else []:
        evaluations = getattr(model, name).solver.evaluations
        found[f"{name}_evaluations"] = evaluations
        found[f"{name}_evaluations_per_s"] = seconds and evaluations / seconds
    common.report(args, "pointflow", what=args.what, **found)


if __name__ == "__main__":
    main()
