//! How long steps are: what a caller may ask for, and the controller.

use serde::{Deserialize, Serialize};

use super::{Method, Tolerance};
use crate::{Error, Result};

/// A PID controller of step sizes (Söderlind 2003): with errors `e` relative to the tolerance, the next step is
/// `safety · e_n^(-βI/k) · (…)` times the last, where `k` is the order of the error estimate plus one.
///
/// `factor = safety · e_n^-(P+I+D)/k · e_{n-1}^(P+2D)/k · e_{n-2}^-D/k`, clamped. The default is plain integral control.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Pid {
    /// `P`.
    pub proportional: f64,
    /// `I`.
    pub integral: f64,
    /// `D`.
    pub derivative: f64,
    /// Aims below the tolerance.
    pub safety: f64,
    /// The least factor from one step to the next.
    pub min_factor: f64,
    /// The largest factor; 1 right after a rejection.
    pub max_factor: f64,
}

impl Default for Pid {
    fn default() -> Self {
        Pid { proportional: 0.0, integral: 1.0, derivative: 0.0, safety: 0.9, min_factor: 0.2, max_factor: 10.0 }
    }
}

impl Pid {
    /// A controller of these three coefficients, everything else at its default.
    pub fn new(proportional: f64, integral: f64, derivative: f64) -> Self {
        Pid { proportional, integral, derivative, ..Pid::default() }
    }
}

/// What happens when steps become too small, too many, or meet a number that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fallback {
    /// [`Error::Solver`].
    #[default]
    Fail,
    /// Steps of the least size are taken whatever their error; numbers that are not finite still fail.
    AcceptMinStep,
}

/// Steps of one size, or of sizes that follow the error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Stepping {
    /// Equal steps.
    Fixed {
        /// Their number.
        steps: usize,
    },
    /// As long as the tolerance allows.
    Adaptive {
        /// The error that a step may make.
        tolerance: Tolerance,
        /// The controller.
        #[serde(default)]
        controller: Pid,
        /// The first step instead of Hairer's choice.
        #[serde(default)]
        first_step: Option<f64>,
        /// The least step; zero leaves it to the precision of the time.
        #[serde(default)]
        min_step: f64,
        /// The largest step.
        #[serde(default)]
        max_step: Option<f64>,
        /// The most attempts.
        #[serde(default = "max_steps")]
        max_steps: usize,
        /// What happens when steps underflow.
        #[serde(default)]
        fallback: Fallback,
    },
}

fn max_steps() -> usize {
    10_000
}

impl Stepping {
    /// Equal steps.
    pub fn fixed(steps: usize) -> Self {
        Stepping::Fixed { steps }
    }

    /// Steps within a tolerance, everything else at its default.
    pub fn adaptive(rtol: f64, atol: f64) -> Self {
        Stepping::Adaptive {
            tolerance: Tolerance { rtol, atol },
            controller: Pid::default(),
            first_step: None,
            min_step: 0.0,
            max_step: None,
            max_steps: max_steps(),
            fallback: Fallback::Fail,
        }
    }
}

/// A method with its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct SolveOptions {
    /// The method.
    pub method: Method,
    /// Its steps.
    pub stepping: Stepping,
    /// Times that a step must end at.
    pub step_times: Vec<f64>,
    /// Times at which the right-hand side may jump: a step ends there and the slope is evaluated anew.
    pub jump_times: Vec<f64>,
}

impl Default for SolveOptions {
    /// Dopri5 at a relative and absolute tolerance of 1e-5.
    fn default() -> Self {
        SolveOptions {
            method: Method::Dopri5,
            stepping: Stepping::adaptive(1e-5, 1e-5),
            step_times: Vec::new(),
            jump_times: Vec::new(),
        }
    }
}

impl SolveOptions {
    /// A method with its steps.
    pub fn new(method: Method, stepping: Stepping) -> Self {
        SolveOptions { method, stepping, ..SolveOptions::default() }
    }

    /// The same with another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The same with other steps.
    #[must_use]
    pub fn stepping(mut self, stepping: Stepping) -> Self {
        self.stepping = stepping;
        self
    }

    /// The same with times that a step must end at.
    #[must_use]
    pub fn step_times(mut self, step_times: Vec<f64>) -> Self {
        self.step_times = step_times;
        self
    }

