//! Clipping by global norm (Pascanu, Mikolov & Bengio 2013, algorithm 1).

use crate::{Gradients, Result};

/// The outcome of [`clip_global_norm`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipped {
    /// `‖g‖₂` over all parameters before clipping; non-finite if any gradient is.
    pub norm: f64,
    /// What the gradients were multiplied with, 1 for "left alone".
    pub factor: f64,
}

/// Scales all gradients by `max / ‖g‖` when their joint norm exceeds `max`.
///
/// In data-parallel training it belongs after the all-reduce: the norm of a mean is not the mean of norms.
/// Gradients with a non-finite norm are left alone, for the guard to see.
pub fn clip_global_norm(gradients: &mut Gradients, max: Option<f64>) -> Result<Clipped> {
    let norm = gradients.global_norm()?;
    let factor = match max {
        Some(max) if norm.is_finite() && norm > max => max / norm,
        _ => 1.0,
    };
    if factor != 1.0 {
        gradients.scale(factor)?;
    }
    Ok(Clipped { norm, factor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::param::{Init, ParamStore};
    use candle_core::{DType, Device, Tensor};

    fn three_four(extra: f64) -> Gradients {
        let store = ParamStore::new(0, DType::F64, &Device::Cpu);
        let a = store.root().param("a", 1, Init::Const(0.0)).unwrap();
        let b = store.root().param("b", (1, 2), Init::Const(0.0)).unwrap();
        let mut gradients = Gradients::new(&store);
        gradients.add(&a, &Tensor::new(&[3.0], &Device::Cpu).unwrap()).unwrap();
        gradients.add(&b, &Tensor::new(&[[extra, -4.0]], &Device::Cpu).unwrap()).unwrap();
        gradients
    }

    #[test]
    fn scales_to_the_limit_and_no_further() {
        let mut g = three_four(0.0);
        assert_eq!(clip_global_norm(&mut g, Some(6.0)).unwrap(), Clipped { norm: 5.0, factor: 1.0 });
        assert_eq!(clip_global_norm(&mut g, None).unwrap().factor, 1.0);
        assert_eq!(clip_global_norm(&mut g, Some(2.5)).unwrap(), Clipped { norm: 5.0, factor: 0.5 });
        assert_eq!(g.flatten().unwrap(), [1.5, 0.0, -2.0]);
        assert!((g.global_norm().unwrap() - 2.5).abs() < 1e-12);
    }

    #[test]
    fn leaves_non_finite_gradients_for_the_guard() {
        let mut g = three_four(f64::NAN);
        assert!(clip_global_norm(&mut g, Some(1.0)).unwrap().norm.is_nan());
        assert_eq!(g.flatten().unwrap()[0], 3.0);
    }
}
