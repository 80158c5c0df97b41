//! The door of a flow: which batches and contexts it lets in.
//!
//! Layers ignore a context that they do not declare, because in a chain others may use it. Whether anybody uses it is
//! known to the flow alone, so that is where a context that nobody takes is refused, and where a single row of context
//! becomes one row for each sample.

use candle_core::{DType, Tensor};

use crate::bijector::{check_batch_as, check_dtype, check_shape};
use crate::{Error, ParamStore, Result};

/// What one part of a flow, a bijector or a density, declares of its context.
pub(crate) struct Declared<'a> {
    pub(crate) name: String,
    pub(crate) shape: Option<&'a [usize]>,
    /// Whether fewer rows than samples are fine ([`Bijector::groups_context`](crate::Bijector::groups_context)).
    pub(crate) grouped: bool,
}

/// What a flow declares, all its parts together.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    layer: &'static str,
    event: Vec<usize>,
    dtype: DType,
    context: Option<Vec<usize>>,
    grouped: bool,
}

impl Door {
    /// The door of a flow over events of shape `event`, whose parameters live in `store`.
    ///
    /// # Errors
    /// [`Error::Config`] when two parts want contexts of different shapes, [`Error::DType`] for a store of integers.
    pub(crate) fn new<'a>(
        layer: &'static str,
        event: &[usize],
        store: &ParamStore,
        parts: impl IntoIterator<Item = Declared<'a>>,
    ) -> Result<Self> {
        store.check_dtype(layer)?;
        let mut context: Option<(String, Vec<usize>)> = None;
        let mut grouped = true;
        for Declared { name, shape, grouped: groups } in parts {
            let Some(shape) = shape else { continue };
            grouped &= groups;
            match &context {
                Some((other, known)) if known != shape => {
                    let reason = format!("{name} wants a context {shape:?}, {other} one of {known:?}");
                    return Err(Error::config(layer, reason));
                }
                Some(_) => {}
                None => context = Some((name, shape.to_vec())),
            }
        }
        let context = context.map(|(_, shape)| shape);
        Ok(Door { layer, event: event.to_vec(), dtype: store.dtype(), grouped: grouped && context.is_some(), context })
    }

    /// Checks a batch and its context; returns the context with one row for each sample.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::DType`] and [`Error::Context`].
    pub(crate) fn admit(&self, x: &Tensor, context: Option<&Tensor>) -> Result<Option<Tensor>> {
        self.admit_context(check_batch_as(self.layer, x, &self.event, self.dtype)?, context)
    }

    /// Checks the context of `batch` samples; returns it with one row for each.
    ///
    /// A context that is declared and missing is left to the layer that misses it.
    ///
    /// # Errors
    /// [`Error::Context`] for a context that nobody takes and for a wrong number of rows, [`Error::Shape`] and
    /// [`Error::DType`].
    pub(crate) fn admit_context(&self, batch: usize, context: Option<&Tensor>) -> Result<Option<Tensor>> {
        let Some(given) = context else { return Ok(None) };
        let refuse = |reason| Err(Error::Context { layer: self.layer.into(), reason });
        let Some(shape) = &self.context else {
            return refuse(format!("no part of it takes a context, one of shape {:?} was given", given.dims()));
        };
        let name = format!("{} (context)", self.layer);
        let rows = check_shape(&name, given, shape)?;
        check_dtype(&name, given, self.dtype)?;
        if rows == batch || self.grouped {
            return Ok(Some(given.clone()));
        }
        if rows != 1 {
            let wanted = format!("{rows} rows of context were given for {batch} samples");
            return refuse(format!("{wanted}; give one row for each sample, or one for all of them"));
        }
        let dims: Vec<usize> = [&[batch], shape.as_slice()].concat();
        Ok(Some(given.broadcast_as(dims)?.contiguous()?))
    }
}