    /// The same with times at which the right-hand side may jump.
    #[must_use]
    pub fn jump_times(mut self, jump_times: Vec<f64>) -> Self {
        self.jump_times = jump_times;
        self
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and the legal range.
    pub fn check(&self) -> Result<()> {
        let positive = |name: &str, value: f64| match value > 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(Error::config(name, format!("is {value}, must be a finite number > 0"))),
        };
        match &self.stepping {
            Stepping::Fixed { steps: 0 } => Err(Error::config("steps", "is 0, must be at least 1")),
            Stepping::Fixed { .. } => Ok(()),
            Stepping::Adaptive { .. } if !self.method.adaptive() => {
                let reason = format!("{:?} has no error estimate; use a fixed number of steps", self.method);
                Err(Error::config("method", reason))
            }
            Stepping::Adaptive { tolerance, controller, first_step, min_step, max_step, max_steps, .. } => {
                if !(tolerance.rtol >= 0.0 && tolerance.rtol.is_finite()) {
                    return Err(Error::config("rtol", format!("is {}, must be a finite number ≥ 0", tolerance.rtol)));
                }
                positive("atol", tolerance.atol)?;
                first_step.map_or(Ok(()), |h| positive("first_step", h))?;
                max_step.map_or(Ok(()), |h| positive("max_step", h))?;
                if !(*min_step >= 0.0 && min_step.is_finite()) {
                    return Err(Error::config("min_step", format!("is {min_step}, must be a finite number ≥ 0")));
                }
                if *max_steps == 0 {
                    return Err(Error::config("max_steps", "is 0, must be at least 1"));
                }
                positive("safety", controller.safety)?;
                positive("min_factor", controller.min_factor)?;
                positive("max_factor", controller.max_factor)
            }
        }
    }
}

/// The errors of the last steps, from which the next step follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    before: [f64; 2],
    rejected: bool,
}

impl Memory {
    pub(super) fn new() -> Self {
        Memory { before: [1.0, 1.0], rejected: false }
    }

    /// The factor to the next step for an error relative to the tolerance, and whether this step is accepted.
    pub(super) fn judge(&mut self, pid: &Pid, order: usize, error: f64) -> (f64, bool) {
        let accepted = error <= 1.0;
        if !error.is_finite() {
            self.rejected = true;
            return (pid.min_factor, false);
        }
        let k = order as f64;
        let e = error.max(1e-10);
        let [e1, e2] = self.before;
        let factor = pid.safety
            * e.powf(-(pid.proportional + pid.integral + pid.derivative) / k)
            * e1.powf((pid.proportional + 2.0 * pid.derivative) / k)
            * e2.powf(-pid.derivative / k);
        let most = if self.rejected || !accepted { 1.0 } else { pid.max_factor };
        if accepted {
            self.before = [e, e1];
        }
        self.rejected = !accepted;
        // A rejected step must shrink, or it is tried again as it was.
        let most = if accepted { most } else { most.min(0.95) };
        (factor.clamp(pid.min_factor, most.max(pid.min_factor)), accepted)
    }
}

/// The least step at `t` with `left` to go: what the caller asks for, or a few roundings of the time.
pub(super) fn least_step(t: f64, left: f64, min_step: f64) -> f64 {
    min_step.max(16.0 * f64::EPSILON * t.abs().max(left.min(1.0)))
}

/// The signed length of a step of at most `size` towards `stop`, and whether it ends there, exactly. A step that would leave
/// only a sliver is halved instead.
pub(super) fn step_length(size: f64, t: f64, stop: f64) -> (f64, bool) {
    let left = (stop - t).abs();
    if size >= left {
        (stop - t, true)
    } else if 2.0 * size > left {
        (0.5 * (stop - t), false)
    } else {
        (size.copysign(stop - t), false)
    }
}

/// Hairer's trial step, from the sizes of the state and of its slope (Hairer, Nørsett & Wanner 1993, II.4).
pub(super) fn trial_step(state: f64, slope: f64, longest: f64) -> f64 {
    if state < 1e-5 || slope < 1e-5 { 1e-6_f64.min(longest) } else { (0.01 * state / slope).min(longest) }
}

/// Hairer's first step, from the trial step, the size of the slope and of its change over the trial step.
pub(super) fn first_step(trial: f64, slope: f64, change: f64, order: usize, longest: f64) -> f64 {
    let bend = slope.max(change / trial);
    let guess = if bend <= 1e-15 { (trial * 1e-3).max(1e-6) } else { (0.01 / bend).powf(1.0 / order as f64) };
    let step = (100.0 * trial).min(guess).min(longest);
    if step.is_finite() { step } else { trial }
}
