//! Space-to-channel reshaping: the permutation that lets a multi-scale flow trade resolution for channels.

use candle_core::Tensor;

use crate::bijector::{Bijector, Pullback, Tape, check_batch, zero_log_det};
use crate::{Error, Gradients, Result};

/// Where the entries of one `f×f` block go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Channel `c·f² + dy·f + dx`: the original channel outermost (Glow).
    ChannelFirst,
    /// Channel `p·C + c` with positions `p` in the order ↖ ↘ ↗ ↙ (RealNVP).
    Checkerboard,
}

/// `(C, H, W) → (f²C, H/f, W/f)`: every `f×f` block of pixels becomes one pixel of `f²C` channels.
///
/// A permutation, so `log |det| = 0`. [`Squeeze::new`] sends `x[c, f·i + dy, f·j + dx]` to channel
/// `c·f² + dy·f + dx` (Kingma & Dhariwal 2018, section 3; Dinh et al. 2017, section 3.6);
/// [`Squeeze::ordered`] groups the channels by position instead.
///
/// # Shapes
/// - event `(C, H, W)` with `H` and `W` divisible by `f`, latent `(f²C, H/f, W/f)`.
#[derive(Debug, Clone)]
pub struct Squeeze {
    event: [usize; 3],
    latent: [usize; 3],
    factor: usize,
    order: Order,
}

impl Squeeze {
    /// A squeeze by `factor` along both spatial dimensions.
    ///
    /// # Errors
    /// [`Error::Config`] unless `shape` is `(C, H, W)` and `factor ≥ 1` divides `H` and `W`; the message
    /// says to which size padding would help.
    pub fn new(shape: &[usize], factor: usize) -> Result<Self> {
        Squeeze::with_order(shape, factor, Order::ChannelFirst)
    }

    /// RealNVP's 2×2 squeeze: channel `p·C + c`, positions `p` in the order top-left, bottom-right,
    /// top-right, bottom-left.
    ///
    /// The first half of the channels is then one colour of a checkerboard and the second half the
    /// other, so that factoring out half of the channels drops every other pixel (Dinh et al. 2017,
    /// section 3.6, with the order of the authors' code).
    ///
    /// # Errors
    /// As [`Squeeze::new`] with a factor of two.
    pub fn ordered(shape: &[usize]) -> Result<Self> {
        Squeeze::with_order(shape, 2, Order::Checkerboard)
    }

    fn with_order(shape: &[usize], factor: usize, order: Order) -> Result<Self> {
        let &[c, h, w] = shape else {
            return Err(Error::config("squeeze", format!("needs an event (C, H, W), got {shape:?}")));
        };
        if factor == 0 {
            return Err(Error::config("squeeze", "needs a factor of at least 1, got 0"));
        }
        if h % factor != 0 || w % factor != 0 {
            let padded = [h.next_multiple_of(factor), w.next_multiple_of(factor)];
            let reason = format!("{factor} does not divide {h}x{w}; pad to {}x{}", padded[0], padded[1]);
            return Err(Error::config("squeeze", reason));
        }
        let latent = [c * factor * factor, h / factor, w / factor];
        Ok(Squeeze { event: [c, h, w], latent, factor, order })
    }

    /// The side of a block.
    pub fn factor(&self) -> usize {
        self.factor
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let batch = check_batch("squeeze", x, &self.event)?;
        let ([c, ..], [_, h, w], f) = (self.event, self.latent, self.factor);
        let blocks = x.reshape(&[batch, c, h, f, w, f][..])?;
        Ok(match self.order {
            Order::ChannelFirst => blocks.permute([0, 1, 3, 5, 2, 4])?.reshape((batch, c * f * f, h, w))?,
            Order::Checkerboard => {
                let rows = blocks.permute([0, 3, 5, 1, 2, 4])?.reshape((batch, 4 * c, h, w))?;
                regroup(&rows, c)?
            }
        })
    }

