"""The eight schools fitted by a flow of zuko: the peer of `density fit --problem eight-schools --estimator total`.

    pip install torch zuko
    python docs/peers/eight_schools.py --steps 3000         a whole fit: bound, evidence, samples a second
    python docs/peers/eight_schools.py --steps 60           speed
    python docs/peers/eight_schools.py --sequential ...     sample as zuko does by itself, through inverses of splines

The model is that of the program: y_j ~ N(mu + tau t_j, sigma_j), t_j ~ N(0, 1), mu ~ N(0, 5), tau half-Cauchy of scale 5, without
constants, and the logarithm of tau in the place of tau. The flow has as many couplings of rational-quadratic splines, six of 16 bins
on (-5, 5), and networks of 64 and 64 units; batch, Adam, its highest learning rate and the gradient of the whole bound are the
program's too. The program's flow has learned linear maps between couplings as well, a shift and a scale that are fitted first, a
warm-up and an average of its weights; zuko's networks have outputs for all variables, of which half are not used.
"""
import argparse, json, math, time

import torch
import zuko

Y = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18])
EVIDENCE = 7.9503  # by quadrature


def log_density(z):
    mu, log_tau, t = z[:, 0], z[:, 1], z[:, 2:]
    tau = log_tau.exp()
    residual = (Y - mu[:, None] - tau[:, None] * t) / SIGMA
    prior = -0.5 * (mu / 5) ** 2 - torch.log1p((tau / 5) ** 2) - 0.5 * (t**2).sum(1)
    return prior - 0.5 * (residual**2).sum(1) + log_tau


def draw(flow, batch, sequential):
    """Samples and their log-densities."""
    distribution = flow()
    if sequential:
        return distribution.rsample_and_log_prob((batch,))
    base = distribution.base.rsample((batch,))
    z, log_det = distribution.transform.call_and_ladj(base)
    return z, distribution.base.log_prob(base) - log_det


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=20000)
    parser.add_argument("--sequential", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    flow = zuko.flows.NSF(10, transforms=6, hidden_features=(64, 64), bins=16, passes=2)
    optimizer = torch.optim.Adam(flow.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps, 2e-5)
    times = []
    for _ in range(args.steps):
        start = time.perf_counter()
        z, log_q = draw(flow, args.batch, args.sequential)
        loss = (log_q - log_density(z)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10)
        optimizer.step()
        schedule.step()
        times.append(time.perf_counter() - start)
    times = sorted(times[len(times) // 4 :])
    with torch.no_grad():
        z, log_q = draw(flow, args.draws, args.sequential)
        weight = (log_density(z) - log_q).double()
    shares = torch.softmax(weight, 0)
    print(
        json.dumps(
            {
                "samples_per_s": round(args.batch / times[len(times) // 2]),
                "bound": round(float(weight.mean()), 4),
                "log_evidence": round(float(torch.logsumexp(weight, 0)) - math.log(args.draws), 4),
                "known": EVIDENCE,
                "effective": round(float(1 / (shares**2).sum() / args.draws), 4),
                "parameters": sum(p.numel() for p in flow.parameters()),
            }
        )
    )


if __name__ == "__main__":
    main()
