//! Generation: many molecules at a time, decision by decision.

use std::ops::Range;

use flow_core::FlowRng;
use rayon::prelude::*;

use super::choice::{Law, Outputs};
use super::config::{BOND_CLASSES, Head, NO_BOND, Stop};
use super::graph_af::GraphAf;
use super::growing::{Frozen, Growing, update};
use super::prefix::Prefix;
use super::rules::Rules;
use super::sequence::{Sequence, SequenceBond};
use super::vocabulary::Vocabulary;
use crate::molecule::{Bond, Molecule};
use crate::{Error, Result};

/// Molecules that are built side by side: enough for wide matrix products.
const GROUP: usize = 64;

/// How molecules are drawn.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SampleOptions {
    /// Standard deviation of the latents of a Gaussian head; a categorical one's probabilities are raised to
    /// `1 / temperature`.
    pub temperature: f64,
    /// Whether choices that break a valence, or leave no way to go on, are excluded. Each remaining choice
    /// keeps its probability relative to the others: what redrawing until a choice is legal amounts to.
    pub valid: bool,
    /// The least number of atoms. With `valid` it holds wherever the atoms of the vocabulary and the free valences of a
    /// beginning that was given allow it: a choice that would use up the last free valence too early is excluded.
    pub min_atoms: usize,
    /// The most atoms, the model's own limit if smaller.
    pub max_atoms: Option<usize>,
    /// Start from this molecule: its atoms and bonds are taken as decided, in this order.
    pub scaffold: Option<Sequence>,
}

impl Default for SampleOptions {
    fn default() -> Self {
        SampleOptions { temperature: 1.0, valid: true, min_atoms: 1, max_atoms: None, scaffold: None }
    }
}

impl SampleOptions {
    fn check(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let reason = format!("is {}, must be a finite number of at least 0", self.temperature);
            return Err(Error::config("temperature", reason));
        }
        if self.max_atoms == Some(0) {
            return Err(Error::config("max_atoms", "is 0, must be at least 1"));
        }
        Ok(())
    }
}

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The model said so.
    Stopped,
    /// A new atom got no bond, by which a model of [`Stop::Unconnected`] ends; it is not part of the molecule.
    Unconnected,
    /// A new atom got no bond in a model that ends by a class of its own: the draw is broken, what there is of it is no
    /// molecule that the model meant. With [`SampleOptions::valid`] no draw ends so.
    Broken,
    /// The largest size was reached.
    Largest,
}

/// A drawn molecule.
#[derive(Debug, Clone)]
pub struct Generated {
    /// Atoms and bonds in the order in which they were chosen.
    pub sequence: Sequence,
    /// Choices that were excluded and had to be drawn again; none means valid by the model's own doing.
    pub redrawn: usize,
    /// How it ended.
    pub end: End,
}

impl Generated {
    /// The molecule, `None` for a draw that is [broken](End::Broken).
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a code outside the vocabulary.
    pub fn molecule(&self, vocabulary: &Vocabulary) -> Result<Option<Molecule>> {
        if self.end == End::Broken { Ok(None) } else { self.sequence.molecule(vocabulary).map(Some) }
    }
}

/// The latents of one molecule: the base's variables of all its decisions, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Latents {
    /// Of the atom decisions.
    pub atoms: Vec<f64>,
    /// Of the bond decisions.
    pub bonds: Vec<f64>,
}

/// Where the choices of one molecule come from.
enum Source<'a> {
    Draw { rng: FlowRng, scaffold: Option<&'a Sequence> },
    Encode { sequence: &'a Sequence, rng: FlowRng, latents: Latents },
    Decode { atoms: &'a [f64], bonds: &'a [f64] },
}

struct Site<'a> {
    source: Source<'a>,
    bonds: Vec<SequenceBond>,
    redrawn: usize,
    end: Option<End>,
}

/// A group of molecules under construction.
struct Group<'a> {
    frozen: &'a Frozen,
    rules: &'a Rules,
    temperature: f64,
    max_atoms: usize,
    molecules: Vec<Growing>,
    sites: Vec<Site<'a>>,
}

impl<'a> Group<'a> {
    fn new(frozen: &'a Frozen, rules: &'a Rules, sources: Vec<Source<'a>>) -> Self {
        let site = |source| Site { source, bonds: Vec::new(), redrawn: 0, end: None };
        Group {
            frozen,
            rules,
            temperature: 1.0,
            max_atoms: frozen.config.max_atoms,
            molecules: vec![Growing::new(frozen); sources.len()],
            sites: sources.into_iter().map(site).collect(),
        }
    }

