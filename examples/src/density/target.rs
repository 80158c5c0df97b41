//! The densities that `density fit` fits: those of the paper, problems with known answers, and formulas.

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use flow_density::variational::{Constraint, Energy, Problem};

use super::expression::Expression;

/// Which density is fitted.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Density")]
pub(super) struct TargetArg {
    /// An energy of the plane (Rezende & Mohamed 2015) [default: u1, unless --problem or --expr names another density]
    #[arg(long, value_parser = energies(), conflicts_with_all = ["problem", "expr"])]
    energy: Option<Energy>,
    /// A density with a known answer
    #[arg(long, value_parser = problems(), conflicts_with = "expr")]
    problem: Option<Problem>,
    /// A log-density as a formula of its variables, up to a constant: + - * / ^ exp ln sqrt abs sin cos tanh sigmoid softplus
    /// min max logaddexp pi e
    #[arg(long, value_name = "FORMULA", allow_hyphen_values = true)]
    expr: Option<String>,
    /// Variables of --expr that are positive, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "expr")]
    positive: Vec<String>,
    /// Variables of --expr that lie between two numbers, comma-separated: p=0..1
    #[arg(long, value_name = "NAME=LOW..HIGH", value_delimiter = ',', requires = "expr", allow_hyphen_values = true)]
    interval: Vec<String>,
}

fn energies() -> impl TypedValueParser<Value = Energy> {
    let named = |energy: Energy| PossibleValue::new(energy.name()).help(energy.description());
    PossibleValuesParser::new(Energy::ALL.map(named)).try_map(|name| Energy::named(&name).ok_or("no energy"))
}

fn problems() -> impl TypedValueParser<Value = Problem> {
    let named = |problem: Problem| PossibleValue::new(problem.name()).help(problem.description());
    PossibleValuesParser::new(Problem::ALL.map(named)).try_map(|name| Problem::named(&name).ok_or("no problem"))
}

/// A density, up to a constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Density {
    Energy(Energy),
    Problem(Problem),
    Expression { formula: Expression, text: String, constraints: Vec<Constraint> },
}

impl TargetArg {
    /// The density that was asked for.
    pub(super) fn density(&self) -> Result<Density> {
        Ok(match (&self.expr, self.problem) {
            (Some(text), _) => {
                let formula = Expression::parse(text)?;
                let constraints = self.constraints(&formula)?;
                Density::Expression { formula, text: text.clone(), constraints }
            }
            (None, Some(problem)) => Density::Problem(problem),
            (None, None) => Density::Energy(self.energy.unwrap_or(Energy::U1)),
        })
    }

    /// A domain for each variable.
    fn constraints(&self, formula: &Expression) -> Result<Vec<Constraint>> {
        let names = formula.names();
        let mut constraints = vec![Constraint::Real(1); names.len()];
        let mut given = vec![false; names.len()];
        let mut set = |flag: &str, name: &str, constraint: Constraint| {
            let place = names.iter().position(|known| known == name);
            let place =
                place.with_context(|| format!("{flag} {name}: no such variable, there are {}", names.join(", ")))?;
            ensure!(!std::mem::replace(&mut given[place], true), "{flag} {name}: has a domain already; name it once");
            constraints[place] = constraint;
            anyhow::Ok(())
        };
        for name in &self.positive {
            set("--positive", name, Constraint::LogPositive(1))?;
        }
        for entry in &self.interval {
            let parts = entry.split_once('=').and_then(|(name, ends)| {
                let (low, high) = ends.split_once("..")?;
                Some((name.trim(), low.trim().parse().ok()?, high.trim().parse().ok()?))
            });
            let (name, low, high) =
                parts.with_context(|| format!("--interval {entry}: expected NAME=LOW..HIGH, such as p=0..1"))?;
            let constraint = Constraint::Interval { count: 1, low, high };
            constraint.bijector().with_context(|| format!("--interval {entry}"))?;
            set("--interval", name, constraint)?;
        }
        Ok(constraints)
    }
}

impl Density {
    /// The word of a run's description.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Density::Energy(_) => "energy",
            Density::Problem(_) => "problem",
            Density::Expression { .. } => "expression",
        }
    }

    /// What a run's description calls it.
    pub(super) fn name(&self) -> String {
        match self {
            Density::Energy(energy) => energy.name().into(),
            Density::Problem(problem) => problem.name().into(),
            Density::Expression { text, .. } => text.clone(),
        }
    }

    /// The names of its variables.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Density::Energy(_) => ["z1", "z2"].map(String::from).into(),
            Density::Problem(problem) => problem.names(),
            Density::Expression { formula, .. } => formula.names().to_vec(),
        }
    }

    /// Their domains.
    pub(super) fn constraints(&self) -> Vec<Constraint> {
        match self {
            Density::Energy(_) => vec![Constraint::Real(2)],
            Density::Problem(problem) => problem.constraints(),
            Density::Expression { constraints, .. } => constraints.clone(),
        }
    }

    /// `ln p` of points up to a constant.
    pub(super) fn log_density(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Density::Energy(energy) => energy.log_density(x),
            Density::Problem(problem) => problem.log_density(x),
            Density::Expression { formula, .. } => formula.evaluate(x),
        }
    }

    /// The logarithm of its integral where it is known.
    pub(super) fn log_evidence(&self) -> Result<Option<f64>> {
        Ok(match self {
            Density::Energy(energy) => Some(energy.log_evidence()?),
            Density::Problem(problem) => Some(problem.log_evidence()?),
            Density::Expression { .. } => None,
        })
    }
}
