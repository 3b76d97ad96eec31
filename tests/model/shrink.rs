//! A list that shrinks fast: by ever smaller runs of items, then item by item.
//!
//! Every try costs a mount, and proptest's own list takes one item at a time.

use proptest::strategy::ValueTree;

pub struct List<T> {
    items: Vec<T>,
    /// Those that are left, by index.
    left: Vec<usize>,
    stage: Stage,
    /// What the last try took away, to be put back if the case does not fail without.
    taken: Vec<usize>,
    /// Something went since the items were last tried one by one: others may be needless now.
    again: bool,
    /// An item became simpler since: the same.
    simplified: bool,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Takes `run` items away, from the place `from` of those left.
    Remove { from: usize, run: usize },
    /// Makes the item at that place simpler.
    Simplify(usize),
}

impl<T: ValueTree> List<T> {
    pub fn new(items: Vec<T>) -> List<T> {
        let count = items.len();
        List {
            items,
            left: (0..count).collect(),
            stage: Stage::Remove {
                from: 0,
                run: count.div_ceil(2),
            },
            taken: Vec::new(),
            again: false,
            simplified: false,
        }
    }
}

impl<T: ValueTree> ValueTree for List<T> {
    type Value = Vec<T::Value>;

    fn current(&self) -> Vec<T::Value> {
        self.left.iter().map(|&n| self.items[n].current()).collect()
    }

    /// The last try still fails, if there was one: goes on from there.
    fn simplify(&mut self) -> bool {
        self.again |= !self.taken.is_empty();
        self.taken.clear();
        loop {
            match &mut self.stage {
                Stage::Remove { from, run } if *from < self.left.len() => {
                    let end = self.left.len().min(*from + *run);
                    self.taken = self.left.drain(*from..end).collect();
                    return true;
                }
                Stage::Remove { from, run: 1 } if self.again => (*from, self.again) = (0, false),
                Stage::Remove { run: 0 | 1, .. } => self.stage = Stage::Simplify(0),
                Stage::Remove { from, run } => (*from, *run) = (0, *run / 2),
                Stage::Simplify(place) => {
                    let Some(&item) = self.left.get(*place) else {
                        if !self.simplified {
                            return false;
                        }
                        self.simplified = false;
                        self.stage = Stage::Remove { from: 0, run: 1 };
                        continue;
                    };
                    if self.items[item].simplify() {
                        self.simplified = true;
                        return true;
                    }
                    *place += 1;
                }
            }
        }
    }

    /// The last try does not fail: undoes it, and tries the next.
    fn complicate(&mut self) -> bool {
        match &mut self.stage {
            Stage::Remove { from, .. } => {
                let (place, count) = (*from, self.taken.len());
                self.left.splice(place..place, self.taken.drain(..));
                *from += count;
            }
            Stage::Simplify(place) => {
                let Some(&item) = self.left.get(*place) else {
                    return false;
                };
                if self.items[item].complicate() {
                    return true;
                }
                *place += 1;
            }
        }
        self.simplify()
    }
}