    fn run(&mut self) {
        loop {
            let open: Vec<usize> = (0..self.sites.len()).filter(|&m| self.sites[m].end.is_none()).collect();
            if open.is_empty() {
                return;
            }
            self.reopen(&open);
            self.atoms(&open);
            let mut pending: Vec<usize> = open.into_iter().filter(|&m| self.has_candidates(m)).collect();
            let asked = pending.clone();
            while !pending.is_empty() {
                let bonded = self.bonds(&pending);
                update(self.frozen, &mut self.molecules, &bonded);
                pending = bonded.into_iter().filter(|&m| self.has_candidates(m)).collect();
            }
            asked.into_iter().for_each(|m| self.finish_atom(m));
        }
    }

    fn has_candidates(&self, m: usize) -> bool {
        self.sites[m].end.is_none() && self.molecules[m].next + 1 < self.molecules[m].prefix.len()
    }

    /// Lets beginnings that have free valences behind the frontier alone be bonded there, while atoms are wanted.
    fn reopen(&mut self, open: &[usize]) {
        let mut reopened = Vec::new();
        for &m in open {
            let Source::Draw { scaffold: Some(scaffold), .. } = &self.sites[m].source else { continue };
            let prefix = &self.molecules[m].prefix;
            if prefix.len() < scaffold.len() {
                continue;
            }
            if let Some(node) = self.rules.to_reopen(prefix) {
                self.molecules[m].reopen(self.frozen, node);
                reopened.push(m);
            }
        }
        if !reopened.is_empty() {
            update(self.frozen, &mut self.molecules, &reopened);
        }
    }

    /// The next atom of each molecule, or its end.
    fn atoms(&mut self, open: &[usize]) {
        let pass = self.frozen.atom_outputs(&self.molecules, open);
        let classes = self.frozen.config.atom_classes();
        let log_range = self.frozen.log_ranges().0;
        let outputs = Outputs { values: &pass.output, count: open.len(), classes, log_range };
        for (d, &m) in open.iter().enumerate() {
            if self.molecules[m].prefix.len() >= self.max_atoms {
                self.sites[m].end = Some(End::Largest);
                continue;
            }
            let law = Law::new(&self.frozen.config.head, &outputs, d, self.temperature);
            let class = self.choose_atom(m, &law);
            match class {
                Some(code) if usize::from(code) < self.frozen.config.vocabulary.len() => {
                    self.molecules[m].add_atom(self.frozen, code);
                }
                _ => self.sites[m].end = Some(End::Stopped),
            }
        }
    }

    fn choose_atom(&mut self, m: usize, law: &Law) -> Option<u8> {
        let (site, prefix) = (&mut self.sites[m], &self.molecules[m].prefix);
        let noise = noise(&self.frozen.config.head);
        match &mut site.source {
            Source::Draw { rng, scaffold } => {
                if let Some(&code) = scaffold.and_then(|s| s.atoms.get(prefix.len())) {
                    return Some(code);
                }
                let (class, redrawn) = law.draw(self.rules.atoms(prefix), rng);
                site.redrawn += redrawn;
                Some(class)
            }
            Source::Encode { sequence, rng, latents } => {
                let nothing = self.frozen.config.vocabulary.len() as u8;
                let code = sequence.atoms.get(prefix.len()).copied().unwrap_or(nothing);
                law.encode(code, noise, rng, &mut latents.atoms);
                if code == nothing && self.frozen.config.stop == Stop::Unconnected {
                    // Noise alone looks like some atom, which then gets no bond.
                    let own = latents.atoms.len() - self.frozen.config.atom_classes();
                    return Some(law.decode(&mut &latents.atoms[own..]));
                }
                Some(code)
            }
            Source::Decode { atoms, .. } => (!atoms.is_empty()).then(|| law.decode(atoms)),
        }
    }

