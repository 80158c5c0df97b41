//! The model as a whole: likelihoods of molecules and their gradients.

use candle_core::{DType, Tensor};
use flow_core::kernels::{Real, runs_on};
use flow_core::numerics::host;
use flow_core::{FlowRng, Gradients, ParamStore};
use rayon::prelude::*;

use super::config::GraphAfConfig;
use super::matrix::Matrix;
use super::pack::Pack;
use super::params::Net;
use super::pass::{self, DecisionValues, Noise, noise_lengths};
use super::rules::Rules;
use super::sequence::{LARGEST_MOLECULE, Sequence};
use super::{direct, graph_net, head};
use crate::{Error, Result};

/// Molecules of one unit of parallel work: enough for wide matrix products, few enough for the cache.
pub(crate) const CHUNK: usize = 8;

/// A GraphAF model.
///
/// A molecule is scored as the product of its decisions in one order of its atoms. For a categorical head that is
/// the exact probability of the molecule *in this order*, a lower bound of its probability; for a Gaussian
/// head it is the density of the dequantized decisions.
///
/// On the CPU, likelihoods and gradients come from a fused pass; elsewhere, or after
/// [`GraphAf::with_direct_form`], from tensor operations on a sub-graph for each decision.
#[derive(Debug)]
pub struct GraphAf {
    config: GraphAfConfig,
    store: ParamStore,
    net: Net<flow_core::Param>,
    direct: bool,
}

/// The scores of a batch.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    /// `log p` of each molecule in its order, in nats.
    pub log_probs: Vec<f64>,
    /// Decisions of the batch.
    pub decisions: usize,
    /// Atoms of the batch.
    pub atoms: usize,
}

impl Scored {
    /// `−Σ log₂ p / Σ atoms`.
    pub fn bits_per_atom(&self) -> f64 {
        -self.log_probs.iter().sum::<f64>() / std::f64::consts::LN_2 / self.atoms.max(1) as f64
    }

    /// `−Σ log p / number of molecules`, in nats.
    pub fn nats_per_molecule(&self) -> f64 {
        -self.log_probs.iter().sum::<f64>() / self.log_probs.len().max(1) as f64
    }
}

/// A chunk of a batch, ready to be scored.
struct Chunk<T> {
    pack: Pack,
    noise: Noise<T>,
}

/// The noise of a chunk: by one generator, or by one for each molecule, whose noise then does not depend on what else is in
/// the chunk.
fn draw_noise<T: Real>(config: &GraphAfConfig, pack: &Pack, mut generators: Vec<FlowRng>) -> Noise<T> {
    let (atoms, bonds) = noise_lengths(config, pack);
    // Numbers for one decision: none, or one for each class.
    let [for_atom, for_bond] = [atoms / pack.atoms.len().max(1), bonds / pack.bonds.len().max(1)];
    let whole = [(pack.atoms.len(), pack.bonds.len())];
    let ends = if generators.len() == 1 { &whole[..] } else { &pack.ends };
    let uniform = |rng: &mut FlowRng, n: usize| (0..n).map(|_| T::from_f64(rng.next_uniform())).collect::<Vec<T>>();
    let mut noise = Noise { atoms: Vec::with_capacity(atoms), bonds: Vec::with_capacity(bonds) };
    let mut from = (0, 0);
    for (rng, &to) in generators.iter_mut().zip(ends) {
        noise.atoms.extend(uniform(rng, (to.0 - from.0) * for_atom));
        noise.bonds.extend(uniform(rng, (to.1 - from.1) * for_bond));
        from = to;
    }
    noise
}

impl GraphAf {
    /// A model with fresh parameters in `store`.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] naming the field of the configuration that is out of range.
    pub fn new(config: GraphAfConfig, store: &ParamStore) -> Result<Self> {
        let net = Net::new(&config, &store.root())?;
        Ok(GraphAf { config, store: store.clone(), net, direct: !runs_on(store.device()) })
    }

    /// Chooses between the direct form and the fused pass, which is for the CPU only.
    #[must_use]
    pub fn with_direct_form(mut self, direct: bool) -> Self {
        self.direct = direct || !runs_on(self.store.device());
        self
    }

