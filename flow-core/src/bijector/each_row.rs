//! A pass that fails for some rows keeps the results of the others.

use candle_core::Tensor;

use super::Bijector;
use crate::error::Direction;
use crate::numerics::host;
use crate::{Error, Result};

/// What came of each row of a batch.
#[derive(Debug)]
pub struct EachRow {
    /// The values, as many rows as the input had; NaN in those that failed.
    pub value: Tensor,
    /// The log-determinants, `(B,)`; NaN where the row failed.
    pub log_det: Tensor,
    /// The errors, each about the rows that [`Error::rows`] names.
    pub failed: Vec<Error>,
}

/// Encodes or decodes what can be: a row for which there is no answer does not cost the others theirs.
///
/// The whole batch is tried first, so that nothing is lost where nothing fails. The rows that an error names
/// ([`Error::rows`]) are left out, and the rest is tried again. A context of fewer rows than the batch is fine where the
/// layer takes groups.
///
/// # Errors
/// Those that are not about single rows: shapes, types, contexts.
pub fn each_row<B: Bijector + ?Sized>(
    layer: &B,
    direction: Direction,
    input: &Tensor,
    context: Option<&Tensor>,
) -> Result<EachRow> {
    let run = |input: &Tensor, context: Option<&Tensor>| match direction {
        Direction::Encode => layer.encode(input, context),
        Direction::Decode => layer.decode(input, context),
    };
    let batch = input.dims().first().copied().unwrap_or(0);
    let (mut live, mut failed): (Vec<usize>, Vec<Error>) = ((0..batch).collect(), Vec::new());
    loop {
        let outcome = if failed.is_empty() {
            run(input, context)
        } else {
            let context = context.map(|c| context_of(&live, c, batch)).transpose()?;
            run(&rows_of(&live, input)?, context.as_ref())
        };
        match outcome {
            Ok((value, log_det)) if failed.is_empty() => return Ok(EachRow { value, log_det, failed }),
            Ok((value, log_det)) => {
                let (value, log_det) = (spread(&live, &value, batch)?, spread(&live, &log_det, batch)?);
                return Ok(EachRow { value, log_det, failed });
            }
            Err(error) if error.rows().is_empty() || error.rows().iter().any(|&r| r >= live.len()) => {
                return Err(error);
            }
            Err(error) => {
                let error = error.renumbered(&live);
                live.retain(|row| !error.rows().contains(row));
                failed.push(error);
            }
        }
    }
}

fn rows_of(rows: &[usize], t: &Tensor) -> Result<Tensor> {
    let index: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    Ok(t.contiguous()?.index_select(&Tensor::from_vec(index, rows.len(), t.device())?, 0)?)
}

/// One row of context for each of these rows, where each of its rows serves the same number of consecutive ones.
fn context_of(rows: &[usize], context: &Tensor, batch: usize) -> Result<Tensor> {
    let per_group = (batch / context.dim(0)?.max(1)).max(1);
    rows_of(&rows.iter().map(|row| row / per_group).collect::<Vec<_>>(), context)
}

/// The rows at their places in the whole batch, NaN elsewhere.
fn spread(rows: &[usize], t: &Tensor, batch: usize) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    dims[0] = 1;
    let missing = host::full(f64::NAN, dims, t.dtype(), t.device())?;
    let mut place = vec![rows.len(); batch];
    rows.iter().enumerate().for_each(|(i, &row)| place[row] = i);
    let all = if rows.is_empty() { missing } else { Tensor::cat(&[t, &missing], 0)? };
    rows_of(&place, &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{ActNorm, Logit, MaskedAutoregressive, Planar, Sigmoid};
    use crate::nn::MlpConfig;
    use crate::testing::numbers::{normal, store64, values};
    use crate::transformer::LogisticMixture;
    use crate::{Chain, Inverse};
    use candle_core::Device;

    /// Five rows of three entries, of which rows 1 and 3 hold what nothing can be solved for.
    fn batch() -> Tensor {
        let mut entries = values(&normal(1, &[5, 3]));
        (entries[5], entries[9]) = (f64::NAN, f64::INFINITY);
        Tensor::from_vec(entries, (5, 3), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_rows_that_have_an_answer_get_it() {
        let root = store64(1).root();
        let mixture = LogisticMixture::new(2).unwrap();
        let maf = MaskedAutoregressive::new(&root.pp("maf"), 3, mixture, &MlpConfig::new(&[4])).unwrap();
        let chain = Chain::new(vec![
            Box::new(Planar::new(&root.pp("planar"), 3).unwrap()) as Box<dyn Bijector>,
            Box::new(ActNorm::new(&root.pp("norm"), &[3]).unwrap()),
        ]);
        let layers: Vec<Box<dyn Bijector>> =
            vec![Box::new(maf), Box::new(Planar::new(&root.pp("a"), 3).unwrap()), Box::new(chain.unwrap())];
        for layer in layers {
            let error = layer.decode(&batch(), None).unwrap_err();
            assert!(!error.rows().is_empty() && error.to_string().contains("row"), "{error}");
            let got = each_row(&layer, Direction::Decode, &batch(), None).unwrap();
            let mut rows: Vec<usize> = got.failed.iter().flat_map(Error::rows).copied().collect();
            rows.sort_unstable();
            assert_eq!(rows, [1, 3], "{}", layer.name());
            for row in 0..5 {
                let (x, log_det) = (got.value.get(row).unwrap(), got.log_det.get(row).unwrap());
                if rows.contains(&row) {
                    assert!(values(&x).iter().chain(&values(&log_det)).all(|v| v.is_nan()));
                    continue;
                }
                let alone = layer.decode(&batch().narrow(0, row, 1).unwrap(), None).unwrap();
                assert_eq!((values(&x), values(&log_det)), (values(&alone.0), values(&alone.1)), "{}", layer.name());
            }
        }
    }

    #[test]
    fn rows_outside_a_domain_are_named_too() {
        let x = Tensor::new(&[[0.5, 0.2], [2.0, 0.1], [0.3, f64::NAN], [0.1, 0.9]], &Device::Cpu).unwrap();
        let layers: Vec<Box<dyn Bijector>> =
            vec![Box::new(Logit::new(&[2], 0.0).unwrap()), Box::new(Inverse(Sigmoid::new(&[2])))];
        for layer in layers {
            assert!(matches!(layer.encode(&x, None), Err(Error::Domain { rows, .. }) if rows == [1, 2]));
            let got = each_row(&layer, Direction::Encode, &x, None).unwrap();
            assert_eq!(got.failed.len(), 1);
            let finite: Vec<bool> = values(&got.log_det).iter().map(|v| v.is_finite()).collect();
            assert_eq!(finite, [true, false, false, true]);
        }
        let none = each_row(&Logit::new(&[2], 0.0).unwrap(), Direction::Encode, &x.affine(0.0, 2.0).unwrap(), None);
        assert!(values(&none.unwrap().value).iter().all(|v| v.is_nan()));
    }

    #[test]
    fn what_is_not_about_rows_stays_an_error() {
        let x = Tensor::zeros((2, 3), candle_core::DType::F64, &Device::Cpu).unwrap();
        assert!(each_row(&Sigmoid::new(&[2]), Direction::Encode, &x, None).is_err());
    }
}
