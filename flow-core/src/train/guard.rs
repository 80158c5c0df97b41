//! The guard against steps whose loss or gradient is not finite.

use serde::{Deserialize, Serialize};

use crate::numerics::host;
use crate::{Error, Gradients, Result};

/// What the loop does with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Loss and gradient are finite: update the weights.
    Update,
    /// Leave weights, moments and averages as they are.
    Skip,
}

/// Counts skipped steps and gives up after too many in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonFiniteGuard {
    /// Skipped steps of the whole run.
    pub total: u64,
    /// Skipped steps since the last good one.
    pub consecutive: u64,
}

impl NonFiniteGuard {
    /// A guard that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges a step by its loss and the global norm of its gradient.
    ///
    /// # Errors
    /// [`Error::NonFinite`] at the `limit`-th bad step in a row. It names the step and the first parameter, in
    /// name order, whose gradient is not finite; `source` is what the task itself reported, if it did.
    pub fn judge(
        &mut self,
        step: u64,
        loss: f64,
        norm: f64,
        gradients: &Gradients,
        source: Option<&Error>,
        limit: u64,
    ) -> Result<Verdict> {
        if loss.is_finite() && norm.is_finite() {
            self.consecutive = 0;
            return Ok(Verdict::Update);
        }
        self.total += 1;
        self.consecutive += 1;
        if self.consecutive < limit {
            return Ok(Verdict::Skip);
        }
        let (layer, what) = match (source, first_non_finite(gradients)?) {
            (Some(Error::NonFinite { layer, what, .. }), _) => (layer.clone(), what.clone()),
            (Some(error), _) => ("training".to_string(), error.to_string()),
            (_, Some(name)) => (name, format!("gradient (the loss was {loss})")),
            (_, None) => ("training".to_string(), "loss".to_string()),
        };
        let what = format!("{what}, {} non-finite steps in a row", self.consecutive);
        Err(Error::NonFinite { layer, what, step: Some(step) })
    }
}

/// The first parameter whose gradient holds a NaN or an infinity.
///
/// `0 · x` is zero for finite `x` and NaN otherwise, so that the sum cannot overflow.
fn first_non_finite(gradients: &Gradients) -> Result<Option<String>> {
    for (param, gradient) in gradients.iter() {
        let Some(g) = gradient else { continue };
        let zero = host::sum(&g.affine(0.0, 0.0)?.flatten_all()?.sum(0)?)?;
        if !zero.is_finite() {
            return Ok(Some(param.name().to_string()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::param::{Init, ParamStore};
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn skips_counts_forgives_and_gives_up() {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let a = store.root().param("a", 2, Init::Const(1.0)).unwrap();
        let b = store.root().param("b", 2, Init::Const(1.0)).unwrap();
        let mut gradients = Gradients::new(&store);
        gradients.add(&a, &Tensor::new(&[1f32, f32::MAX], &Device::Cpu).unwrap()).unwrap();
        gradients.add(&b, &Tensor::new(&[0f32, f32::INFINITY], &Device::Cpu).unwrap()).unwrap();
        let mut guard = NonFiniteGuard::new();
        let nan = f64::NAN;
        assert_eq!(guard.judge(0, nan, 1.0, &gradients, None, 2).unwrap(), Verdict::Skip);
        assert_eq!(guard.judge(1, 1.0, 1.0, &gradients, None, 2).unwrap(), Verdict::Update);
        assert_eq!(guard.judge(2, 1.0, nan, &gradients, None, 2).unwrap(), Verdict::Skip);
        let message = guard.judge(3, 1.0, nan, &gradients, None, 2).unwrap_err().to_string();
        assert!(message.starts_with("b: non-finite gradient (the loss was 1)"), "{message}");
        assert!(message.ends_with("at step 3"), "{message}");
        assert_eq!((guard.total, guard.consecutive), (3, 2));
    }
}
