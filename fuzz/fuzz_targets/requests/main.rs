//! Requests in any order on layers with anything in them: no panic, nothing written to a lower, and the
//! tree that is seen is the tree that is seen after the layers are opened again.

#![no_main]

mod layers;
mod request;
#[path = "../../../tests/steps/union_tree.rs"]
mod union_tree;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

use layers::{Layer, Layers};
use request::Request;

#[derive(Debug, Arbitrary)]
struct Input {
    whiteout: u8,
    lowers: Vec<Layer>,
    upper: Layer,
    requests: Vec<Request>,
}

fuzz_target!(|input: Input| {
    let layers = Layers::plant(&input.lowers, &input.upper);
    let before = layers.lowers();
    // An upper that somebody else left in any state may be refused.
    let Ok(union) = layers.open(input.whiteout) else {
        return;
    };
    let mut inodes = vec![1];
    for request in input.requests.iter().take(64) {
        request.make(&union, &mut inodes);
    }
    let seen = union_tree::read(&union);
    drop(union);
    let union = layers
        .open(input.whiteout)
        .unwrap_or_else(|e| panic!("not opened again: {e}"));
    let again = union_tree::read(&union);
    assert_eq!(seen, again, "before and after opening again");
    assert_eq!(before, layers.lowers(), "a lower was written to");
});
