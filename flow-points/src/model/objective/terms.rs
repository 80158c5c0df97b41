//! What an objective measured, by name and unit.

/// One measured number; what logs call it and what it is counted in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Term {
    /// The key in logs: `point_error`.
    pub name: &'static str,
    /// The unit: `nats`; empty for squared errors and counts.
    pub unit: &'static str,
    /// The number.
    pub value: f64,
}

impl Term {
    /// `value` under a name, in a unit.
    pub fn new(name: &'static str, unit: &'static str, value: f64) -> Self {
        Term { name, unit, value }
    }
}

/// What an objective measured on some clouds, means over them. Which terms there are is a matter of the objective:
/// [`LikelihoodConfig`](super::LikelihoodConfig) and [`MatchingConfig`](super::MatchingConfig) list theirs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Terms {
    /// What is minimised.
    pub loss: Term,
    /// What it is made of.
    pub parts: Vec<Term>,
    /// What it cost: evaluations of the fields in the last solve. Empty where nothing is solved.
    pub costs: Vec<Term>,
}

impl Terms {
    /// The loss, its parts, its costs.
    pub fn iter(&self) -> impl Iterator<Item = &Term> {
        std::iter::once(&self.loss).chain(&self.parts).chain(&self.costs)
    }

    /// The value of a term, `None` where the objective has none of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|term| term.name == name).map(|term| term.value)
    }

    /// The term of this name and all others; the loss takes its place among them. The loss itself leads where there is
    /// no such term.
    pub fn led_by(&self, name: &str) -> (Term, Vec<Term>) {
        let mut lead = self.loss;
        let mut others: Vec<Term> = self.iter().skip(1).copied().collect();
        if let Some(place) = others.iter_mut().find(|term| term.name == name) {
            std::mem::swap(place, &mut lead);
        }
        (lead, others)
    }

    /// The mean of the terms of batches with their weights, which sum to one; costs are those of the last batch. `None`
    /// without a batch.
    pub(crate) fn mean(batches: impl IntoIterator<Item = (f64, Terms)>) -> Option<Terms> {
        let weighted = |weight: f64, mut terms: Terms| {
            terms.loss.value *= weight;
            terms.parts.iter_mut().for_each(|term| term.value *= weight);
            terms
        };
        batches.into_iter().map(|(weight, terms)| weighted(weight, terms)).reduce(|mut sum, terms| {
            sum.loss.value += terms.loss.value;
            sum.parts.iter_mut().zip(&terms.parts).for_each(|(sum, term)| sum.value += term.value);
            Terms { costs: terms.costs, ..sum }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(loss: f64, error: f64, evaluations: f64) -> Terms {
        let (parts, costs) = (vec![Term::new("error", "nats", error)], vec![Term::new("evaluations", "", evaluations)]);
        Terms { loss: Term::new("loss", "nats", loss), parts, costs }
    }

    #[test]
    fn batches_count_by_their_weights_and_the_last_one_tells_the_costs() {
        let mean = Terms::mean([(0.75, terms(4.0, 8.0, 30.0)), (0.25, terms(8.0, 0.0, 50.0))]).unwrap();
        assert_eq!(mean, terms(5.0, 6.0, 50.0));
        assert_eq!(Terms::mean([]), None);
    }

    #[test]
    fn one_term_leads_and_none_is_lost() {
        let terms = terms(1.0, 2.0, 3.0);
        let names = |(lead, others): (Term, Vec<Term>)| [vec![lead], others].concat().iter().map(|t| t.name).collect();
        let led_by = |name| -> Vec<&str> { names(terms.led_by(name)) };
        assert_eq!(led_by("error"), ["error", "loss", "evaluations"]);
        assert_eq!(led_by("loss"), ["loss", "error", "evaluations"]);
        assert_eq!(led_by("no such term"), ["loss", "error", "evaluations"]);
    }
}