    fn backward(&self, z: &Tensor) -> Result<Tensor> {
        let batch = check_batch("squeeze", z, &self.latent)?;
        let ([c, height, width], [_, h, w], f) = (self.event, self.latent, self.factor);
        let blocks = match self.order {
            Order::ChannelFirst => z.reshape(&[batch, c, f, f, h, w][..])?.permute([0, 1, 4, 2, 5, 3])?,
            Order::Checkerboard => {
                // The regrouping of four positions is undone by applying it twice more: it has order three.
                let rows = regroup(&regroup(z, c)?, c)?;
                rows.reshape(&[batch, 2, 2, c, h, w][..])?.permute([0, 3, 4, 1, 5, 2])?
            }
        };
        Ok(blocks.reshape((batch, c, height, width))?)
    }
}

/// Row-major positions ↖ ↗ ↙ ↘ of `c` channels each, taken in the order ↖ ↘ ↗ ↙.
fn regroup(x: &Tensor, c: usize) -> Result<Tensor> {
    let part = |p: usize| x.narrow(1, p * c, c);
    Ok(Tensor::cat(&[part(0)?, part(3)?, part(1)?, part(2)?], 1)?)
}

impl Bijector for Squeeze {
    fn name(&self) -> String {
        format!("squeeze {0}x{0}", self.factor)
    }

    fn event_shape(&self) -> &[usize] {
        &self.event
    }

    fn latent_shape(&self) -> &[usize] {
        &self.latent
    }

    fn encode(&self, x: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        Ok((self.forward(x)?, zero_log_det(x)?))
    }

    fn decode(&self, z: &Tensor, _context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        Ok((self.backward(z)?, zero_log_det(z)?))
    }

    /// The gradient of a permutation goes back the way the values do.
    fn backprop(
        &self,
        z: &Tensor,
        _tape: &Tape,
        _context: Option<&Tensor>,
        grad_z: &Tensor,
        _grad_log_det: &Tensor,
        _gradients: &mut Gradients,
    ) -> Result<Pullback> {
        Ok(Pullback { x: self.backward(z)?, grad_x: self.backward(grad_z)?, grad_context: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn numbered(shape: &[usize]) -> Tensor {
        let count = shape.iter().product::<usize>() as f64;
        Tensor::arange(0.0, count, &Device::Cpu).unwrap().reshape(shape).unwrap()
    }

    #[test]
    fn channel_index_is_original_channel_then_row_then_column() {
        let (c, h, w, f) = (3, 4, 6, 2);
        let x = numbered(&[1, c, h, w]);
        let squeeze = Squeeze::new(&[c, h, w], f).unwrap();
        let z = squeeze.encode(&x, None).unwrap().0;
        assert_eq!(z.dims(), [1, c * 4, 2, 3]);
        let z = z.squeeze(0).unwrap().to_vec3::<f64>().unwrap();
        for (channel, plane) in z.iter().enumerate() {
            let (c, dy, dx) = (channel / 4, channel / 2 % 2, channel % 2);
            for (i, row) in plane.iter().enumerate() {
                for (j, &value) in row.iter().enumerate() {
                    assert_eq!(value as usize, (c * h + 2 * i + dy) * w + 2 * j + dx);
                }
            }
        }
    }

    #[test]
    fn ordered_squeeze_separates_the_colours_of_a_checkerboard() {
        let x = numbered(&[1, 1, 2, 4]);
        let z = Squeeze::ordered(&[1, 2, 4]).unwrap().encode(&x, None).unwrap().0;
        let z = z.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(z, [0.0, 2.0, 5.0, 7.0, 1.0, 3.0, 4.0, 6.0], "↖ ↘ of both blocks, then ↗ ↙");
    }

    #[test]
    fn refuses_what_does_not_divide() {
        let message = Squeeze::new(&[3, 7, 8], 2).unwrap_err().to_string();
        assert!(message.contains("7x8") && message.contains("pad to 8x8"), "{message}");
        assert!(Squeeze::new(&[3, 8], 2).is_err() && Squeeze::new(&[3, 8, 8], 0).is_err());
        let squeeze = Squeeze::new(&[1, 4, 4], 2).unwrap();
        assert!(squeeze.encode(&numbered(&[1, 1, 4, 2]), None).is_err());
    }
}
