//! The parameter store: ordered names, seeded initialisation, one switch for gradient tracking.
//!
//! A [`ParamStore`] owns every tensor of a model that must survive in a checkpoint: trainable
//! parameters and buffers (permutations, running statistics, "initialised" flags). Names are kept in
//! a `BTreeMap`, so that the order of parameters, of their gradients and of a flattened gradient is
//! the same in every run. Layers receive a [`ParamPath`] (`path.pp("coupling").pp("net")`), ask it for
//! [`Param`]s and read them with [`Param::tensor`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};

use crate::hash::Fnv;
use crate::numerics::host;
use crate::{Error, FlowRng, Result};

mod gradients;
mod peers;

pub use gradients::Gradients;
pub(crate) use gradients::Watcher;
pub use peers::Peers;

/// How a new parameter is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// Every entry the same.
    Const(f64),
    /// Independent Gaussian entries with this standard deviation and mean zero.
    Normal(f64),
    /// Independent entries uniform in `[-bound, bound]`.
    Uniform(f64),
}

/// A named tensor of a model: a trainable parameter or a buffer.
///
/// Cloning is cheap and shares the storage.
#[derive(Debug, Clone)]
pub struct Param {
    name: Arc<str>,
    var: Var,
    trainable: bool,
    paused: Arc<AtomicUsize>,
}

impl Param {
    /// The full dotted name, `level0.step3.coupling.net.w1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether an optimizer may change it.
    pub fn trainable(&self) -> bool {
        self.trainable
    }

    /// The value, tracked by automatic differentiation unless tracking is paused or this is a buffer.
    pub fn tensor(&self) -> Tensor {
        if self.trainable && self.paused.load(Ordering::Relaxed) == 0 {
            self.var.as_tensor().clone()
        } else {
            self.var.as_detached_tensor()
        }
    }

    /// The element type, that of the store.
    pub fn dtype(&self) -> DType {
        self.var.dtype()
    }

    /// Whether [`Param::tensor`] would be tracked now.
    pub fn tracked(&self) -> bool {
        self.trainable && self.paused.load(Ordering::Relaxed) == 0
    }

    /// The underlying Candle variable.
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// Replaces the value in place; every clone and every model built on the store sees it.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        if value.dims() != self.var.dims() {
            return Err(Error::Shape {
                layer: self.name.to_string(),
                expected: format!("{:?}", self.var.dims()),
                actual: value.dims().to_vec(),
            });
        }
        // Candle returns the operand itself for operations on empty tensors, which `Var::set` refuses as an alias.
        if value.elem_count() == 0 {
            return Ok(());
        }
        let value = value.to_dtype(self.var.dtype())?.to_device(self.var.device())?;
        // `Var::set` copies; the source must not alias the variable's own storage.
        Ok(self.var.set(&value.contiguous()?.detach())?)
    }
}

/// All parameters and buffers of one model. Cloning shares them.
#[derive(Debug, Clone)]
pub struct ParamStore {
    params: Arc<Mutex<BTreeMap<String, Param>>>,
    paused: Arc<AtomicUsize>,
    peers: Arc<peers::Place>,
    seed: u64,
    dtype: DType,
    device: Device,
}

impl ParamStore {
    /// An empty store. Parameters created through it have `dtype` on `device`.
    ///
    /// `dtype` is `F32` or `F64`. With another type the store stays empty: every call that would create a parameter or
    /// a buffer returns [`Error::DType`].
    pub fn new(seed: u64, dtype: DType, device: &Device) -> Self {
        ParamStore {
            params: Arc::default(),
            paused: Arc::default(),
            peers: Arc::default(),
            seed,
            dtype,
            device: device.clone(),
        }
    }

    /// The place where names begin.
    pub fn root(&self) -> ParamPath {
        ParamPath { store: self.clone(), prefix: String::new() }
    }

    /// The element type of new parameters.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device of new parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The seed of the initialisation.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Every parameter and buffer, in name order.
    pub fn all(&self) -> Vec<Param> {
        self.lock().values().cloned().collect()
    }

