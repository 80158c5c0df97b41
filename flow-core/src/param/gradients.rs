//! Gradients of a whole model: ordered by parameter name and flattenable.
//!
//! The order makes every sum over parameters (global norm, the sum over ranks of data-parallel training) reproducible.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, Storage, Tensor, TensorId};
use rayon::prelude::*;

use crate::kernels::accepts;
use crate::numerics::host;
use crate::param::{NoGrad, Param, ParamStore};
use crate::{Error, Result};

/// One gradient slot per trainable parameter of a [`ParamStore`], in name order.
#[derive(Debug, Clone)]
pub struct Gradients {
    store: ParamStore,
    params: Vec<Param>,
    index: HashMap<TensorId, usize>,
    values: Vec<Option<Tensor>>,
    watched: Watched,
}

/// Is told of gradients while they are made: of training together, which sums those that are done while others are not.
pub(crate) trait Watcher: Send + Sync + Debug {
    /// The gradient of parameter `index`, in name order, was added to and is this now.
    fn added(&self, index: usize, total: &Tensor);

    /// Gradients are means over so many samples.
    fn weighed(&self, samples: f64);

    /// What follows is an attempt.
    fn attempted(&self);

    /// What has followed since is not to count.
    fn rejected(&self);

    /// Gradients were changed otherwise than by adding to them.
    fn changed(&self);
}

/// Who watches, if anyone does; nobody watches a copy.
#[derive(Debug, Default)]
struct Watched {
    by: Option<Arc<dyn Watcher>>,
    /// The gradients that an attempt is to be merged into.
    base: Vec<Option<Tensor>>,
}

impl Clone for Watched {
    fn clone(&self) -> Self {
        Watched::default()
    }
}

impl Gradients {
    /// Empty gradients for all trainable parameters that `store` holds now.
    pub fn new(store: &ParamStore) -> Self {
        let params = store.trainable();
        let index = params.iter().enumerate().map(|(i, p)| (p.var().as_tensor().id(), i)).collect();
        let values = vec![None; params.len()];
        Gradients { store: store.clone(), params, index, values, watched: Watched::default() }
    }

    /// Lets someone watch, or nobody any more.
    pub(crate) fn watch(&mut self, watcher: Option<Arc<dyn Watcher>>) {
        self.watched = Watched { by: watcher, base: Vec::new() };
    }

