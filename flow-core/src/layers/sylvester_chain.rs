//! Sylvester flows with parameters from a network.

use candle_core::Tensor;

use super::amortized::{check_parameters, spread};
use super::planar::TINY;
use super::sylvester::{NAME as STEP, SLACK, TanhRoot};
use crate::bijector::{Bijector, zero_log_det};
use crate::error::Direction;
use crate::kernels::sylvester::SylvesterSteps;
use crate::kernels::{accepts, fuse};
use crate::{Error, Result};

const NAME: &str = "sylvester chain";

/// `K` Sylvester maps one after the other, each that of [`Sylvester`](super::Sylvester), `x ← x + Q·R·tanh(R̃·Qᵀx + b)`
/// with `M` units, whose parameters are the context: a network gives every row, or every few consecutive rows, a chain
/// of its own (van den Berg et al. 2018, arXiv 1803.05649, sections 3 and 4; its H-SNF).
///
/// On the CPU encoding is one operation, forward and backward.
///
/// The parameters of a map are `M` vectors of length `D`, along which `Q` reflects the first `M` axes; `R` and `R̃`, row by
/// row from the diagonal on, their diagonals before the hyperbolic tangent; and `b`. Where they are zero the map is the
/// identity.
///
/// # Directions
/// As for [`Sylvester`](super::Sylvester): encode is the closed form, decode solves for each map, unit and row by Newton's
/// method inside a bracket. A posterior draws from its base and *encodes*.
///
/// # Shapes
/// - event `(D,)`; context `(K·(M·D + M·(M + 2)),)`, which may have fewer rows than the batch
///   ([`Bijector::groups_context`]).
#[derive(Debug)]
pub struct SylvesterChain {
    shape: [usize; 1],
    units: usize,
    steps: usize,
    width: [usize; 1],
}

impl SylvesterChain {
    /// `steps` maps of vectors of length `dims` with `units` units each.
    ///
    /// # Errors
    /// [`Error::Config`] without steps, or unless `1 ≤ units ≤ dims`.
    pub fn amortized(dims: usize, units: usize, steps: usize) -> Result<Self> {
        if steps == 0 || units == 0 || units > dims {
            let reason =
                format!("needs at least one step and 1 to {dims} units, the dimensions; got {steps} and {units}");
            return Err(Error::config(NAME, reason));
        }
        Ok(SylvesterChain { shape: [dims], units, steps, width: [steps * per_step(dims, units)] })
    }

    /// `K·(M·D + M·(M + 2))`: how many parameters a row has.
    pub fn parameters_per_row(&self) -> usize {
        self.width[0]
    }

    /// The chain in operations of Candle: what the fused one is held against, and the path of other devices.
    fn encode_composed(&self, x: &Tensor, params: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut z, mut total) = (x.clone(), zero_log_det(x)?);
        for k in 0..self.steps {
            let step = self.step(params, x.dim(0)?, k)?;
            let (bumps, log_det) = step.bumps(&step.heights(&z)?.tanh()?)?;
            (z, total) = ((z + bumps)?, (total + log_det)?);
        }
        Ok((z, total))
    }

    /// The parameters of map `k`, constrained.
    fn step(&self, params: &Tensor, rows: usize, k: usize) -> Result<Step> {
        let (dims, units) = (self.shape[0], self.units);
        let mut at = k * per_step(dims, units);
        let mut part = |len: usize| {
            at += len;
            spread(params, rows, at - len, len)
        };
        let mut q = unit_rows(units, dims, params)?.broadcast_as((rows, units, dims))?;
        for _ in 0..units {
            let v = part(dims)?;
            let turn = v.affine(2.0, 0.0)?.broadcast_div(&(v.sqr()?.sum_keepdim(1)? + TINY)?)?;
            let along = q.broadcast_mul(&v.unsqueeze(1)?)?.sum_keepdim(2)?;
            q = (&q - along.broadcast_mul(&turn.unsqueeze(1)?)?)?;
        }
        let mut triangle = || -> Result<Vec<Tensor>> { (0..units).map(|i| constrained(&part(units - i)?)).collect() };
        let (r, r_tilde) = (triangle()?, triangle()?);
        let diagonal = |rows: &[Tensor]| -> Result<Tensor> {
            let entries = rows.iter().map(|row| row.narrow(1, 0, 1)).collect::<candle_core::Result<Vec<_>>>()?;
            Ok(Tensor::cat(&entries, 1)?)
        };
        let slopes = (diagonal(&r)? * diagonal(&r_tilde)?)?;
        Ok(Step { q, r, r_tilde, slopes, b: part(units)? })
    }
}

/// Parameters of one map: reflections, two triangles, shifts.
fn per_step(dims: usize, units: usize) -> usize {
    units * dims + units * (units + 2)
}

/// The first `units` axes, `(1, M, D)`.
fn unit_rows(units: usize, dims: usize, like: &Tensor) -> Result<Tensor> {
    let rows = Tensor::eye(dims, like.dtype(), like.device())?.narrow(0, 0, units)?;
    Ok(rows.unsqueeze(0)?.contiguous()?)
}

