//! Which layers a directory of the view is made of, and where in each its part lies.

use std::sync::Arc;

use crate::layer::LayerId;
use crate::name::NameBuf;

/// A path from the root of one layer, as it really is there.
pub type RealPath = Arc<[NameBuf]>;

/// What is known of the layers of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Those that have its name: a marker not read yet may say otherwise.
    Candidates,
    /// The same; its top is known to have a redirect.
    Redirected,
    /// The markers of all its directories have been read: this is final.
    Settled,
}

/// The layers in which a directory exists, topmost first; never empty. An immutable value,
/// replaced when the directory is copied up, renamed, or its markers are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    layers: Box<[LayerId]>,
    extent: Extent,
    /// The parts that do not lie under the directory's own name in the part of its parent: those
    /// below a redirect. `None`: no part, as nearly always.
    #[expect(
        clippy::box_collection,
        reason = "few have it, and each pays for its size"
    )]
    ways: Option<Box<Vec<(LayerId, RealPath)>>>,
}

impl Stack {
    /// A directory of which only one layer knows.
    pub fn pure(layer: LayerId) -> Stack {
        Stack {
            layers: Box::new([layer]),
            extent: Extent::Settled,
            ways: None,
        }
    }

    /// The layers that have the name; some may turn out to be hidden by an opaque one, or to be
    /// replaced by others where there is a redirect.
    pub fn candidates(layers: Box<[LayerId]>) -> Stack {
        Stack {
            layers,
            extent: Extent::Candidates,
            ways: None,
        }
    }

    /// The same, its topmost directory being known to have a redirect.
    pub fn redirected(self) -> Stack {
        let extent = Extent::Redirected;
        Stack { extent, ..self }
    }

    /// The layers, topmost first.
    pub fn layers(&self) -> &[LayerId] {
        &self.layers
    }

    /// The layer whose directory gives the attributes.
    pub fn top(&self) -> LayerId {
        self.layers.first().copied().unwrap_or_default()
    }

    /// Whether more than one layer contributes.
    pub fn is_merged(&self) -> bool {
        self.layers.len() > 1 || self.extent == Extent::Redirected
    }

    /// Whether [`Self::layers`] is final.
    pub fn is_settled(&self) -> bool {
        self.extent == Extent::Settled
    }

    /// Whether a redirect is known to say where its parts lie.
    pub fn is_redirected(&self) -> bool {
        self.extent == Extent::Redirected || self.ways.is_some()
    }

    /// Where the part in `layer` lies, if that is not under the directory's own name in the part of
    /// its parent.
    pub fn way(&self, layer: LayerId) -> Option<&RealPath> {
        let way = self.ways.as_ref()?.iter().find(|(l, _)| *l == layer)?;
        Some(&way.1)
    }

    /// The same directory cut after the first `keep` layers, its markers being known.
    pub fn settle(&self, keep: usize) -> Stack {
        Stack {
            layers: self.layers.iter().copied().take(keep.max(1)).collect(),
            extent: Extent::Settled,
            ways: self.ways.clone(),
        }
    }

    /// The same directory with one part more, below the others.
    pub fn with_part(mut self, layer: LayerId, path: RealPath) -> Stack {
        self.layers = self.layers.iter().copied().chain([layer]).collect();
        self.ways.get_or_insert_default().push((layer, path));
        self
    }

    /// The same directory, each of its lower parts lying at a path.
    pub fn with_ways(&self, ways: Vec<(LayerId, RealPath)>) -> Stack {
        Stack {
            ways: Some(Box::new(ways)),
            ..self.clone()
        }
    }

    /// The same directory after it was copied up into `upper`.
    pub fn with_upper(&self, upper: LayerId) -> Stack {
        let layers = self.layers.iter().copied();
        Stack {
            layers: std::iter::once(upper).chain(layers).collect(),
            extent: self.extent,
            ways: self.ways.clone(),
        }
    }
}