    /// Whether someone watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.by.is_some()
    }

    /// Says how many samples the gradients that are added from here on are means over.
    ///
    /// Several ranks that train together sum gradients while others are still being made, where they know this number; to a
    /// process alone it says nothing. Gradients that are scaled or replaced afterwards are summed again.
    pub fn weigh(&self, samples: f64) {
        if let Some(watcher) = &self.watched.by {
            watcher.weighed(samples);
        }
    }

    fn changed(&self) {
        if let Some(watcher) = &self.watched.by {
            watcher.changed();
        }
    }

    /// Empty gradients of the same parameters, watched by the same, which are [merged](Gradients::merge) or
    /// [given up](Gradients::give_up).
    pub(crate) fn attempt(&self) -> Self {
        let mut attempt = Gradients::new(&self.store);
        if let Some(watcher) = &self.watched.by {
            watcher.attempted();
            attempt.watched = Watched { by: Some(watcher.clone()), base: self.values.clone() };
        }
        attempt
    }

    /// Forgets an attempt.
    pub(crate) fn give_up(self) {
        if let Some(watcher) = &self.watched.by {
            watcher.rejected();
        }
    }

    /// Pauses gradient tracking of the model behind these gradients.
    pub fn no_grad(&self) -> NoGrad {
        self.store.no_grad()
    }

    /// The store whose parameters these are.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// Adds `gradient` to the slot of `param`. Buffers are ignored.
    ///
    /// # Errors
    /// [`Error::Config`] for a trainable parameter of another store, or one created after these gradients.
    pub fn add(&mut self, param: &Param, gradient: &Tensor) -> Result<()> {
        match self.index.get(&param.var().as_tensor().id()) {
            Some(&i) => self.add_at(i, gradient),
            None if param.trainable() => Err(foreign(&format!("'{}'", param.name()))),
            None => Ok(()),
        }
    }

    /// Refuses an `objective` that depends on a variable which is neither one of these parameters nor one of `inputs`:
    /// the gradient of a parameter in another store would be dropped, and the parameter never trained.
    ///
    /// [`Gradients::accumulate`] cannot notice: to Candle's `GradStore` such a parameter looks like a constant.
    ///
    /// # Errors
    /// [`Error::Config`] giving the shape of the first such variable.
    pub fn check_variables(&self, objective: &Tensor, inputs: &[&Tensor]) -> Result<()> {
        let known = |v: &Tensor| self.index.contains_key(&v.id()) || inputs.iter().any(|input| input.id() == v.id());
        match objective.sorted_nodes().into_iter().find(|v| v.is_variable() && !known(v)) {
            Some(v) => Err(foreign(&format!("of shape {:?}", v.dims()))),
            None => Ok(()),
        }
    }

    /// Adds every parameter gradient found in `store`; gradients of other tensors are dropped.
    ///
    /// Those may be inputs and constants, or parameters of another store: [`Gradients::check_variables`] tells.
    pub fn accumulate(&mut self, store: &GradStore) -> Result<()> {
        let mut found: Vec<(usize, TensorId)> =
            store.get_ids().filter_map(|id| self.index.get(id).map(|&i| (i, *id))).collect();
        found.sort_unstable_by_key(|&(i, _)| i);
        for (i, id) in found {
            if let Some(gradient) = store.get_id(id) {
                self.add_at(i, gradient)?;
            }
        }
        Ok(())
    }

    fn add_at(&mut self, i: usize, gradient: &Tensor) -> Result<()> {
        self.sum_at(i, gradient)?;
        let (Some(watcher), Some(own)) = (&self.watched.by, &self.values[i]) else { return Ok(()) };
        match self.watched.base.get(i) {
            Some(Some(before)) => watcher.added(i, &(before + own)?),
            _ => watcher.added(i, own),
        }
        Ok(())
    }

    fn sum_at(&mut self, i: usize, gradient: &Tensor) -> Result<()> {
        // Detached: a gradient that is kept would otherwise pin the graph it came from.
        let gradient = gradient.detach();
        self.values[i] = Some(match self.values[i].take() {
            None => gradient,
            Some(sum) => (sum + gradient)?,
        });
        Ok(())
    }

    /// The gradient of one parameter, `None` if it received none.
    pub fn get(&self, param: &Param) -> Option<&Tensor> {
        self.index.get(&param.var().as_tensor().id()).and_then(|&i| self.values[i].as_ref())
    }

    /// Parameters with their gradients, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&Param, Option<&Tensor>)> {
        self.params.iter().zip(self.values.iter().map(Option::as_ref))
    }

    /// As [`Gradients::iter`], the gradients to be changed.
    pub(crate) fn slots(&mut self) -> impl Iterator<Item = (&Param, &mut Option<Tensor>)> {
        self.params.iter().zip(&mut self.values)
    }

    /// Adds all gradients of `other`.
    ///
    /// # Errors
    /// [`Error::Config`] when `other` is over another store.
    pub fn merge(&mut self, other: &Gradients) -> Result<()> {
        if !self.store.is_same(&other.store) {
            return Err(Error::config("gradients", "those of one store were to be added to those of another"));
        }
        let known = match (&self.watched.by, &other.watched.by) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        for (i, value) in other.values.iter().enumerate().take(self.values.len()) {
            match value {
                Some(value) if known => self.sum_at(i, value)?,
                Some(value) => self.add_at(i, value)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Whether no parameter has received a gradient.
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// Forgets all gradients.
    pub fn clear(&mut self) {
        self.changed();
        self.values.fill(None);
    }

    /// The Euclidean norm over all parameters, summed in f64 in an order that does not depend on threads.
    pub fn global_norm(&self) -> Result<f64> {
        let sum: f64 = self.values.iter().flatten().map(sum_of_squares).sum::<Result<f64>>()?;
        Ok(sum.sqrt())
    }

    /// Multiplies every gradient by `factor`.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        self.changed();
        for slot in self.values.iter_mut().flatten() {
            *slot = slot.affine(factor, 0.0)?;
        }
        Ok(())
    }

    /// All gradients one after the other in name order, in f32 (missing ones are zero).
    pub fn flatten(&self) -> Result<Vec<f32>> {
        let mut flat = Vec::with_capacity(self.params.iter().map(|p| p.var().elem_count()).sum());
        for (param, value) in self.iter() {
            match value {
                Some(v) => flat.extend(v.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?),
                None => flat.resize(flat.len() + param.var().elem_count(), 0.0),
            }
        }
        Ok(flat)
    }

    /// Replaces all gradients by the slices of `flat`, the inverse of [`Gradients::flatten`].
    ///
    /// # Errors
    /// [`Error::Config`] when the length is not the number of trainable scalars.
    pub fn unflatten(&mut self, flat: &[f32]) -> Result<()> {
        let expected: usize = self.params.iter().map(|p| p.var().elem_count()).sum();
        if flat.len() != expected {
            return Err(Error::config("flat gradient", format!("{} values, the model has {expected}", flat.len())));
        }
        self.changed();
        let mut rest = flat;
        for (param, slot) in self.params.iter().zip(&mut self.values) {
            let (head, tail) = rest.split_at(param.var().elem_count());
            rest = tail;
            let value = Tensor::from_slice(head, param.var().shape(), &Device::Cpu)?;
            *slot = Some(value.to_dtype(param.var().dtype())?.to_device(param.var().device())?);
        }
        Ok(())
    }
}

/// The error for a parameter that has no slot.
fn foreign(parameter: &str) -> Error {
    let reason = "is not among the parameters of the store that is trained; build all layers of a flow under the root \
                  of the store that it is given, before its gradients";
    Error::config(format!("parameter {parameter}"), reason)
}

/// `Σ g²`, in one pass over contiguous CPU memory.
fn sum_of_squares(gradient: &Tensor) -> Result<f64> {
    if accepts(gradient) {
        let (storage, layout) = gradient.storage_and_layout();
        if let (Storage::Cpu(cpu), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            match cpu {
                CpuStorage::F32(data) => return Ok(chunked_squares(&data[start..end], f64::from)),
                CpuStorage::F64(data) => return Ok(chunked_squares(&data[start..end], |x| x)),
                _ => {}
            }
        }
    }
    Ok(host::wide(gradient)?.sqr()?.flatten_all()?.sum(0)?.to_scalar::<f64>()?)
}

/// Sums squares chunk by chunk, then the chunks in order: the same bits on any number of threads.
fn chunked_squares<T: Copy + Sync>(data: &[T], widen: impl Fn(T) -> f64 + Sync) -> f64 {
    const CHUNK: usize = 16 * 1024;
    // Eight running sums, so that the additions need not wait for each other.
    let square = |x: T| widen(x) * widen(x);
    let chunk = |data: &[T]| {
        let (eights, rest) = data.as_chunks::<8>();
        let mut lanes = [0.0; 8];
        for eight in eights {
            lanes.iter_mut().zip(eight).for_each(|(lane, &x)| *lane += square(x));
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|&x| square(x)).sum::<f64>()
    };
    if data.len() <= CHUNK { chunk(data) } else { data.par_chunks(CHUNK).map(chunk).collect::<Vec<_>>().iter().sum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::param::Init;

    #[test]
    fn the_norm_is_exact_on_any_layout_and_does_not_overflow() {
        let store = ParamStore::new(0, DType::F32, &Device::Cpu);
        let param = store.root().param("p", (300, 200), Init::Const(0.0)).unwrap();
        let values: Vec<f32> = (0..60_000u16).map(|i| (f32::from(i) * 0.01).sin() * 1e25).collect();
        let expected = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let rows = Tensor::from_vec(values.clone(), (300, 200), &Device::Cpu).unwrap();
        let strided = Tensor::from_vec(values, (200, 300), &Device::Cpu).unwrap().t().unwrap();
        for gradient in [rows, strided] {
            let mut gradients = Gradients::new(&store);
            gradients.add(&param, &gradient).unwrap();
            let norm = gradients.global_norm().unwrap();
            assert!((norm / expected - 1.0).abs() < 1e-12, "{norm} against {expected}");
        }
    }
}