    /// The trainable parameters, in name order: the order of [`Gradients`].
    pub fn trainable(&self) -> Vec<Param> {
        self.lock().values().filter(|p| p.trainable).cloned().collect()
    }

    /// One parameter or buffer by its full name.
    pub fn get(&self, name: &str) -> Option<Param> {
        self.lock().get(name).cloned()
    }

    /// Number of trainable scalars.
    pub fn parameter_count(&self) -> usize {
        self.lock().values().filter(|p| p.trainable).map(|p| p.var.elem_count()).sum()
    }

    /// Stops gradient tracking until the returned guard is dropped.
    ///
    /// The switch belongs to this store, not to the process: other models are not affected. Guards
    /// nest. Do not evaluate the same model with and without tracking from two threads at once.
    #[must_use = "tracking resumes when the guard is dropped"]
    pub fn no_grad(&self) -> NoGrad {
        self.paused.fetch_add(1, Ordering::Relaxed);
        NoGrad(self.paused.clone())
    }

    /// Whether both are handles of one store.
    pub fn is_same(&self, other: &ParamStore) -> bool {
        Arc::ptr_eq(&self.params, &other.params)
    }

    /// Refuses results that are tracked although this store's tracking is paused and the inputs were constants: they
    /// depend on a parameter of another store.
    pub(crate) fn check_untracked(&self, layer: &str, results: &[&Tensor]) -> Result<()> {
        if self.tracking() || !results.iter().any(|t| t.track_op()) {
            return Ok(());
        }
        let reason = "depends on parameters of another store than the one it was given; build all layers under the \
                      root of that one, or they are never trained";
        Err(Error::config(layer, reason))
    }

    /// Refuses a store of a type in which no parameter can be, on behalf of `user`.
    pub(crate) fn check_dtype(&self, user: &str) -> Result<()> {
        if matches!(self.dtype, DType::F32 | DType::F64) {
            return Ok(());
        }
        Err(Error::DType {
            layer: format!("parameter store of {user}"),
            expected: "F32 or F64".into(),
            actual: self.dtype,
        })
    }

    /// Whether tracking is on: whether a pass over the model now builds a graph.
    pub fn tracking(&self) -> bool {
        self.paused.load(Ordering::Relaxed) == 0
    }

    /// All values by name, detached, for saving or for an average of weights.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        let guard = self.lock();
        guard.iter().map(|(name, p)| Ok((name.clone(), p.var.as_tensor().copy()?.detach()))).collect()
    }

    /// A number that tells the names and every bit of the values, in f32, from others; `described` is taken in first, for a
    /// configuration that belongs to them.
    ///
    /// # Errors
    /// A failure of the device.
    pub fn fingerprint(&self, described: &str) -> Result<u64> {
        let mut hash = Fnv::new().bytes(described.as_bytes());
        for param in self.all() {
            let values: Vec<f32> = param.var().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            hash = hash.bytes(param.name().as_bytes()).words(values.into_iter().map(f32::to_bits));
        }
        Ok(hash.value())
    }

    /// Sets every parameter and buffer from `values`; names and shapes must agree exactly.
    ///
    /// # Errors
    /// [`Error::Config`] that lists missing, unexpected and misshapen names; nothing is changed then.
    pub fn restore(&self, values: &BTreeMap<String, Tensor>) -> Result<()> {
        let guard = self.lock();
        let mut faults = Vec::new();
        for (name, param) in guard.iter() {
            match values.get(name) {
                None => faults.push(format!("'{name}' is missing")),
                Some(v) if v.dims() != param.var.dims() => {
                    faults.push(format!("'{name}' has shape {:?}, the model wants {:?}", v.dims(), param.var.dims()));
                }
                Some(v) if v.dtype() != param.var.dtype() => {
                    faults.push(format!("'{name}' is {:?}, the model wants {:?}", v.dtype(), param.var.dtype()));
                }
                Some(_) => {}
            }
        }
        faults.extend(
            values.keys().filter(|n| !guard.contains_key(*n)).map(|n| format!("'{n}' is unknown to the model")),
        );
        if !faults.is_empty() {
            let more = faults.len().saturating_sub(3);
            let mut reason = faults.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
            if more > 0 {
                reason += &format!("; and {more} more differences");
            }
            return Err(Error::config("parameters", reason));
        }
        guard.iter().try_for_each(|(name, param)| param.set(&values[name]))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Param>> {
        // A panic while the map was held cannot leave it half-written: insertions are single calls.
        self.params.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, name: String, value: Tensor, trainable: bool) -> Result<Param> {
        let mut guard = self.lock();
        if guard.contains_key(&name) {
            return Err(Error::config(format!("parameter '{name}'"), "exists already; give each layer its own path"));
        }
        let param = Param {
            name: name.as_str().into(),
            var: Var::from_tensor(&value)?,
            trainable,
            paused: self.paused.clone(),
        };
        guard.insert(name, param.clone());
        Ok(param)
    }
}