    /// Asks about candidates until a bond is chosen; returns the molecules that got one.
    fn bonds(&mut self, pending: &[usize]) -> Vec<usize> {
        let pass = self.frozen.bond_outputs(&self.molecules, pending);
        let count = pending.iter().map(|&m| self.molecules[m].prefix.len() - 1 - self.molecules[m].next).sum();
        let log_range = self.frozen.log_ranges().1;
        let outputs = Outputs { values: &pass.output, count, classes: BOND_CLASSES, log_range };
        let (mut bonded, mut start) = (Vec::new(), 0);
        for &m in pending {
            let (first, newest) = (self.molecules[m].next, self.molecules[m].prefix.len() - 1);
            for to in first..newest {
                self.molecules[m].next = to + 1;
                let class = self.choose_bond(m, to, &outputs, start + to - first);
                if let Some(&bond) = Bond::ALL.get(usize::from(class)) {
                    self.molecules[m].add_bond(self.frozen, to, bond);
                    self.sites[m].bonds.push(SequenceBond { atom: newest as u8, to: to as u8, bond });
                    bonded.push(m);
                    break;
                }
            }
            start += newest - first;
        }
        bonded
    }

    fn choose_bond(&mut self, m: usize, to: usize, outputs: &Outputs<'_>, d: usize) -> u8 {
        let (site, prefix) = (&mut self.sites[m], &self.molecules[m].prefix);
        let newest = prefix.len() - 1;
        let law = || Law::new(&self.frozen.config.head, outputs, d, self.temperature);
        let noise = noise(&self.frozen.config.head);
        let decided = |sequence: &Sequence| {
            let bond = sequence.bonds_of(newest).iter().find(|b| usize::from(b.to) == to);
            bond.map_or(NO_BOND, |b| b.bond.order() - 1)
        };
        match &mut site.source {
            Source::Draw { rng, scaffold } => {
                if let Some(scaffold) = scaffold.filter(|s| newest < s.len()) {
                    return decided(scaffold);
                }
                let allowed = self.rules.bonds(prefix, to);
                if allowed.is_power_of_two() {
                    // Nothing is left to choose.
                    return allowed.trailing_zeros() as u8;
                }
                let (class, redrawn) = law().draw(u128::from(allowed), rng);
                site.redrawn += redrawn;
                class
            }
            Source::Encode { sequence, rng, latents } => {
                let class = decided(sequence);
                law().encode(class, noise, rng, &mut latents.bonds);
                class
            }
            Source::Decode { bonds, .. } => {
                if bonds.is_empty() {
                    NO_BOND
                } else {
                    law().decode(bonds)
                }
            }
        }
    }

    /// An atom that got no bond ends the molecule.
    fn finish_atom(&mut self, m: usize) {
        if self.sites[m].end.is_none() && !self.molecules[m].prefix.connected() {
            self.molecules[m].prefix.remove_unconnected();
            let by_class = self.frozen.config.stop == Stop::Class;
            self.sites[m].end = Some(if by_class { End::Broken } else { End::Unconnected });
        }
    }

    fn finish(self) -> Vec<(Generated, Option<Latents>)> {
        let done = self.molecules.into_iter().zip(self.sites);
        done.map(|(molecule, site)| {
            let atoms = molecule.prefix.nodes().iter().map(|n| n.code).collect();
            let sequence = Sequence { atoms, bonds: site.bonds.into() };
            let latents = match site.source {
                Source::Encode { latents, .. } => Some(latents),
                _ => None,
            };
            (Generated { sequence, redrawn: site.redrawn, end: site.end.unwrap_or(End::Stopped) }, latents)
        })
        .collect()
    }
}

/// The width of the dequantization noise.
fn noise(head: &Head) -> f64 {
    match head {
        Head::Gaussian { noise, .. } => *noise,
        Head::Categorical { .. } => 1.0,
    }
}

impl GraphAf {
    fn frozen(&self) -> Result<Frozen> {
        Ok(Frozen::new(self.config(), self.single()?))
    }

    /// Draws molecules.
    ///
    /// The same generator gives the same molecules whatever the number of threads.
    ///
    /// # Errors
    /// [`flow_core::Error::Config`] for options out of range; [`Error::Vocabulary`] for a scaffold that the model
    /// cannot express.
    pub fn sample(&self, count: usize, options: &SampleOptions, rng: &mut FlowRng) -> Result<Vec<Generated>> {
        self.sample_part(count, 0..count, options, rng)
    }

