//! Which layers a directory of the view is made of.

use crate::layer::LayerId;

/// The layers in which a directory exists, topmost first; never empty. An immutable value,
/// replaced when the directory is copied up or found to be opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    layers: Box<[LayerId]>,
    /// The opaque markers of all its directories have been read: `layers` is final.
    settled: bool,
}

impl Stack {
    /// A directory of which only one layer knows.
    pub fn pure(layer: LayerId) -> Stack {
        Stack {
            layers: Box::new([layer]),
            settled: true,
        }
    }

    /// The layers that have the name; some may turn out to be hidden by an opaque one.
    pub fn candidates(layers: Box<[LayerId]>) -> Stack {
        let settled = layers.len() <= 1;
        Stack { layers, settled }
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
        self.layers.len() > 1
    }

    /// Whether [`Self::layers`] is final.
    pub fn is_settled(&self) -> bool {
        self.settled
    }

    /// The same directory cut after the first `keep` layers, its opaque markers being known.
    pub fn settle(&self, keep: usize) -> Stack {
        let layers = self.layers.iter().copied().take(keep.max(1)).collect();
        Stack {
            layers,
            settled: true,
        }
    }

    /// The same directory after it was copied up into `upper`.
    pub fn with_upper(&self, upper: LayerId) -> Stack {
        let layers = std::iter::once(upper)
            .chain(self.layers.iter().copied())
            .collect();
        Stack {
            layers,
            settled: self.settled,
        }
    }
}