    /// The configuration.
    pub fn config(&self) -> &GraphAfConfig {
        &self.config
    }

    /// The parameters.
    pub fn store(&self) -> &ParamStore {
        &self.store
    }

    /// The parameters as flat arrays.
    #[cfg(test)]
    pub(crate) fn values<T: Real>(&self) -> Result<Net<Matrix<T>>> {
        self.net.values()
    }

    /// Sets scale and shift of the embeddings so that those of these molecules have mean 0 and variance 1.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a molecule that the model cannot express.
    pub fn initialize(&self, sequences: &[Sequence]) -> Result<()> {
        self.check(sequences)?;
        let net = self.single()?;
        let raw = graph_net::unnormalized(&self.config, &net, &Pack::new(&self.config, sequences, None));
        let width = self.config.width;
        let rows = (raw.len() / width).max(1) as f64;
        let mut moments = vec![(0.0, 0.0); width];
        for row in raw.chunks_exact(width) {
            moments.iter_mut().zip(row).for_each(|((sum, squares), &x)| {
                *sum += f64::from(x);
                *squares += f64::from(x).powi(2);
            });
        }
        let scale_and_mean = moments.iter().map(|(sum, squares)| {
            let mean = sum / rows;
            let deviation = (squares / rows - mean * mean).max(0.0).sqrt();
            // A feature that never varies keeps its scale.
            (if deviation > 1e-6 { 1.0 / deviation } else { 1.0 }, mean)
        });
        let (scale, shift): (Vec<f64>, Vec<f64>) = scale_and_mean.map(|(scale, mean)| (scale, -mean * scale)).unzip();
        let device = self.store.device();
        self.net.scale.set(&Tensor::new(scale, device)?)?;
        self.net.shift.set(&Tensor::new(shift, device)?)?;
        Ok(())
    }

    /// The parameters in single precision, as sampling uses them.
    pub(crate) fn single(&self) -> Result<Net<Matrix<f32>>> {
        match self.store.dtype() {
            DType::F64 => self.converted(),
            _ => self.net.values::<f32>(),
        }
    }

    fn converted(&self) -> Result<Net<Matrix<f32>>> {
        let wide = self.net.values::<f64>()?;
        wide.try_map(|m| {
            Ok(Matrix { rows: m.rows, columns: m.columns, data: m.data.iter().map(|&x| x as f32).collect() })
        })
    }