    /// Those of `count` molecules that are in `part`, each as it would be among all: what one of several processes draws.
    ///
    /// # Errors
    /// As [`GraphAf::sample`].
    pub fn sample_part(
        &self,
        count: usize,
        part: Range<usize>,
        options: &SampleOptions,
        rng: &mut FlowRng,
    ) -> Result<Vec<Generated>> {
        let scaffold = options.scaffold.as_ref();
        self.check(scaffold)?;
        let sources = (0..count).map(|_| Source::Draw { rng: rng.fork(), scaffold });
        // Every molecule takes its turn at the generator, whoever draws it.
        let own = sources.enumerate().filter_map(|(i, source)| part.contains(&i).then_some(source)).collect();
        self.draw(own, options)
    }

    /// Draws one molecule from each of these beginnings; those of the options are not used.
    ///
    /// # Errors
    /// As [`GraphAf::sample`].
    pub fn grow(
        &self,
        scaffolds: &[Option<&Sequence>],
        options: &SampleOptions,
        rng: &mut FlowRng,
    ) -> Result<Vec<Generated>> {
        self.check(scaffolds.iter().flatten().copied())?;
        self.draw(scaffolds.iter().map(|&scaffold| Source::Draw { rng: rng.fork(), scaffold }).collect(), options)
    }

    fn draw(&self, sources: Vec<Source<'_>>, options: &SampleOptions) -> Result<Vec<Generated>> {
        options.check()?;
        let frozen = self.frozen()?;
        let rules = Rules::new(self.config(), options.valid, options.min_atoms);
        let mut sources = sources.into_iter();
        let groups =
            std::iter::from_fn(|| Some(sources.by_ref().take(GROUP).collect::<Vec<_>>()).filter(|g| !g.is_empty()));
        let groups: Vec<Vec<Source<'_>>> = groups.collect();
        let run = |sources| {
            let mut group = Group::new(&frozen, &rules, sources);
            group.temperature = options.temperature;
            group.max_atoms = options.max_atoms.unwrap_or(usize::MAX).min(self.config().max_atoms);
            group.run();
            group.finish().into_iter().map(|(generated, _)| generated).collect::<Vec<_>>()
        };
        Ok(groups.into_par_iter().map(run).collect::<Vec<_>>().concat())
    }

    /// Whether an atom after those of a beginning, in this order, finds a free valence where the model looks for one.
    pub fn can_grow(&self, beginning: &Sequence) -> bool {
        let mut prefix = Prefix::default();
        for (atom, &code) in beginning.atoms.iter().enumerate() {
            prefix.add_atom(code);
            beginning.bonds_of(atom).iter().for_each(|bond| prefix.add_bond(usize::from(bond.to), bond.bond));
        }
        Rules::new(self.config(), true, 1).is_open(&prefix)
    }

    /// The latents of molecules; a generator draws the position within each class's part of the base.
    ///
    /// # Errors
    /// [`Error::Vocabulary`] for a molecule that the model cannot express.
    pub fn encode(&self, sequences: &[Sequence], rng: &mut FlowRng) -> Result<Vec<Latents>> {
        self.check(sequences)?;
        let sources =
            sequences.iter().map(|sequence| Source::Encode { sequence, rng: rng.fork(), latents: Latents::default() });
        let done = self.replay(sources.collect())?;
        Ok(done.into_iter().map(|(_, latents)| latents.unwrap_or_default()).collect())
    }

    /// The molecules of latents: the inverse of [`GraphAf::encode`].
    ///
    /// # Errors
    /// A failure to read the parameters.
    pub fn decode(&self, latents: &[Latents]) -> Result<Vec<Sequence>> {
        let sources = latents.iter().map(|l| Source::Decode { atoms: &l.atoms, bonds: &l.bonds });
        let done = self.replay(sources.collect())?;
        Ok(done.into_iter().map(|(generated, _)| generated.sequence).collect())
    }

    fn replay(&self, mut sources: Vec<Source<'_>>) -> Result<Vec<(Generated, Option<Latents>)>> {
        let frozen = self.frozen()?;
        let rules = Rules::new(self.config(), false, 1);
        let mut groups = Vec::new();
        while !sources.is_empty() {
            groups.push(sources.drain(..sources.len().min(GROUP)).collect::<Vec<_>>());
        }
        let run = |sources| {
            let mut group = Group::new(&frozen, &rules, sources);
            group.run();
            group.finish()
        };
        Ok(groups.into_par_iter().map(run).collect::<Vec<_>>().into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