/// A row of a triangle: its first entry, that of the diagonal, lies within `±(1 - SLACK)`.
fn constrained(row: &Tensor) -> Result<Tensor> {
    let diagonal = row.narrow(1, 0, 1)?.tanh()?.affine(1.0 - SLACK, 0.0)?;
    match row.dim(1)? {
        1 => Ok(diagonal),
        width => Ok(Tensor::cat(&[diagonal, row.narrow(1, 1, width - 1)?], 1)?),
    }
}

/// The constrained parameters of one map, for every row: `Qᵀ`, `(B, M, D)`; the rows of `R` and `R̃` from their diagonals
/// on, `(B, M - i)` each; `R_ii·R̃_ii` and `b`, `(B, M)`.
struct Step {
    q: Tensor,
    r: Vec<Tensor>,
    r_tilde: Vec<Tensor>,
    slopes: Tensor,
    b: Tensor,
}

/// A triangle times `(B, M)`.
fn times(triangle: &[Tensor], x: &Tensor) -> Result<Tensor> {
    let entry = |(i, row): (usize, &Tensor)| (x.narrow(1, i, row.dim(1)?)? * row)?.sum_keepdim(1);
    let entries = triangle.iter().enumerate().map(entry).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&entries, 1)?)
}

impl Step {
    /// `R̃·Qᵀx + b`, `(B, M)`.
    fn heights(&self, x: &Tensor) -> Result<Tensor> {
        let along = self.q.broadcast_mul(&x.unsqueeze(1)?)?.sum(2)?;
        Ok((times(&self.r_tilde, &along)? + &self.b)?)
    }

    /// `Q·R·h`, `(B, D)`, and `Σ ln(1 + R_ii·R̃_ii·(1 - h²))`, `(B,)`.
    fn bumps(&self, h: &Tensor) -> Result<(Tensor, Tensor)> {
        let log = ((h.sqr()?.affine(-1.0, 1.0)? * &self.slopes)? + 1.0)?.log()?.sum(1)?;
        let bumps = self.q.broadcast_mul(&times(&self.r, h)?.unsqueeze(2)?)?.sum(1)?;
        Ok((bumps, log))
    }

    /// `tanh a` for `a + R̃R·tanh a = c`, `(B, M)`, from the last entry up.
    fn solve(&self, c: &Tensor) -> Result<Tensor> {
        let units = c.dim(1)?;
        // The entries of tanh a and of R·tanh a below the present one, in the order of the triangle.
        let (mut heights, mut sums): (Vec<Tensor>, Vec<Tensor>) = (Vec::new(), Vec::new());
        for i in (0..units).rev() {
            let (r, r_tilde) = (&self.r[i], &self.r_tilde[i]);
            let mut rest = c.narrow(1, i, 1)?;
            let mut behind = rest.zeros_like()?;
            let below = units - 1 - i;
            if below > 0 {
                behind = (Tensor::cat(&heights, 1)? * r.narrow(1, 1, below)?)?.sum_keepdim(1)?;
                let others = (Tensor::cat(&sums, 1)? * r_tilde.narrow(1, 1, below)?)?.sum_keepdim(1)?;
                rest = ((rest - (r_tilde.narrow(1, 0, 1)? * &behind)?)? - others)?;
            }
            let slope = self.slopes.narrow(1, i, 1)?.squeeze(1)?;
            let h = TanhRoot { layer: STEP, slope: &slope }.solve(&rest.squeeze(1)?)?.tanh()?.unsqueeze(1)?;
            sums.insert(0, ((r.narrow(1, 0, 1)? * &h)? + behind)?);
            heights.insert(0, h);
        }
        Ok(Tensor::cat(&heights, 1)?)
    }
}

impl Bijector for SylvesterChain {
    fn name(&self) -> String {
        format!("{NAME} of {}", self.steps)
    }

    fn event_shape(&self) -> &[usize] {
        &self.shape
    }

    fn context_shape(&self) -> Option<&[usize]> {
        Some(&self.width)
    }

    fn groups_context(&self) -> bool {
        true
    }

    fn analytic(&self, direction: Direction) -> bool {
        direction == Direction::Encode
    }

    fn encode(&self, x: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (rows, params) = check_parameters(NAME, x, &self.shape, context, &self.width)?;
        if rows == 0 {
            return Ok((x.clone(), zero_log_det(x)?));
        }
        if !(accepts(x) && accepts(params)) {
            return self.encode_composed(x, params);
        }
        let (dims, units, steps, limit) = (self.shape[0], self.units, self.steps, 1.0 - SLACK);
        let both =
            fuse(SylvesterSteps { rows, groups: params.dim(0)?, dims, units, steps, limit, tiny: TINY }, [x, params])?;
        Ok((both.narrow(1, 0, dims)?.contiguous()?, both.narrow(1, dims, 1)?.squeeze(1)?.contiguous()?))
    }

