//! Which choices keep a molecule valid, and never lead into a dead end.

use super::config::{GraphAfConfig, NO_BOND, Stop};
use super::prefix::Prefix;
use crate::molecule::{Bond, largest_valence};

/// The hard rules of a generation: sizes, and valences if they are to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    largest: Vec<u8>,
    valence: bool,
    stop_class: bool,
    min_atoms: usize,
    config: GraphAfConfig,
}

impl Rules {
    /// Rules that keep valences (`valence`) or allow every class, for molecules of at least `min_atoms`.
    pub fn new(config: &GraphAfConfig, valence: bool, min_atoms: usize) -> Self {
        let largest = config.vocabulary.types().iter().map(|&t| largest_valence(t)).collect();
        let stop_class = config.stop == Stop::Class;
        Rules { largest, valence, stop_class, min_atoms: min_atoms.min(config.max_atoms), config: config.clone() }
    }

    /// Atom classes after `atoms` atoms where nothing is restricted but that a molecule has an atom.
    pub fn unrestricted(config: &GraphAfConfig, atoms: usize) -> u128 {
        if atoms == 0 { (1 << config.vocabulary.len()) - 1 } else { u128::MAX }
    }

    /// Bond orders that a node has left.
    fn free(&self, prefix: &Prefix, node: usize) -> u8 {
        let state = prefix.nodes()[node];
        let largest = self.largest.get(usize::from(state.code)).copied().unwrap_or(0);
        largest.saturating_sub(state.used)
    }

    /// Atom classes that may come next, as bits. Without valence rules only the first atom and the least
    /// number of atoms restrict anything: they concern the stop.
    pub fn atoms(&self, prefix: &Prefix) -> u128 {
        let types = self.largest.len();
        let all = (1u128 << types) - 1;
        let stop = if self.stop_class { 1u128 << types } else { 0 };
        if prefix.len() == 0 {
            return all;
        }
        let may_stop = if prefix.len() >= self.min_atoms { stop } else { 0 };
        if !self.valence {
            return all | may_stop;
        }
        let first = prefix.first_candidate(self.config.candidates, prefix.len());
        let open = (first..prefix.len()).any(|node| self.free(prefix, node) > 0);
        if !open {
            return if self.stop_class { stop } else { all };
        }
        let bonding = self.largest.iter().enumerate().filter(|(_, v)| **v > 0);
        bonding.fold(may_stop, |mask, (code, _)| mask | 1 << code)
    }

    /// Bond classes for the newest atom and an earlier one, as bits.
    pub fn bonds(&self, prefix: &Prefix, to: usize) -> u8 {
        let none = 1 << NO_BOND;
        if !self.valence {
            return 0b1111;
        }
        let newest = prefix.len() - 1;
        let free = self.free(prefix, newest).min(self.free(prefix, to));
        let orders = Bond::ALL.iter().filter(|b| b.order() <= free).fold(0, |mask, b| mask | 1 << (b.order() - 1));
        if orders == 0 || prefix.connected() {
            return orders | none;
        }
        // An atom must be bonded to something; "no bond" is an answer while a later candidate could be it.
        let must = self.stop_class || newest < self.min_atoms;
        let later = (to + 1..newest).any(|node| self.free(prefix, node) > 0);
        if must && !later { orders } else { orders | none }
    }
}
