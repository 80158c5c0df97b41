//! Timings of PointFlow for comparison with other implementations: one line of JSON.
//!
//! Clouds are random: the cost of a step does not depend on what they show, but for the steps that an adaptive solver
//! takes, so comparisons of likelihood steps use a fixed number of steps or report evaluations.

use anyhow::Result;
use candle_core::{DType, Tensor};
use clap::{Parser, ValueEnum};
use examples::bench::{median, memory, timed};
use examples::cli::{DeviceArg, at_least_one};
use flow_core::cnf::ode::{Method, SolveOptions, Stepping};
use flow_core::cnf::{Divergence, OdeGradient, Probe};
use flow_core::train::{Optimizer, OptimizerConfig};
use flow_core::{Backprop, Density, FlowRng, Gradients, ParamStore};
use flow_points::model::{Draw, Objective, PointFlow, PointFlowConfig};
use std::process::ExitCode;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// A step of flow matching with its optimizer.
    Matching,
    /// Drawing clouds given latents, ten Euler steps.
    Sampling,
    /// Drawing clouds given latents as the paper does, dopri5 at 1e-5.
    PaperSampling,
    /// Value and gradient of the point flow's log-likelihood.
    Likelihood,
    /// A step of the paper's objective with its optimizer.
    Bound,
}

/// Timings of PointFlow
#[derive(Parser, Debug)]
struct Args {
    /// What to time
    #[arg(long, value_enum, default_value_t = What::Matching)]
    what: What,
    /// Clouds
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Points of a cloud
    #[arg(long, default_value_t = 2048)]
    points: usize,
    /// Width of the point flow's hidden layers
    #[arg(long, default_value_t = 512)]
    width: usize,
    /// Timed repetitions
    #[arg(long, default_value_t = 10)]
    repeats: usize,
    /// Fixed RK4 steps instead of dopri5 at 1e-5
    #[arg(long)]
    rk4: Option<usize>,
    /// Exact divergence instead of one Gaussian probe
    #[arg(long)]
    exact: bool,
    /// Gradients by the adjoint equation instead of through the steps
    #[arg(long)]
    adjoint: bool,
    #[command(flatten)]
    device: DeviceArg,
}

fn main() -> ExitCode {
    examples::cli::main(|| Args::parse().run())
}

impl Args {
    fn run(&self) -> Result<()> {
        for (flag, value) in [("--batch", self.batch), ("--points", self.points), ("--repeats", self.repeats)] {
            at_least_one(flag, value)?;
        }
        let device = self.device.open()?;
        let idle = memory("VmHWM");
        let store = ParamStore::new(0, DType::F32, &device);
        let model = PointFlow::new(self.config(), &store)?;
        let mut rng = FlowRng::seed_from(1);
        let clouds = rng.normal((self.batch, self.points, 3), DType::F32, &device)?;
        let latents = rng.normal((self.batch, 128), DType::F32, &device)?;
        let mut optimizer = Optimizer::new(OptimizerConfig::adam(1e-3), &store)?;
        let (mut times, mut value) = (Vec::new(), 0.0);
        for repeat in 0..=self.repeats {
            let work = || match self.what {
                What::Matching | What::Bound => {
                    let mut gradients = Gradients::new(&store);
                    let terms = model.backward(&clouds, &mut rng, &mut gradients)?;
                    optimizer.step(&gradients, 1.0)?;
                    Ok(terms.loss.value)
                }
                What::Sampling | What::PaperSampling => self.sample(&model, &latents, &mut rng),
                What::Likelihood => self.likelihood(&model, &clouds, &latents, &mut rng),
            };
            let (found, seconds) = timed(&device, work)?;
            value = found;
            // The first repetition warms up.
            if repeat > 0 {
                times.push(seconds);
            }
        }
        let seconds = median(times);
        println!(
            "{}",
            serde_json::json!({
                "what": format!("{:?}", self.what).to_lowercase(), "batch": self.batch, "points": self.points,
                "width": self.width, "seconds": seconds, "clouds_per_second": self.batch as f64 / seconds,
                "value": value, "evaluations": model.evaluations(),
                "peak_mib": memory("VmHWM"), "idle_mib": idle,
            })
        );
        Ok(())
    }

    fn config(&self) -> PointFlowConfig {
        let matching = matches!(self.what, What::Matching | What::Sampling);
        let mut config = if matching { PointFlowConfig::matching() } else { PointFlowConfig::paper() };
        config.point.hidden.iter_mut().for_each(|w| *w = self.width);
        if let Objective::Likelihood(c) = &mut config.objective {
            if let Some(steps) = self.rk4 {
                c.solver = c.solver.clone().method(Method::Rk4).stepping(Stepping::fixed(steps));
            }
            c.point_divergence = if self.exact { Divergence::Exact } else { Divergence::Hutchinson(Probe::Gaussian) };
            if self.adjoint {
                c.gradient = OdeGradient::Adjoint { solver: None, seminorm: false };
            }
        }
        config
    }

    fn sample(&self, model: &PointFlow, latents: &Tensor, rng: &mut FlowRng) -> Result<f64> {
        let euler = SolveOptions::new(Method::Euler, Stepping::fixed(10));
        // The paper's model brings its own solver.
        let solver = matches!(self.what, What::Sampling).then_some(&euler);
        let draw = Draw::default().with_solver(solver);
        let (clouds, _) = model.decode(latents, self.points, &draw, rng)?;
        Ok(f64::from(clouds.sqr()?.mean_all()?.to_scalar::<f32>()?))
    }

    fn likelihood(&self, model: &PointFlow, clouds: &Tensor, latents: &Tensor, rng: &mut FlowRng) -> Result<f64> {
        let rows = clouds.reshape((self.batch * self.points, 3))?;
        let weight = Tensor::full(-1.0_f32 / self.batch as f32, rows.dim(0)?, rows.device())?;
        let mut gradients = Gradients::new(model.store());
        model.set_noise(rng);
        let scored = model.point_flow().log_prob_backward(
            &rows,
            Some(latents),
            &weight,
            Backprop::Reversible,
            &mut gradients,
        )?;
        Ok(f64::from(scored.log_prob.mean_all()?.to_scalar::<f32>()?))
    }
}