    /// Checks that molecules fit the model.
    pub(crate) fn check<'a>(&self, sequences: impl IntoIterator<Item = &'a Sequence>) -> Result<()> {
        for sequence in sequences {
            if sequence.is_empty() || sequence.len() > self.config.max_atoms {
                let most = self.config.max_atoms;
                return Err(Error::Vocabulary(format!("it has {} atoms, the model's limit is {most}", sequence.len())));
            }
            if sequence.atoms.iter().any(|&code| usize::from(code) >= self.config.vocabulary.len()) {
                return Err(Error::Vocabulary("it has an atom code outside the vocabulary".into()));
            }
            let frontier = self.config.candidates == super::Candidates::Frontier;
            if !sequence.grows() || (frontier && !sequence.keeps_frontier()) {
                let reason = "its atoms are not in breadth-first order; `Sequence::shuffled` makes one";
                return Err(Error::Vocabulary(reason.into()));
            }
            if let super::Candidates::Window(window) = self.config.candidates
                && sequence.reach() > window
            {
                let reason = format!("a bond reaches {} atoms back, the model looks {window} back", sequence.reach());
                return Err(Error::Vocabulary(reason));
            }
        }
        Ok(())
    }

    fn chunks<T: Real>(
        &self,
        sequences: &[Sequence],
        rules: Option<&Rules>,
        rng: &mut FlowRng,
    ) -> Result<Vec<Chunk<T>>> {
        self.check(sequences)?;
        // The generators before the work: the bits do not depend on the number of threads.
        let parts = sequences.chunks(CHUNK);
        let work: Vec<(&[Sequence], Vec<FlowRng>)> = match rng.is_for_rows() {
            false => parts.map(|part| (part, vec![rng.fork()])).collect(),
            true => {
                let each = rng.per_row(sequences.len(), |_, rng| Ok::<_, Error>(rng.clone()))?;
                parts.zip(each.chunks(CHUNK).map(<[FlowRng]>::to_vec)).collect()
            }
        };
        work.into_par_iter()
            .map(|(part, generators)| {
                let pack = Pack::new(&self.config, part, rules);
                let noise = draw_noise(&self.config, &pack, generators);
                Ok(Chunk { pack, noise })
            })
            .collect()
    }

    /// `log p` of every molecule in its order. The generator gives the noise of a Gaussian head.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a molecule that the model cannot express.
    pub fn log_prob(&self, sequences: &[Sequence], rng: &mut FlowRng) -> Result<Scored> {
        match self.store.dtype() {
            _ if self.direct => self.score_directly(sequences, rng, |_, _| Ok(())),
            DType::F64 => self.score_fused::<f64>(sequences, rng),
            _ => self.score_fused::<f32>(sequences, rng),
        }
    }

    fn score_fused<T: Real>(&self, sequences: &[Sequence], rng: &mut FlowRng) -> Result<Scored> {
        let net = self.net.values::<T>()?;
        let chunks = self.chunks::<T>(sequences, None, rng)?;
        let values: Vec<DecisionValues> =
            chunks.par_iter().map(|c| pass::score(&self.config, &net, &c.pack, &c.noise)).collect();
        Ok(summary(sequences, &chunks, &values))
    }

    /// Adds the gradient of `−Σ log p / number of decisions` to `gradients` and returns the scores.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a molecule that the model cannot express.
    pub fn backward(&self, sequences: &[Sequence], rng: &mut FlowRng, gradients: &mut Gradients) -> Result<Scored> {
        let mean = |total: usize| {
            move |_: &Pack, scores: &DecisionValues, _: usize| {
                let each = |v: &[f64]| vec![-1.0 / total as f64; v.len()];
                DecisionValues { atoms: each(&scores.atoms), bonds: each(&scores.bonds) }
            }
        };
        match self.store.dtype() {
            _ if self.direct => self.score_directly(sequences, rng, |logs, total| {
                let loss = logs.sum_all()?.affine(-1.0 / total as f64, 0.0)?;
                Ok(gradients.accumulate(&loss.backward()?)?)
            }),
            DType::F64 => self.differentiate::<f64, _>(sequences, None, rng, mean, gradients),
            _ => self.differentiate::<f32, _>(sequences, None, rng, mean, gradients),
        }
    }

    /// The general form of [`GraphAf::backward`]: `worth(total decisions)` returns, for the scores and the
    /// number of a chunk, what each of its log-densities is worth.
    pub(crate) fn differentiate<T: Real, W>(
        &self,
        sequences: &[Sequence],
        rules: Option<&Rules>,
        rng: &mut FlowRng,
        worth: impl FnOnce(usize) -> W,
        gradients: &mut Gradients,
    ) -> Result<Scored>
    where
        W: Fn(&Pack, &DecisionValues, usize) -> DecisionValues + Sync,
    {
        let net = self.net.values::<T>()?;
        let transposed = head::transposed(&self.config.head, &net);
        let chunks = self.chunks::<T>(sequences, rules, rng)?;
        let worth = worth(chunks.iter().map(|c| c.pack.atoms.len() + c.pack.bonds.len()).sum());
        let done: Vec<(DecisionValues, Net<Matrix<T>>)> = chunks
            .par_iter()
            .enumerate()
            .map(|(i, c)| {
                // Mapping by a function that cannot fail does not fail.
                let mut grads = net.try_map(|m| Ok(m.zeros_like())).unwrap_or_else(|_| net.clone());
                let pack = (&c.pack, &c.noise);
                let scores =
                    pass::backward(&self.config, (&net, &transposed), pack, |s| worth(&c.pack, s, i), &mut grads);
                (scores, grads)
            })
            .collect();
        let (values, mut parts): (Vec<_>, Vec<_>) = done.into_iter().unzip();
        if let Some((first, rest)) = parts.split_first_mut() {
            rest.iter().for_each(|part| first.add(part));
            self.net.accumulate(first.clone(), gradients)?;
        }
        Ok(summary(sequences, &chunks, &values))
    }

    /// The log-densities of all decisions given what `rules` allowed, chunk by chunk.
    pub(crate) fn policy_scores(
        &self,
        sequences: &[Sequence],
        rules: &Rules,
        rng: &mut FlowRng,
    ) -> Result<Vec<DecisionValues>> {
        let net = self.net.values::<f32>()?;
        let chunks = self.chunks::<f32>(sequences, Some(rules), rng)?;
        Ok(chunks.par_iter().map(|c| pass::score(&self.config, &net, &c.pack, &c.noise)).collect())
    }

    /// The same model with another limit to the number of atoms, on the same parameters.
    #[must_use]
    pub fn with_max_atoms(mut self, max_atoms: usize) -> Self {
        self.config.max_atoms = max_atoms.clamp(1, LARGEST_MOLECULE);
        self
    }

    /// The direct form; `then` receives the log-densities of all decisions with their graph, and their number.
    fn score_directly(
        &self,
        sequences: &[Sequence],
        rng: &mut FlowRng,
        then: impl FnOnce(&Tensor, usize) -> Result<()>,
    ) -> Result<Scored> {
        let chunks = self.chunks::<f32>(sequences, None, rng)?;
        let (mut atoms, mut bonds) = (Vec::new(), Vec::new());
        for chunk in &chunks {
            atoms.extend_from_slice(&chunk.noise.atoms);
            bonds.extend_from_slice(&chunk.noise.bonds);
        }
        let tensor = |values: Vec<f32>, classes: usize| -> Result<Tensor> {
            let rows = values.len() / classes;
            let tensor = Tensor::from_vec(values, (rows, classes), &candle_core::Device::Cpu)?;
            Ok(tensor.to_dtype(self.store.dtype())?.to_device(self.store.device())?)
        };
        let noise = (tensor(atoms, self.config.atom_classes())?, tensor(bonds, super::BOND_CLASSES)?);
        let (atoms, bonds) = direct::log_probs(&self.config, &self.net, sequences, (&noise.0, &noise.1))?;
        let logs = Tensor::cat(&[&atoms, &bonds], 0)?;
        then(&logs, logs.elem_count())?;
        let (atoms, bonds) = (host::numbers(&atoms)?, host::numbers(&bonds)?);
        let (mut start, mut parts) = ((0, 0), Vec::new());
        for chunk in &chunks {
            let end = (start.0 + chunk.pack.atoms.len(), start.1 + chunk.pack.bonds.len());
            parts.push(DecisionValues { atoms: atoms[start.0..end.0].to_vec(), bonds: bonds[start.1..end.1].to_vec() });
            start = end;
        }
        Ok(summary(sequences, &chunks, &parts))
    }

    /// The parameters in the order of their flat arrays.
    #[cfg(test)]
    pub(crate) fn parameters(&self) -> Vec<flow_core::Param> {
        self.net.list().into_iter().cloned().collect()
    }

    /// The direct form with noise of the caller's.
    #[cfg(test)]
    pub(crate) fn direct(&self, sequences: &[Sequence], noise: (&Tensor, &Tensor)) -> Result<(Tensor, Tensor)> {
        direct::log_probs(&self.config, &self.net, sequences, noise)
    }
}

fn summary<T>(sequences: &[Sequence], chunks: &[Chunk<T>], values: &[DecisionValues]) -> Scored {
    let mut scored = Scored { atoms: sequences.iter().map(Sequence::len).sum(), ..Scored::default() };
    for (chunk, values) in chunks.iter().zip(values) {
        scored.decisions += values.len();
        let mut from = (0, 0);
        for &to in &chunk.pack.ends {
            let sum = values.atoms[from.0..to.0].iter().sum::<f64>() + values.bonds[from.1..to.1].iter().sum::<f64>();
            scored.log_probs.push(sum);
            from = to;
        }
    }
    scored
}
