//! A molecule in the order of its canonical SMILES, with rings and aromaticity perceived.

use std::sync::OnceLock;

use chematic::smiles::RdkitSmilesParams;
use chematic::{chem, core, perception, smiles};

use super::convert::{Graph, chemistry, guarded, settled};
use crate::molecule::Molecule;
use crate::{Error, Result};

/// A molecule canonicalised once, from which every property follows.
///
/// The atoms stand in an order that the molecule alone decides, so that whatever depends on an order (a basis of
/// cycles, a sum of rounded numbers) is a function of the molecule alone.
pub struct Perceived {
    smiles: String,
    graph: Graph,
    /// Computed once: QED and penalised logP need it too.
    log_p: OnceLock<f64>,
}

impl Perceived {
    /// Canonicalises a molecule.
    ///
    /// # Errors
    /// As [`canonical_smiles`](super::canonical_smiles).
    pub fn new(molecule: &Molecule) -> Result<Self> {
        let (graph, has_large_ring) = settled(molecule)?;
        let (smiles, graph) = guarded("canonical SMILES", || {
            let smiles = smiles::rdkit_canonical_smiles(&graph).map_err(chemistry)?;
            // Beside a large ring the string begins in a small one, for what is perceived again on the way.
            let rooted = RdkitSmilesParams { rooted_at_atom: Some(0), ..RdkitSmilesParams::default() };
            let rooted =
                has_large_ring.then(|| smiles::rdkit_smiles(&graph, &rooted)).transpose().map_err(chemistry)?;
            let graph = smiles::parse(rooted.as_ref().unwrap_or(&smiles)).map_err(chemistry)?;
            Ok::<_, Error>((smiles, graph))
        })??;
        Ok(Perceived { smiles, graph, log_p: OnceLock::new() })
    }

    /// The canonical SMILES.
    pub fn smiles(&self) -> &str {
        &self.smiles
    }

    /// Number of heavy atoms.
    pub fn heavy_atoms(&self) -> usize {
        self.graph.atom_count()
    }

    /// Quantitative estimate of drug-likeness (Bickerton et al. 2012), 0 to 1.
    ///
    /// # Errors
    /// [`Error::Chemistry`] if chematic fails on the molecule; so for every property below.
    pub fn qed(&self) -> Result<f64> {
        let (qed, native) = guarded("QED", || (chem::qed(&self.graph), chem::logp_crippen(&self.graph)))?;
        let exact = self.log_p()?;
        // QED is a weighted geometric mean; its factor of logP is exchanged where chematic's is not RDKit's.
        let factor = if exact == native { 1.0 } else { log_p_desirability(exact) / log_p_desirability(native) };
        finite("QED")(qed * factor.powf(LOG_P_WEIGHT))
    }

    /// Octanol–water partition coefficient (Wildman & Crippen 1999).
    ///
    /// # Errors
    /// As [`qed`](Self::qed).
    pub fn log_p(&self) -> Result<f64> {
        if let Some(&known) = self.log_p.get() {
            return Ok(known);
        }
        // `chem::logp_crippen` is faster, but types an oxygen on a triple bond and some cations differently.
        let exact = guarded("logP", || smiles::rdkit_crippen_logp_mr(&self.graph).map(|(log_p, _)| log_p))?;
        let log_p = match exact {
            Some(log_p) => log_p,
            None => guarded("logP", || chem::logp_crippen(&self.graph))?,
        };
        let log_p = finite("logP")(log_p)?;
        Ok(*self.log_p.get_or_init(|| log_p))
    }

    /// Average molecular weight in dalton.
    ///
    /// # Errors
    /// As [`qed`](Self::qed).
    pub fn molecular_weight(&self) -> Result<f64> {
        guarded("molecular weight", || chem::rdkit_molecular_weight(&self.graph)).and_then(finite("molecular weight"))
    }

    /// Topological polar surface area in Å² (Ertl et al. 2000), of nitrogen and oxygen.
    ///
    /// # Errors
    /// As [`qed`](Self::qed).
    pub fn polar_surface(&self) -> Result<f64> {
        guarded("polar surface", || chem::rdkit_tpsa(&self.graph)).and_then(finite("polar surface"))
    }

    /// Rings all of whose bonds are aromatic.
    ///
    /// # Errors
    /// As [`qed`](Self::qed).
    pub fn aromatic_rings(&self) -> Result<usize> {
        guarded("aromatic rings", || chem::rdkit_aromatic_ring_count(&self.graph))
    }

    /// Sizes of RDKit's rings, sorted: a smallest set of smallest rings, with the equivalent ones that
    /// such a set leaves out (cubane has six).
    ///
    /// In cages of hypervalent atoms that nobody makes, newer versions of RDKit list some more of the latter.
    ///
    /// # Errors
    /// As [`qed`](Self::qed), and where RDKit itself gives up on an exact set.
    pub fn ring_sizes(&self) -> Result<Vec<usize>> {
        // The equivalent rings that RDKit adds depend on the order of its bonds.
        let bond = |index| self.graph.bond_opt(index).map(|b| (b.atom1.0 as usize, b.atom2.0 as usize, true));
        let bonds: Vec<_> = self.graph.rdkit_bond_order().into_iter().filter_map(bond).collect();
        let rings = guarded("rings", || perception::rdkit_symmetrized_sssr(self.heavy_atoms(), &bonds))?;
        let rings = rings.ok_or_else(|| Error::Chemistry("no exact set of smallest rings".into()))?;
        let mut sizes: Vec<_> = rings.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        Ok(sizes)
    }

    /// Neighbours of each atom by rising index.
    pub(crate) fn adjacency(&self) -> Vec<Vec<usize>> {
        let sorted = |atom: u32| {
            let mut found: Vec<_> = self.graph.neighbors(core::AtomIdx(atom)).map(|(n, _)| n.0 as usize).collect();
            found.sort_unstable();
            found
        };
        (0..self.heavy_atoms() as u32).map(sorted).collect()
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }
}

impl std::fmt::Debug for Perceived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Perceived").field(&self.smiles).finish()
    }
}

/// Weight of logP in QED by the sum of all weights.
const LOG_P_WEIGHT: f64 = 0.46 / 3.92;

/// Desirability of a logP (Bickerton et al. 2012, table of asymmetric double sigmoids), up to its scale.
fn log_p_desirability(log_p: f64) -> f64 {
    let rise = 1.0 + (-(log_p - 2.534_937_431 + 4.581_497_897 / 2.0) / 0.822_739_154).exp();
    let fall = 1.0 + (-(log_p - 2.534_937_431 - 4.581_497_897 / 2.0) / 0.576_295_591).exp();
    3.172_690_585 + 137.862_475_1 / rise * (1.0 - 1.0 / fall)
}

fn finite(what: &'static str) -> impl Fn(f64) -> Result<f64> {
    move |value| {
        value
            .is_finite()
            .then_some(value)
            .ok_or_else(|| Error::Chemistry(format!("{what} is {value} for this molecule")))
    }
}