/// A guard of [`ParamStore::no_grad`].
#[derive(Debug)]
pub struct NoGrad(Arc<AtomicUsize>);

impl Drop for NoGrad {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A prefix in a [`ParamStore`], handed to a layer's constructor.
#[derive(Debug, Clone)]
pub struct ParamPath {
    store: ParamStore,
    prefix: String,
}

impl ParamPath {
    /// The path one component deeper.
    pub fn pp(&self, part: impl std::fmt::Display) -> Self {
        ParamPath { store: self.store.clone(), prefix: self.join(&part.to_string()) }
    }

    /// The dotted prefix, for error messages.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The store behind the path.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// A new trainable parameter.
    ///
    /// # Errors
    /// [`Error::Config`] when the name is taken or `init` is not finite, [`Error::DType`] in a store whose type is not `F32` or `F64`.
    pub fn param(&self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<Param> {
        self.store.check_dtype(&format!("'{}'", self.join(name)))?;
        let (Init::Const(size) | Init::Normal(size) | Init::Uniform(size)) = init;
        if !size.is_finite() {
            return Err(Error::config(format!("parameter '{}'", self.join(name)), format!("cannot begin as {init:?}")));
        }
        // On the CPU to the last bit, so that a seed means the same numbers on every device.
        let (shape, dtype, device) = (shape.into(), self.store.dtype, &Device::Cpu);
        let mut rng = self.rng(name);
        let value = match init {
            Init::Const(c) => host::full(c, shape, dtype, device)?,
            Init::Normal(std) => rng.normal(shape, dtype, device)?.affine(std, 0.0)?,
            Init::Uniform(bound) => rng.uniform(shape, dtype, device)?.affine(2.0 * bound, -bound)?,
        };
        self.store.insert(self.join(name), value.to_device(&self.store.device)?, true)
    }

    /// A new trainable parameter with a given value, converted to the store's type.
    ///
    /// # Errors
    /// As for [`ParamPath::param`].
    pub fn param_from(&self, name: &str, value: &Tensor) -> Result<Param> {
        self.insert_from(name, value, true)
    }

    /// A tensor that is saved with the model but never trained, converted to the store's type.
    ///
    /// # Errors
    /// As for [`ParamPath::param`].
    pub fn buffer(&self, name: &str, value: &Tensor) -> Result<Param> {
        self.insert_from(name, value, false)
    }

    /// The generator for random constants of this path (an initial rotation, a fixed permutation).
    pub fn rng(&self, name: &str) -> FlowRng {
        FlowRng::named(self.store.seed, &self.join(name))
    }

    fn insert_from(&self, name: &str, value: &Tensor, trainable: bool) -> Result<Param> {
        self.store.check_dtype(&format!("'{}'", self.join(name)))?;
        let value = value.to_dtype(self.store.dtype)?.to_device(&self.store.device)?;
        self.store.insert(self.join(name), value.contiguous()?.detach(), trainable)
    }

    fn join(&self, part: &str) -> String {
        if self.prefix.is_empty() { part.to_string() } else { format!("{}.{part}", self.prefix) }
    }
}
