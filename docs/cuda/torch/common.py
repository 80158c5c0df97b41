"""What the scripts of this folder share: their options, the clock, the line that they print, and what their tests need.

Each of them is one model in plain PyTorch, of the sizes that `docs/cuda/measure.sh` times, so that our programs and PyTorch
can be compared on one machine:

    python glow.py --device cuda                                       eager
    python glow.py --device cuda --compile                             torch.compile
    python glow.py --test                                              is the model right? On the CPU, in double precision

A script prints one line of JSON. A training step is the loss on random data that are on the device already, its gradient, the
clipping of its norm where our program clips, and a step of fused Adam. Times are medians of which the first fifth is not
counted, and the device is synchronised before each clock reading. Everything is computed in single precision without TF32
unless `--tf32` is given, and cuDNN may choose its algorithms by trial (`cudnn.benchmark`).
"""

import argparse
import json
import math
import statistics
import sys
import time

import torch


def options(description, batch, train_steps, repeats):
    """A parser with the options that all scripts have; a script adds those of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", nargs="?", const="whole", choices=["whole", "blocks"],
                        help="torch.compile: the whole function of a step (the default), or the repeated block of the model, "
                        "which is compiled once for every shape and takes less time to compile")
    parser.add_argument("--compile-mode", default="default", help="the mode of torch.compile, e.g. reduce-overhead")
    parser.add_argument("--train-steps", type=int, default=train_steps, help="timed training steps; 0 for none")
    parser.add_argument("--repeats", type=int, default=repeats, help="timed samplings; 0 for none")
    parser.add_argument("--batch", type=int, default=batch, help="samples of a training step")
    parser.add_argument("--threads", type=int, help="threads of the CPU")
    parser.add_argument("--tf32", action="store_true", help="allow products and convolutions in TF32")
    parser.add_argument("--test", action="store_true", help="test the model instead of timing it")
    return parser


def add_sizes(parser, defaults):
    """Adds an option for every size of a model, `--some-size` for `some_size`."""
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help="%(default)s by default")


def sizes(args, defaults):
    """The values of these options."""
    return {name: getattr(args, name) for name in defaults}


def start(parser):
    """The parsed options, with `torch` set up as they say."""
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.backends.cudnn.allow_tf32 = args.tf32
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    if args.test:
        args.device, args.compile = "cpu", None
        torch.set_default_dtype(torch.float64)
    if args.compile:
        # One block is compiled for the shapes of every level, with and without gradients.
        torch._dynamo.config.recompile_limit = 64
    return args


def compiled(args, function, what="whole"):
    """`function`, compiled if that is what `--compile` asks for."""
    if args.compile is None or args.compile != what:
        return function
    return torch.compile(function, mode=args.compile_mode, dynamic=False)


def compile_blocks(args, owner, *names):
    """Compiles methods of a class, for all of its objects together, if `--compile blocks` asks for it."""
    for name in names:
        setattr(owner, name, compiled(args, getattr(owner, name), "blocks"))


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


def timed(args, work):
    """The seconds until the device has done the work."""
    if args.compile:
        torch.compiler.cudagraph_mark_step_begin()
    synchronise(args)
    begun = time.perf_counter()
    work()
    synchronise(args)
    return time.perf_counter() - begun


def synchronise(args):
    if args.device == "cuda":
        torch.cuda.synchronize()


def middle(times):
    """The median without the first fifth of the times, rounded up."""
    return statistics.median(times[math.ceil(len(times) / 5):] or times)


def peak(args, name):
    """The peak of the device's memory since it was last asked for, in MiB; nothing on the CPU."""
    if args.device != "cuda":
        return {}
    found = {name: round(torch.cuda.max_memory_allocated() / 2**20, 1)}
    torch.cuda.reset_peak_memory_stats()
    return found


def train(args, model, loss, draw, learning_rate, clip, samples):
    """Times `--train-steps` steps of Adam on `loss(*draw())`.

    `clip` bounds the norm of the gradient; `samples` says how many samples a step has.
    """
    if args.train_steps == 0:
        return {}
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    last = None

    def step(data):
        nonlocal last
        optimizer.zero_grad(set_to_none=True)
        value = loss(*data)
        value.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        last = value.detach()

    peak(args, "")
    times = []
    for _ in range(args.train_steps):
        data = draw()
        times.append(timed(args, lambda: step(data)))
    seconds = middle(times)
    found = {"train_step_s": seconds, "train_samples_per_s": samples / seconds, "first_train_step_s": times[0]}
    optimizer.zero_grad(set_to_none=True)
    return {**found, "loss": float(last), **peak(args, "train_peak_mib")}


def sample(args, work):
    """The median of the seconds of `--repeats` samplings without gradients, after one that is not counted, and their peak."""
    if args.repeats == 0:
        return None, {}
    peak(args, "")
    with torch.no_grad():
        times = [timed(args, work) for _ in range(1 + args.repeats)]
    return middle(times[1:]), peak(args, "sample_peak_mib")


def report(args, model, **found):
    """Prints the line. What could not be measured is null."""
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    about = {"torch": torch.__version__, "device": device, "threads": torch.get_num_threads(), "tf32": args.tf32}
    about |= {"compile": args.compile, "compile_mode": args.compile_mode if args.compile else None}
    found = {"model": model, "batch": args.batch, **found, **about}
    print(json.dumps({name: known(value) for name, value in found.items()}))


def known(value):
    """A number with six digits; null instead of what JSON has no word for."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def normal_log_prob(z, mean, log_std):
    """`ln N(z; mean, exp(log_std)²)` of every sample, summed over all dimensions but the first."""
    terms = -0.5 * ((z - mean) * torch.exp(-log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    return terms.flatten(1).sum(1)


class Checks:
    """The results of a test."""

    def __init__(self):
        self.failed = []

    def close(self, name, found, wanted, tolerance=1e-8):
        """Notes a failure unless all numbers are equal within the tolerance, relative where they are large."""
        found, wanted = torch.as_tensor(found).detach(), torch.as_tensor(wanted).detach()
        error = float(((found - wanted).abs() / wanted.abs().clamp(min=1)).max())
        if found.shape != wanted.shape or not error <= tolerance:
            self.failed.append(f"{name}: differs by {error:.1e}")

    def finish(self):
        """Prints the verdict and ends the program."""
        print(json.dumps({"test": "FAIL", "failed": self.failed} if self.failed else {"test": "pass"}))
        sys.exit(1 if self.failed else 0)


def shake(model, deviation=0.03):
    """Moves all parameters a little, since a layer that starts at zero shows no mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += deviation * torch.randn_like(parameter)


def jacobian_log_det(function, x):
    """`ln |det|` of the Jacobian of a function of one sample, both flattened, by automatic differentiation."""
    jacobian = torch.autograd.functional.jacobian(lambda v: function(v.view_as(x)).flatten(), x.flatten())
    return torch.linalg.slogdet(jacobian)[1]
