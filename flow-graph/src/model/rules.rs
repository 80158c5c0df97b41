//! Which choices keep a molecule valid, and never lead into a dead end.

use super::config::{Candidates, GraphAfConfig, NO_BOND, Stop};
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

    /// The bond orders left on the atoms that an atom after the newest could be bonded to, when the newest has been bonded
    /// first to `to` by `order`, or to nothing.
    ///
    /// In breadth-first order the atoms before `to` are closed by that bond.
    fn left(&self, prefix: &Prefix, bond: Option<(usize, u8)>) -> usize {
        let len = prefix.len();
        let mut first = prefix.first_candidate(self.config.candidates, len);
        if let (Some((to, _)), false, Candidates::Frontier) = (bond, prefix.connected(), self.config.candidates) {
            first = first.max(to);
        }
        (first..len)
            .map(|node| {
                let taken = match bond {
                    Some((to, order)) if node == to || node + 1 == len => order,
                    _ => 0,
                };
                usize::from(self.free(prefix, node).saturating_sub(taken))
            })
            .sum()
    }

    /// Whether an atom after the newest could be bonded to something.
    pub fn is_open(&self, prefix: &Prefix) -> bool {
        self.left(prefix, None) > 0
    }

    /// Whether a bond of the newest atom leaves room for the atoms that are still wanted.
    fn leaves_room(&self, prefix: &Prefix, to: usize, order: u8) -> bool {
        prefix.len() >= self.min_atoms || self.left(prefix, Some((to, order))) > 0
    }

    /// Atom classes that may come next, as bits. Without valence rules only the first atom and the least
    /// number of atoms restrict anything: they concern the stop.
    ///
    /// An atom that would use up the last free valence is excluded while atoms are wanted, if another one is possible.
    pub fn atoms(&self, prefix: &Prefix) -> u128 {
        let types = self.largest.len();
        let all = (1u128 << types) - 1;
        let stop = if self.stop_class { 1u128 << types } else { 0 };
        let types_of = |least: u8| {
            let fitting = self.largest.iter().enumerate().filter(|(_, v)| **v >= least);
            fitting.fold(0, |mask, (code, _)| mask | 1u128 << code)
        };
        if prefix.len() == 0 {
            let bonding = types_of(1);
            return if self.valence && self.min_atoms > 1 && bonding != 0 { bonding } else { all };
        }
        let may_stop = if prefix.len() >= self.min_atoms { stop } else { 0 };
        if !self.valence {
            return all | may_stop;
        }
        let free: usize = self.left(prefix, None);
        if free == 0 {
            return if self.stop_class { stop } else { all };
        }
        // An atom of one bond takes a valence and brings none.
        let dead_end = prefix.len() + 1 < self.min_atoms && !self.survives_an_end(prefix);
        let fitting = if dead_end { types_of(2) } else { types_of(1) };
        may_stop | if fitting == 0 { types_of(1) } else { fitting }
    }

    /// Whether an atom with a single bond can come next and leave a valence for the one after it.
    fn survives_an_end(&self, prefix: &Prefix) -> bool {
        let (len, first) = (prefix.len(), prefix.first_candidate(self.config.candidates, prefix.len()));
        let start = |to: usize| match self.config.candidates {
            Candidates::Frontier => first.max(to),
            Candidates::Window(window) => (len + 1).saturating_sub(window),
        };
        let free = |node: usize| usize::from(self.free(prefix, node));
        (first..len).filter(|&to| free(to) > 0).any(|to| {
            let left: usize = (start(to)..len).map(free).sum();
            left > usize::from(to >= start(to))
        })
    }

    /// The last atom that could still be bonded but lies behind the frontier, when no other is open and atoms are wanted:
    /// a molecule that was given may end so.
    pub fn to_reopen(&self, prefix: &Prefix) -> Option<usize> {
        let closed = self.valence
            && self.config.candidates == Candidates::Frontier
            && (1..self.min_atoms).contains(&prefix.len())
            && self.left(prefix, None) == 0;
        if closed { (0..prefix.len()).rev().find(|&node| self.free(prefix, node) > 0) } else { None }
    }

    /// Bond classes for the newest atom and an earlier one, as bits.
    pub fn bonds(&self, prefix: &Prefix, to: usize) -> u8 {
        let none = 1 << NO_BOND;
        if !self.valence {
            return 0b1111;
        }
        let newest = prefix.len() - 1;
        let free = |to: usize| self.free(prefix, newest).min(self.free(prefix, to));
        let orders = |to: usize, fits: &dyn Fn(u8) -> bool| {
            let open = Bond::ALL.iter().map(|b| b.order()).filter(|&order| order <= free(to) && fits(order));
            open.fold(0u8, |mask, order| mask | 1 << (order - 1))
        };
        let roomy = |to: usize| orders(to, &|order| self.leaves_room(prefix, to, order));
        let (any, here) = (orders(to, &|_| true), roomy(to));
        if any == 0 {
            return none;
        }
        if prefix.connected() {
            return here | none;
        }
        // An atom must be bonded to something; "no bond" is an answer while a later candidate could be it.
        let must = self.stop_class || newest < self.min_atoms;
        let later = to + 1..newest;
        if here != 0 || later.clone().any(|node| roomy(node) != 0) {
            let passes = !must || later.clone().any(|node| roomy(node) != 0);
            return if passes { here | none } else { here };
        }
        // Whatever is chosen, no atom can follow.
        if must && !later.clone().any(|node| free(node) > 0) { any } else { any | none }
    }
}
