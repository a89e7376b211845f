//! Runs passes in order until none changes anything, with statistics and verification in debug builds.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{
    BodyInvariants, CANONICAL, CommonSubexpressions, ConstantFolding, DeadCode, FUSIONS, Pass,
    RewritePass, ShapeFolding,
};
use crate::{error::Result, model::Model};

/// What one pass did over all rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassStats {
    /// Name of the pass.
    pub name: &'static str,
    /// Changes made.
    pub changes: usize,
    /// Time taken.
    pub time: Duration,
}

/// What a [`PassManager`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// One entry per pass, in order.
    pub passes: Vec<PassStats>,
    /// How often the list of passes was run; the last round changed nothing unless the limit was reached.
    pub rounds: usize,
    /// Number of nodes before.
    pub nodes_before: usize,
    /// Number of nodes after.
    pub nodes_after: usize,
}

impl Stats {
    /// Changes of all passes together.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.passes.iter().map(|p| p.changes).sum()
    }
}

impl fmt::Display for Stats {
    /// One line for the whole, then one per pass that changed something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time: Duration = self.passes.iter().map(|p| p.time).sum();
        writeln!(
            f,
            "{} -> {} nodes in {} rounds, {:.2} ms",
            self.nodes_before,
            self.nodes_after,
            self.rounds,
            time.as_secs_f64() * 1e3
        )?;
        for p in self.passes.iter().filter(|p| p.changes > 0) {
            writeln!(
                f,
                "  {:<24} {:>5} changes {:>8.2} ms",
                p.name,
                p.changes,
                p.time.as_secs_f64() * 1e3
            )?;
        }
        Ok(())
    }
}

/// An ordered list of passes.
#[derive(Default)]
pub struct PassManager {
    passes: Vec<Box<dyn Pass>>,
}

impl fmt::Debug for PassManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.passes.iter().map(|p| p.name())).finish()
    }
}

impl PassManager {
    /// A manager without passes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a pass.
    #[must_use]
    pub fn with(mut self, pass: impl Pass + 'static) -> Self {
        self.passes.push(Box::new(pass));
        self
    }

    /// The passes of [`simplify`](super::simplify), in their order.
    ///
    /// Folding stands first because patterns match on constants; canonical forms stand before fusions because these
    /// expect one spelling of everything that has several.
    #[must_use]
    pub fn simplification() -> Self {
        Self::new()
            .with(DeadCode)
            .with(ShapeFolding)
            .with(ConstantFolding::default())
            .with(BodyInvariants)
            .with(RewritePass::new("canonical forms", CANONICAL))
            .with(CommonSubexpressions)
            .with(RewritePass::new("fusions", FUSIONS))
            .with(DeadCode)
    }

    /// Runs the passes until a whole round changes nothing.
    ///
    /// # Errors
    /// The first error of a pass; in debug builds also when a pass leaves an inconsistent model.
    pub fn run(&self, model: &mut Model) -> Result<Stats> {
        let mut stats = Stats {
            passes: self
                .passes
                .iter()
                .map(|p| PassStats { name: p.name(), changes: 0, time: Duration::ZERO })
                .collect(),
            nodes_before: model.len(),
            ..Stats::default()
        };
        for _ in 0..MAX_ROUNDS {
            stats.rounds += 1;
            let mut changed = false;
            for (pass, entry) in self.passes.iter().zip(&mut stats.passes) {
                let start = Instant::now();
                let changes = pass.run(model)?;
                entry.time += start.elapsed();
                entry.changes += changes;
                if changes > 0 {
                    changed = true;
                    tracing::debug!(pass = pass.name(), changes, nodes = model.len());
                    if cfg!(debug_assertions) {
                        model.verify()?;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        stats.nodes_after = model.len();
        Ok(stats)
    }
}

/// Rounds after which simplification stops even if the last one still changed something.
const MAX_ROUNDS: usize = 10;
