//! What a family of image models builds: a flow over scaled images, and what its training needs besides.

use flow_core::numerics::host;
use flow_core::{Error, Gradients, MultiScale, Param, Result};

use super::{ClassHead, PixelScaling};

/// A family's flow, with what else differs between families.
///
/// Made by [`ModelConfig::build`](super::ModelConfig::build); [`ImageModel`](super::ImageModel) trains and samples it.
#[non_exhaustive]
pub struct ImageFlow {
    /// The density of scaled images `(B, C, H, W)`; its context, if it has one, is the one-hot class `(B, classes)`.
    pub flow: MultiScale,
    /// How pixels are scaled before the flow.
    pub scaling: PixelScaling,
    /// The classifier of a conditional model.
    pub class_head: Option<ClassHead>,
    /// What is added to the loss for the size of parameters.
    pub penalty: Penalty,
}

impl ImageFlow {
    /// A flow with neither classifier nor penalty.
    pub fn new(flow: MultiScale, scaling: PixelScaling) -> Self {
        ImageFlow { flow, scaling, class_head: None, penalty: Penalty::default() }
    }
}

/// An L2 penalty `λ · Σ v²` on some parameters, in nats per image; by default on none.
#[derive(Debug, Clone, Default)]
pub struct Penalty {
    coefficient: f64,
    params: Vec<Param>,
}

impl Penalty {
    /// `coefficient · Σ v²` over all entries of `params`.
    ///
    /// # Errors
    /// [`Error::Config`] for a coefficient that is negative or not finite.
    pub fn l2(coefficient: f64, mut params: Vec<Param>) -> Result<Self> {
        if !(coefficient >= 0.0 && coefficient.is_finite()) {
            return Err(Error::config("l2 penalty", format!("must be finite and not negative, got {coefficient}")));
        }
        // The sum has the same bits in whatever order a builder collects.
        params.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(Penalty { coefficient, params })
    }

    /// The parameters that it is on, in the order of their names.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Adds the gradient of `scale` times the penalty, `2 · scale · λ · v`, and returns the penalty itself.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn backward(&self, scale: f64, gradients: &mut Gradients) -> Result<f64> {
        let mut total = 0.0;
        for param in &self.params {
            let value = param.var().as_detached_tensor();
            gradients.add(param, &value.affine(2.0 * scale * self.coefficient, 0.0)?)?;
            total += host::sum(&value.sqr()?.sum_all()?)?;
        }
        Ok(self.coefficient * total)
    }
}
