//! Runs the workloads: for each of them rounds, in each round every peer in turn.

use std::io::IsTerminal;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::fixtures::Fixtures;
use crate::interrupt;
use crate::layers::LayerSet;
use crate::peer::{Missing, Peer};
use crate::report::{Figures, Results};
use crate::scratch::Scratch;
use crate::session::{Native, Place, Sample, Session};
use crate::sizes::Sizes;
use crate::workloads::Workload;

/// What a run is made of.
pub struct Run<'a> {
    pub scratch: &'a Scratch,
    pub sizes: &'a Sizes,
    pub fixtures: &'a Fixtures,
    pub peers: &'a [Peer],
    pub rounds: usize,
}

impl Run<'_> {
    /// Measures all; a workload that fails for a peer leaves a hole that the results name.
    pub fn measure(&self, workloads: &[&Workload], results: &mut Results) -> Result<()> {
        let mut set: Option<LayerSet> = None;
        for workload in workloads {
            interrupt::check()?;
            if set.as_ref().is_none_or(|set| set.which != workload.layers) {
                drop(set.take());
                self.scratch.trim();
                let root = self.scratch.root().join("l");
                match LayerSet::make(workload.layers, self.sizes, &root) {
                    Ok(made) => set = Some(made),
                    Err(why) => {
                        fail(results, workload.name, &why);
                        continue;
                    }
                }
            }
            if let Some(set) = &set {
                self.workload(workload, set, results)?;
            }
        }
        Ok(())
    }

    fn workload(&self, workload: &Workload, set: &LayerSet, results: &mut Results) -> Result<()> {
        let mut failed = vec![false; self.peers.len()];
        let start = Instant::now();
        let mut done = 0;
        for round in 0..self.rounds {
            let spent = start.elapsed().as_secs_f64();
            let enough = round >= self.sizes.least_rounds && spent > self.sizes.budget;
            if enough || spent > 3.0 * self.sizes.budget {
                break;
            }
            let natively = self.peers.iter().any(Peer::is_native);
            set.warm(natively && workload.native == Native::Shared)?;
            for turn in 0..self.peers.len() {
                // Everybody goes first once.
                let at = (round + turn) % self.peers.len();
                let peer = &self.peers[at];
                if failed[at] || (peer.is_native() && workload.native == Native::Absent) {
                    continue;
                }
                progress(&format!(
                    "{} {}/{} {}",
                    workload.name,
                    round + 1,
                    self.rounds,
                    peer.name
                ));
                match self.session(workload, set, peer) {
                    Ok(samples) => results.add(&peer.name, &samples),
                    Err(why) => {
                        interrupt::check()?;
                        failed[at] = true;
                        fail(
                            results,
                            &format!("{} with {}", workload.name, peer.name),
                            &why,
                        );
                    }
                }
            }
            done = round + 1;
        }
        let took = start.elapsed().as_secs_f64();
        eprintln!("{}: {done} rounds in {took:.1} s", workload.name);
        Ok(())
    }

    fn session(&self, workload: &Workload, set: &LayerSet, peer: &Peer) -> Result<Vec<Sample>> {
        let place = Place {
            root: self.scratch.root(),
        };
        let with = (self.sizes, self.fixtures);
        let mut session = Session::start(peer, place, set, with, workload.native)?;
        (workload.run)(&mut session)?;
        session.finish()
    }
}

/// Takes note of a hole in the results.
fn fail(results: &mut Results, name: &str, why: &anyhow::Error) {
    eprintln!("{name}: {why:#}");
    results.failures.push(Missing {
        name: name.to_owned(),
        why: format!("{why:#}"),
    });
}

/// Shows where the run is; the next line that is printed takes its place.
fn progress(now: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{now} \r");
    }
}

/// Leaves out peers that cannot mount here.
pub fn able(peers: Vec<Peer>, run: &Scratch, missing: &mut Vec<Missing>) -> Result<Vec<Peer>> {
    let set = LayerSet::make(
        crate::layers::Which::Blank,
        &crate::sizes::QUICK,
        &run.root().join("l"),
    )?;
    let fixtures = Fixtures::new(&run.root().join("f"), &crate::sizes::QUICK)?;
    let mut able = Vec::new();
    for peer in peers {
        let place = Place { root: run.root() };
        let with = (&crate::sizes::QUICK, &fixtures);
        let mut session = Session::start(&peer, place, &set, with, Native::Shared)?;
        let mounted = session.mount().and_then(|()| {
            std::fs::metadata(session.at("readme")).context("the mount does not answer")
        });
        drop(session);
        match mounted {
            Ok(_) => able.push(peer),
            Err(why) => missing.push(Missing {
                name: peer.name,
                why: format!("{why:#}"),
            }),
        }
    }
    if able.is_empty() {
        bail!("no peer can be mounted here: {missing:?}");
    }
    Ok(able)
}

impl Results {
    fn add(&mut self, peer: &str, samples: &[Sample]) {
        for sample in samples {
            let row = self.rows.entry(sample.slug.to_owned()).or_default();
            let figures: &mut Figures = row.entry(peer.to_owned()).or_default();
            figures.values.push(sample.value);
            figures.operations = sample.operations;
            figures.costs.extend(sample.cost);
        }
    }
}
