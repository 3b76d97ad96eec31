//! A union made by hand, as the root of a sandbox.

use crate::image;
use crate::machine::{Driver, Machine, Who};

#[test]
fn bubblewrap_as_a_plain_user() {
    let machine = Machine::new(Who::User, Driver::Ours);
    // Who is root of a user namespace with one user can give nothing to others.
    let work: Vec<&str> = crate::WORK
        .lines()
        .map(|line| line.split(" && chown").next().unwrap())
        .map(|line| line.split(" && chgrp").next().unwrap())
        .collect();
    let base = image::base();
    // Under its own name.
    let program = machine.path("bin/unionmount");
    std::fs::copy(machine.path("bin/fuse-overlayfs"), &program).unwrap();
    let before = machine.processes();
    machine.run(
        "sh -euc",
        &[
            include_str!("bubble.sh"),
            "sh",
            program.to_str().unwrap(),
            base.to_str().unwrap(),
            &work.join("\n"),
        ],
    );
    machine.expect_processes(&before);
}