/// Undoes to a gradient what [`Door::admit`] did to `context`: sums over rows if there was one for all.
pub(crate) fn reduce_gradient(gradient: Option<Tensor>, context: Option<&Tensor>) -> Result<Option<Tensor>> {
    Ok(match (gradient, context) {
        (Some(gradient), Some(context)) if context.dim(0)? == 1 && gradient.dim(0)? != 1 => {
            Some(gradient.sum_keepdim(0)?)
        }
        (gradient, _) => gradient,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::density::Level;
    use crate::distribution::{ConditionalGaussian, DiagonalGaussian, Distribution, StandardGaussian};
    use crate::layers::{ActNorm, Coupling, MaskedAutoregressive, Partition, Permute};
    use crate::nn::{Mlp, MlpConfig};
    use crate::testing::numbers::{distance, normal, store64, values};
    use crate::testing::randomise;
    use crate::transformer::{Affine, ScaleBound};
    use crate::{Backprop, Bijector, Chain, Density, Flow, FlowRng, Gradients, MultiScale, ParamPath};

    type VectorFlow = Flow<Chain, Box<dyn Distribution>>;

    fn affine() -> Affine {
        Affine::new(ScaleBound::SoftClamp(2.0))
    }

    fn coupling(path: &ParamPath, context: Option<usize>) -> Box<dyn Bijector> {
        let net = Mlp::new(path, 1, 2, &MlpConfig { context, ..MlpConfig::new(&[4]) }).unwrap();
        Box::new(Coupling::new(&[2], Partition::Channels { swap: false }, affine(), net).unwrap())
    }

    fn maf(path: &ParamPath, context: Option<usize>) -> Box<dyn Bijector> {
        let config = MlpConfig { context, ..MlpConfig::new(&[4]) };
        Box::new(MaskedAutoregressive::new(path, 2, affine(), &config).unwrap())
    }

    fn standard() -> Box<dyn Distribution> {
        Box::new(StandardGaussian::new(&[2], DType::F64, &Device::Cpu))
    }

    /// Layers with and without a context of three entries, on a base density that takes one too.
    fn conditional(store: &ParamStore) -> VectorFlow {
        let root = store.root();
        let layers = vec![
            coupling(&root.pp("a"), Some(3)),
            coupling(&root.pp("b"), None),
            maf(&root.pp("c"), Some(3)),
            Box::new(Permute::reverse(&root.pp("d"), &[2]).unwrap()),
        ];
        let net = Mlp::new(&root.pp("base"), 3, 4, &MlpConfig::new(&[3])).unwrap();
        let base = Box::new(ConditionalGaussian::new(&[2], &[3], net));
        let flow = Flow::new(store, Chain::new(layers).unwrap(), base as Box<dyn Distribution>).unwrap();
        randomise(store, 0.3, &mut FlowRng::seed_from(1)).unwrap();
        flow
    }

    fn unconditional(store: &ParamStore) -> VectorFlow {
        let layers = vec![coupling(&store.root().pp("a"), None), maf(&store.root().pp("b"), None)];
        Flow::new(store, Chain::new(layers).unwrap(), standard()).unwrap()
    }

    /// One level with a context, then a top prior with the same.
    fn multi_scale(store: &ParamStore, context: Option<usize>) -> MultiScale {
        let levels = vec![
            Level {
                flow: coupling(&store.root().pp("a"), context),
                split: Some(Box::new(StandardGaussian::new(&[1], DType::F64, &Device::Cpu))),
            },
            Level { flow: Box::new(ActNorm::new(&store.root().pp("b"), &[1]).unwrap()), split: None },
        ];
        let top = StandardGaussian::new(&[1], DType::F64, &Device::Cpu);
        let flow = MultiScale::new(store, levels, Box::new(top)).unwrap();
        randomise(store, 0.3, &mut FlowRng::seed_from(1)).unwrap();
        flow
    }

    fn backward(flow: &dyn Density, x: &Tensor, context: &Tensor, mode: Backprop) -> (crate::Scored, Gradients) {
        let mut gradients = Gradients::new(flow.store());
        let weight = normal(9, &[x.dims()[0]]);
        let scored = flow.log_prob_backward(x, Some(context), &weight, mode, &mut gradients).unwrap();
        (scored, gradients)
    }

    /// What one row of context gives is what that row repeated gives, gradients included.
    fn broadcasts(flow: &dyn Density) {
        let (x, one) = (normal(1, &[5, 2]), normal(2, &[1, 3]));
        let all = one.repeat((5, 1)).unwrap();
        let log_prob = |c: &Tensor| values(&flow.log_prob(&x, Some(c)).unwrap());
        assert_eq!(log_prob(&one), log_prob(&all));
        let sample = |c: &Tensor| values(&flow.sample(5, Some(c), 1.0, &mut FlowRng::seed_from(3)).unwrap());
        assert_eq!(sample(&one), sample(&all));
        flow.initialize(&x, Some(&one)).unwrap();
        for mode in [Backprop::Plain, Backprop::Reversible] {
            let ((one_row, g1), (all_rows, g5)) = (backward(flow, &x, &one, mode), backward(flow, &x, &all, mode));
            let total = all_rows.grad_context.unwrap().sum_keepdim(0).unwrap();
            assert!(distance(&one_row.grad_context.unwrap(), &total) < 1e-12, "{mode:?}");
            for ((param, a), (_, b)) in g1.iter().zip(g5.iter()) {
                assert!(distance(a.unwrap(), b.unwrap()) < 1e-12, "{mode:?}, {}", param.name());
            }
        }
    }

    #[test]
    fn one_row_of_context_serves_all_samples() {
        let store = store64(1);
        let flow = conditional(&store);
        broadcasts(&flow);
        broadcasts(&multi_scale(&store64(2), Some(3)));
        let one = normal(2, &[1, 3]);
        let (x, log_prob) = flow.sample_and_log_prob(4, Some(&one), 1.0, &mut FlowRng::seed_from(3)).unwrap();
        assert!(distance(&log_prob, &flow.log_prob(&x, Some(&one)).unwrap()) < 1e-9);
        let none = flow.log_prob(&normal(1, &[0, 2]), Some(&one)).unwrap();
        assert_eq!(none.dims(), [0]);
    }

    /// The errors of every entrance.
    fn entrances(flow: &dyn Density, x: &Tensor, context: Option<&Tensor>) -> Vec<String> {
        let n = x.dims()[0];
        let weight = Tensor::ones(n, DType::F64, &Device::Cpu).unwrap();
        let mut found = vec![
            flow.log_prob(x, context).map(drop),
            flow.initialize(x, context),
            flow.sample(n, context, 1.0, &mut FlowRng::seed_from(0)).map(drop),
        ];
        for mode in [Backprop::Plain, Backprop::Reversible] {
            let mut gradients = Gradients::new(flow.store());
            found.push(flow.log_prob_backward(x, context, &weight, mode, &mut gradients).map(drop));
        }
        let message = |outcome: Result<()>| match outcome {
            Err(error @ Error::Context { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        found.into_iter().map(message).collect()
    }

    #[test]
    fn another_number_of_rows_is_refused_naming_both() {
        for message in entrances(&conditional(&store64(1)), &normal(1, &[5, 2]), Some(&normal(2, &[4, 3]))) {
            assert!(message.contains("4 rows of context") && message.contains("5 samples"), "{message}");
        }
    }

    #[test]
    fn a_context_that_nobody_takes_is_refused() {
        let context = normal(2, &[5, 3]);
        let flows: [Box<dyn Density>; 2] =
            [Box::new(unconditional(&store64(1))), Box::new(multi_scale(&store64(1), None))];
        for flow in &flows {
            for message in entrances(flow.as_ref(), &normal(1, &[5, 2]), Some(&context)) {
                assert!(message.contains("takes a context") && message.contains("[5, 3]"), "{message}");
            }
            flow.log_prob(&normal(1, &[5, 2]), None).unwrap();
        }
    }

    #[test]
    fn parts_that_want_different_contexts_make_no_flow() {
        let store = store64(1);
        let chain = Chain::new(vec![maf(&store.root(), Some(2))]).unwrap();
        let net = Mlp::new(&store.root().pp("base"), 3, 4, &MlpConfig::new(&[3])).unwrap();
        let error = Flow::new(&store, chain, ConditionalGaussian::new(&[2], &[3], net)).map(drop).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("[3]") && message.contains("[2]"), "{message}");
    }

    #[test]
    fn other_element_types_are_refused_by_name() {
        let (flow, context) = (conditional(&store64(1)), normal(2, &[5, 3]));
        let refused = |x: &Tensor, c: &Tensor| match flow.log_prob(x, Some(c)) {
            Err(error @ Error::DType { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        for (dtype, name) in [(DType::F32, "F32"), (DType::U32, "U32"), (DType::I64, "I64")] {
            let x = normal(1, &[5, 2]);
            for message in
                [refused(&x.to_dtype(dtype).unwrap(), &context), refused(&x, &context.to_dtype(dtype).unwrap())]
            {
                assert!(message.contains("flow") && message.contains("F64") && message.contains(name), "{message}");
            }
        }
    }

    #[test]
    fn a_store_of_integers_makes_neither_parameters_nor_flows() {
        let store = ParamStore::new(0, DType::U32, &Device::Cpu);
        let refused = |outcome: Result<()>| match outcome {
            Err(error @ Error::DType { actual: DType::U32, .. }) => assert!(error.to_string().contains("F32 or F64")),
            other => panic!("{other:?}"),
        };
        refused(ActNorm::new(&store.root(), &[2]).map(drop));
        refused(Permute::reverse(&store.root(), &[2]).map(drop));
        let sigmoid = crate::layers::Sigmoid::new(&[2]);
        refused(Flow::new(&store, sigmoid, StandardGaussian::new(&[2], DType::F32, &Device::Cpu)).map(drop));
    }

    #[test]
    fn parameters_of_another_store_are_noticed() {
        let (ours, theirs, x) = (store64(1), store64(2), normal(1, &[5, 2]));
        let elsewhere = |store: &ParamStore, base: Box<dyn Distribution>| {
            let layers = vec![coupling(&ours.root().pp(base.name()), None), coupling(&store.root().pp("b"), None)];
            Flow::new(&ours, Chain::new(layers).unwrap(), base).unwrap()
        };
        let base = Box::new(DiagonalGaussian::new(&theirs.root().pp("base"), &[2]).unwrap());
        let flows = [elsewhere(&theirs, standard()), elsewhere(&ours, base)];
        randomise(&ours, 0.3, &mut FlowRng::seed_from(1)).unwrap();
        randomise(&theirs, 0.3, &mut FlowRng::seed_from(1)).unwrap();
        let weight = normal(2, &[5]);
        for flow in &flows {
            for mode in [Backprop::Plain, Backprop::Reversible] {
                let outcome = flow.log_prob_backward(&x, None, &weight, mode, &mut Gradients::new(&ours));
                assert!(outcome.map(drop).unwrap_err().to_string().contains("store"), "{mode:?}");
            }
            assert!(flow.sample(2, None, 1.0, &mut FlowRng::seed_from(0)).unwrap_err().to_string().contains("store"));
        }
        assert!(flows[0].initialize(&x, None).unwrap_err().to_string().contains("store"));
        let param = &theirs.trainable()[0];
        let gradient = param.var().zeros_like().unwrap();
        assert!(Gradients::new(&ours).add(param, &gradient).unwrap_err().to_string().contains(param.name()));
        assert!(Gradients::new(&ours).merge(&Gradients::new(&theirs)).is_err());
    }

    #[test]
    fn a_context_of_groups_is_let_through() {
        let store = store64(1);
        let field = crate::cnf::Concat::new(
            &store.root().pp("field"),
            2,
            &crate::cnf::ConcatConfig { context: Some(3), ..crate::cnf::ConcatConfig::new(&[4]) },
        );
        let cnf = crate::cnf::Cnf::new(&store.root(), field.unwrap(), crate::cnf::CnfConfig::default()).unwrap();
        let flow = Flow::new(&store, Chain::new(vec![Box::new(cnf)]).unwrap(), standard()).unwrap();
        let (x, groups) = (normal(1, &[6, 2]), normal(2, &[2, 3]));
        assert_eq!(flow.log_prob(&x, Some(&groups)).unwrap().dims(), [6]);
        let uneven = flow.log_prob(&x, Some(&normal(2, &[4, 3]))).unwrap_err().to_string();
        assert!(uneven.contains('4') && uneven.contains('6'), "{uneven}");
    }
}