    fn decode(&self, z: &Tensor, context: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (rows, params) = check_parameters(NAME, z, &self.shape, context, &self.width)?;
        let (mut x, mut total) = (z.clone(), zero_log_det(z)?);
        if rows == 0 {
            return Ok((x, total));
        }
        for k in (0..self.steps).rev() {
            let step = self.step(params, rows, k)?;
            let (bumps, log_det) = step.bumps(&step.solve(&step.heights(&x)?)?)?;
            (x, total) = ((x - bumps)?, (total - log_det)?);
        }
        Ok((x, total))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor, Var};

    use super::*;
    use crate::autodiff::pair;
    use crate::layers::Sylvester;
    use crate::testing::numbers::{distance, normal, relative, store64, values};

    /// A map whose parameters are those of a layer, which has them in matrices.
    #[test]
    fn one_map_is_the_layer() {
        let (dims, units) = (5, 3);
        let store = store64(3);
        let layer = Sylvester::new(&store.root(), dims, units).unwrap();
        let get = |name: &str| values(store.get(name).unwrap().var());
        let mut row = get("v");
        for (upper, diagonal) in [("r", "diagonal"), ("r_tilde", "diagonal_tilde")] {
            let (upper, diagonal) = (get(upper), get(diagonal));
            for i in 0..units {
                row.push(diagonal[i]);
                row.extend((i + 1..units).map(|j| upper[i * units + j]));
            }
        }
        row.extend(get("b"));
        let chain = SylvesterChain::amortized(dims, units, 1).unwrap();
        assert_eq!(row.len(), chain.parameters_per_row());
        let params = Tensor::from_vec(row, (1, chain.parameters_per_row()), &Device::Cpu).unwrap();
        let x = normal(1, &[6, dims]);
        let ((z, log_det), (expected, expected_log)) =
            (chain.encode(&x, Some(&params)).unwrap(), layer.encode(&x, None).unwrap());
        assert!(distance(&z, &expected) < 1e-12 && distance(&log_det, &expected_log) < 1e-12);
        assert!(distance(&chain.decode(&z, Some(&params)).unwrap().0, &x) < 1e-9);
    }

    /// Value, log-determinant and the gradients of a random functional of both.
    #[test]
    fn the_fused_chain_is_the_composed_one_for_every_way_to_share_parameters() {
        for [rows, groups, dims, units, steps] in
            [[6, 6, 5, 3, 4], [6, 3, 8, 8, 2], [40, 1, 3, 2, 5], [1, 1, 1, 1, 1], [12, 4, 19, 4, 2]]
        {
            let chain = SylvesterChain::amortized(dims, units, steps).unwrap();
            let x = Var::from_tensor(&normal(1, &[rows, dims])).unwrap();
            let params = Var::from_tensor(&normal(2, &[groups, chain.parameters_per_row()])).unwrap();
            let pass = |fused: bool| {
                let (z, log_det) = match fused {
                    true => chain.encode(x.as_tensor(), Some(params.as_tensor())),
                    false => chain.encode_composed(x.as_tensor(), params.as_tensor()),
                }
                .unwrap();
                let objective = pair(&z, &normal(7, z.dims())).unwrap() + pair(&log_det, &normal(8, &[rows])).unwrap();
                let store = objective.unwrap().backward().unwrap();
                let of = |v: &Var| store.get(v).unwrap().clone();
                [z, log_det, of(&x), of(&params)]
            };
            for (what, (a, b)) in
                ["z", "log_det", "grad x", "grad params"].iter().zip(pass(true).iter().zip(&pass(false)))
            {
                let gap = relative(a, b);
                assert!(gap < 1e-11, "{what} of {rows} rows, {groups} groups, {dims} {units} {steps}: {gap}");
            }
        }
    }

    #[test]
    fn single_precision_agrees_with_double() {
        let chain = SylvesterChain::amortized(40, 8, 10).unwrap();
        let (x, params) = (normal(1, &[8, 40]), (normal(2, &[8, chain.parameters_per_row()]) * 0.3).unwrap());
        let [x32, p32] = [&x, &params].map(|t| t.to_dtype(DType::F32).unwrap());
        let (z, log_det) = chain.encode(&x, Some(&params)).unwrap();
        let (z32, log32) = chain.encode(&x32, Some(&p32)).unwrap();
        assert!(relative(&z32, &z) < 1e-4 && relative(&log32, &log_det) < 1e-4);
    }

    #[test]
    fn zeros_are_the_identity_and_bad_sizes_are_refused() {
        let chain = SylvesterChain::amortized(4, 2, 3).unwrap();
        let x = normal(1, &[6, 4]);
        let zeros = Tensor::zeros((2, chain.parameters_per_row()), x.dtype(), x.device()).unwrap();
        let (z, log_det) = chain.encode(&x, Some(&zeros)).unwrap();
        assert!(distance(&z, &x) < 1e-14 && distance(&log_det, &log_det.zeros_like().unwrap()) < 1e-14);
        for (dims, units, steps) in [(0, 1, 1), (3, 0, 1), (3, 4, 1), (3, 2, 0)] {
            assert!(SylvesterChain::amortized(dims, units, steps).is_err(), "{dims} {units} {steps}");
        }
    }
}
