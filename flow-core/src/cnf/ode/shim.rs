#![allow(missing_docs)]
use super::{RowState, State, Tolerance};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    Euler,
    Midpoint,
    Heun,
    Rk4,
    Bosh3,
    Dopri5,
    Tsit5,
    Dopri8,
}
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SolveOptions {
    pub method: Method,
    pub stepping: Stepping,
    pub step_times: Vec<f64>,
    pub jump_times: Vec<f64>,
}
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Stepping {
    Fixed { steps: usize },
    Adaptive { tolerance: Tolerance, first_step: Option<f64>, min_step: f64, max_step: Option<f64> },
}
impl Stepping {
    pub fn fixed(steps: usize) -> Self {
        Stepping::Fixed { steps }
    }
    pub fn adaptive(rtol: f64, atol: f64) -> Self {
        Stepping::Adaptive { tolerance: Tolerance { rtol, atol }, first_step: None, min_step: 0.0, max_step: None }
    }
}
impl Default for SolveOptions {
    fn default() -> Self {
        SolveOptions {
            method: Method::Dopri5,
            stepping: Stepping::adaptive(1e-5, 1e-5),
            step_times: vec![],
            jump_times: vec![],
        }
    }
}
pub type Tab = (Vec<Vec<f64>>, Vec<f64>, Vec<f64>, Vec<f64>);
impl Method {
    pub fn tab(self) -> Tab {
        match self {
            Method::Euler => (vec![vec![]], vec![1.0], vec![0.0], vec![]),
            Method::Midpoint => (vec![vec![], vec![0.5]], vec![0.0, 1.0], vec![0.0, 0.5], vec![]),
            Method::Heun => (vec![vec![], vec![1.0]], vec![0.5, 0.5], vec![0.0, 1.0], vec![]),
            Method::Bosh3 => (
                vec![vec![], vec![0.5], vec![0.0, 0.75], vec![2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]],
                vec![2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0, 0.0],
                vec![0.0, 0.5, 0.75, 1.0],
                vec![2.0 / 9.0 - 7.0 / 24.0, 1.0 / 3.0 - 0.25, 4.0 / 9.0 - 1.0 / 3.0, -0.125],
            ),
            Method::Rk4 => (
                vec![vec![], vec![0.5], vec![0.0, 0.5], vec![0.0, 0.0, 1.0]],
                vec![1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
                vec![0.0, 0.5, 0.5, 1.0],
                vec![],
            ),
            _ => {
                let b = vec![35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0];
                let mut bb = b.clone();
                bb.push(0.0);
                let b4 = [
                    5179.0 / 57600.0,
                    0.0,
                    7571.0 / 16695.0,
                    393.0 / 640.0,
                    -92097.0 / 339200.0,
                    187.0 / 2100.0,
                    1.0 / 40.0,
                ];
                let e = bb.iter().zip(b4).map(|(a, b)| a - b).collect();
                (
                    vec![
                        vec![],
                        vec![0.2],
                        vec![3.0 / 40.0, 9.0 / 40.0],
                        vec![44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
                        vec![19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
                        vec![9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
                        b,
                    ],
                    bb,
                    vec![0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0],
                    e,
                )
            }
        }
    }
}
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    pub accepted: usize,
    pub rejected: usize,
    pub evaluations: usize,
}
pub struct Solution<S> {
    pub y: S,
    pub statistics: Statistics,
}
pub struct RowSolution<S> {
    pub y: S,
    pub statistics: Vec<Statistics>,
}
pub struct Step<'a, S> {
    pub t: f64,
    pub h: f64,
    pub y: &'a S,
}
pub struct RowTimes<'a> {
    pub rows: &'a [usize],
    pub t: &'a [f64],
}
pub struct RowStep<'a, S> {
    pub rows: &'a [usize],
    pub t: &'a [f64],
    pub h: &'a [f64],
    pub y: &'a S,
}
#[derive(Clone)]
pub struct Parts {
    pub y: Vec<Tensor>,
    pub counted: usize,
}
impl State for Tensor {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        let mut s = self.clone();
        for (c, k) in terms {
            s = (s + k.affine(*c, 0.0)?)?;
        }
        Ok(s)
    }
    fn error_norm(e: &Self, a: &Self, b: &Self, t: Tolerance) -> Result<f64> {
        let v = |x: &Tensor| -> Result<Vec<f64>> { Ok(x.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?) };
        let (e, a, b) = (v(e)?, v(a)?, v(b)?);
        let n = e.len().max(1) as f64;
        Ok((e
            .iter()
            .zip(a.iter().zip(&b))
            .map(|(e, (a, b))| (e / (t.atol + t.rtol * a.abs().max(b.abs()))).powi(2))
            .sum::<f64>()
            / n)
            .sqrt())
    }
}
impl RowState for Tensor {
    fn rows(&self) -> usize {
        self.dims()[0]
    }
    fn select(&self, i: &[usize]) -> Result<Self> {
        let v: Vec<u32> = i.iter().map(|&x| x as u32).collect();
        let n = v.len();
        Ok(self.index_select(&Tensor::from_vec(v, n, self.device())?, 0)?)
    }
    fn replace(&self, i: &[usize], r: &Self) -> Result<Self> {
        let mut rows: Vec<Tensor> =
            (0..self.rows()).map(|k| self.narrow(0, k, 1)).collect::<candle_core::Result<_>>()?;
        for (j, &k) in i.iter().enumerate() {
            rows[k] = r.narrow(0, j, 1)?;
        }
        Ok(Tensor::cat(&rows, 0)?)
    }
    fn add_scaled_rows(&self, h: &[f64], terms: &[(f64, &Self)]) -> Result<Self> {
        let mut dims = vec![1; self.rank()];
        dims[0] = h.len();
        let h = Tensor::from_vec(h.to_vec(), dims, self.device())?.to_dtype(self.dtype())?;
        let mut s = self.clone();
        for (c, k) in terms {
            s = (s + k.broadcast_mul(&h.affine(*c, 0.0)?)?)?;
        }
        Ok(s)
    }
    fn error_norm_rows(e: &Self, a: &Self, b: &Self, t: Tolerance) -> Result<Vec<f64>> {
        (0..e.rows())
            .map(|k| Self::error_norm(&e.narrow(0, k, 1)?, &a.narrow(0, k, 1)?, &b.narrow(0, k, 1)?, t))
            .collect()
    }
}
impl State for Vec<Tensor> {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        (0..self.len())
            .map(|i| self[i].add_scaled(&terms.iter().map(|(c, k)| (*c, &k[i])).collect::<Vec<_>>()))
            .collect()
    }
    fn error_norm(e: &Self, a: &Self, b: &Self, t: Tolerance) -> Result<f64> {
        let mut w = 0.0f64;
        for i in 0..e.len() {
            w = w.max(Tensor::error_norm(&e[i], &a[i], &b[i], t)?);
        }
        Ok(w)
    }
}
impl RowState for Vec<Tensor> {
    fn rows(&self) -> usize {
        self[0].rows()
    }
    fn select(&self, i: &[usize]) -> Result<Self> {
        self.iter().map(|t| RowState::select(t, i)).collect()
    }
    fn replace(&self, i: &[usize], r: &Self) -> Result<Self> {
        self.iter().zip(r).map(|(t, r)| t.replace(i, r)).collect()
    }
    fn add_scaled_rows(&self, h: &[f64], terms: &[(f64, &Self)]) -> Result<Self> {
        (0..self.len())
            .map(|i| self[i].add_scaled_rows(h, &terms.iter().map(|(c, k)| (*c, &k[i])).collect::<Vec<_>>()))
            .collect()
    }
    fn error_norm_rows(e: &Self, a: &Self, b: &Self, t: Tolerance) -> Result<Vec<f64>> {
        let mut w = vec![0.0f64; e.rows()];
        for i in 0..e.len() {
            for (w, x) in w.iter_mut().zip(Tensor::error_norm_rows(&e[i], &a[i], &b[i], t)?) {
                *w = w.max(x);
            }
        }
        Ok(w)
    }
}
impl State for Parts {
    fn add_scaled(&self, terms: &[(f64, &Self)]) -> Result<Self> {
        Ok(Parts {
            y: self.y.add_scaled(&terms.iter().map(|(c, k)| (*c, &k.y)).collect::<Vec<_>>())?,
            counted: self.counted,
        })
    }
    fn error_norm(e: &Self, a: &Self, b: &Self, t: Tolerance) -> Result<f64> {
        let mut w = 0.0f64;
        for i in 0..e.counted {
            w = w.max(Tensor::error_norm(&e.y[i], &a.y[i], &b.y[i], t)?);
        }
        Ok(w)
    }
}
fn one<S: State>(
    f: &mut dyn FnMut(f64, &S) -> Result<S>,
    (a, b, c, e): &Tab,
    t: f64,
    h: f64,
    y: &S,
    n: &mut usize,
) -> Result<(S, Option<S>)> {
    let mut k: Vec<S> = vec![];
    for i in 0..b.len() {
        let terms: Vec<(f64, &S)> = a[i].iter().zip(&k).filter(|(w, _)| **w != 0.0).map(|(w, k)| (w * h, k)).collect();
        let p = y.add_scaled(&terms)?;
        *n += 1;
        k.push(f(t + c[i] * h, &p)?);
    }
    let y1 =
        y.add_scaled(&b.iter().zip(&k).filter(|(w, _)| **w != 0.0).map(|(w, k)| (w * h, k)).collect::<Vec<_>>())?;
    let err = if e.is_empty() {
        None
    } else {
        let z = y.add_scaled(&[(-1.0, y)])?;
        Some(z.add_scaled(&e.iter().zip(&k).map(|(w, k)| (w * h, k)).collect::<Vec<_>>())?)
    };
    Ok((y1, err))
}
pub fn solve<S: State>(
    f: &mut dyn FnMut(f64, &S) -> Result<S>,
    y0: &S,
    span: [f64; 2],
    o: &SolveOptions,
) -> Result<Solution<S>> {
    solve_recorded(f, y0, span, o, &mut |_| Ok(()))
}
pub fn solve_recorded<S: State>(
    f: &mut dyn FnMut(f64, &S) -> Result<S>,
    y0: &S,
    [t0, t1]: [f64; 2],
    o: &SolveOptions,
    r: &mut dyn FnMut(Step<'_, S>) -> Result<()>,
) -> Result<Solution<S>> {
    let tab = o.method.tab();
    let mut st = Statistics::default();
    let mut y = y0.clone();
    match &o.stepping {
        Stepping::Fixed { steps } => {
            let h = (t1 - t0) / *steps as f64;
            for i in 0..*steps {
                let t = t0 + h * i as f64;
                r(Step { t, h, y: &y })?;
                y = one(f, &tab, t, h, &y, &mut st.evaluations)?.0;
                st.accepted += 1;
            }
        }
        Stepping::Adaptive { tolerance, first_step, max_step, .. } => {
            let sign = (t1 - t0).signum();
            let mut t = t0;
            let mut h = first_step.unwrap_or(0.1);
            while (t1 - t) * sign > 1e-12 {
                h = h.min(max_step.unwrap_or(1e9)).min((t1 - t).abs());
                let (y1, e) = one(f, &tab, t, sign * h, &y, &mut st.evaluations)?;
                let e = e.ok_or_else(|| Error::config("shim", "no error"))?;
                let n = S::error_norm(&e, &y, &y1, *tolerance)?;
                if n <= 1.0 {
                    r(Step { t, h: sign * h, y: &y })?;
                    y = y1;
                    t += sign * h;
                    st.accepted += 1;
                } else {
                    st.rejected += 1;
                }
                h *= (0.9 * n.powf(-0.2)).clamp(0.2, 5.0);
            }
        }
    }
    Ok(Solution { y, statistics: st })
}
pub fn solve_at<S: State>(
    f: &mut dyn FnMut(f64, &S) -> Result<S>,
    y0: &S,
    times: &[f64],
    o: &SolveOptions,
) -> Result<(Vec<S>, Statistics)> {
    let mut v = vec![y0.clone()];
    let mut st = Statistics::default();
    for w in times.windows(2) {
        let s = solve(f, &v[v.len() - 1].clone(), [w[0], w[1]], o)?;
        v.push(s.y);
        st.evaluations += s.statistics.evaluations;
    }
    Ok((v, st))
}
pub fn solve_rows_recorded<S: RowState>(
    f: &mut dyn FnMut(&RowTimes<'_>, &S) -> Result<S>,
    y0: &S,
    span: [f64; 2],
    o: &SolveOptions,
    r: &mut dyn FnMut(RowStep<'_, S>) -> Result<()>,
) -> Result<RowSolution<S>> {
    let mut y = y0.clone();
    let mut st = vec![];
    for i in 0..y0.rows() {
        let s = solve_recorded(
            &mut |t, y| f(&RowTimes { rows: &[i], t: &[t] }, y),
            &y0.select(&[i])?,
            span,
            o,
            &mut |s: Step<'_, S>| r(RowStep { rows: &[i], t: &[s.t], h: &[s.h], y: s.y }),
        )?;
        y = y.replace(&[i], &s.y)?;
        st.push(s.statistics);
    }
    Ok(RowSolution { y, statistics: st })
}
