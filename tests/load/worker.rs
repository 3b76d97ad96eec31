//! A process with random work: what it does depends on its number and on how many steps it does alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::generate::Generator;
use crate::kit::apply::Side;
use crate::kit::{Lab, Look, snapshot, sys};

/// How long it works.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    Seconds(u64),
    Steps(u64),
}

/// The process.
pub struct Worker(Child);

impl Worker {
    /// Starts worker `n` on a mount.
    pub fn start(lab: &Lab, n: u64, until: Until) -> Worker {
        let (kind, count) = match until {
            Until::Seconds(count) => ("seconds", count),
            Until::Steps(count) => ("steps", count),
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "worker::works",
                "--exact",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .env("LOAD_ROOT", lab.mnt())
            .env("LOAD_GHOSTS", lab.subject().is_kernel().to_string())
            .env("LOAD_NUMBER", n.to_string())
            .env("LOAD_KIND", kind)
            .env("LOAD_COUNT", count.to_string())
            .stdout(Stdio::piped());
        Worker(command.spawn().unwrap())
    }

    /// How many steps it did.
    pub fn wait(self) -> u64 {
        let done = self.0.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{said}");
        let line = said
            .lines()
            .find_map(|line| line.split_once("steps done: "));
        line.unwrap_or_else(|| panic!("{said}"))
            .1
            .trim()
            .parse()
            .unwrap()
    }
}

/// In a process of its own, started by [`Worker::start`].
#[test]
#[ignore = "a worker, not a test"]
fn works() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let number: u64 = variable("LOAD_NUMBER").parse().unwrap();
    let count: u64 = variable("LOAD_COUNT").parse().unwrap();
    let root = PathBuf::from(variable("LOAD_ROOT"));
    let end = Instant::now() + Duration::from_secs(count);
    let timed = variable("LOAD_KIND") == "seconds";
    let mut state = State::new(&root, number, variable("LOAD_GHOSTS") == "true");
    let mut steps = 0;
    while if timed {
        Instant::now() < end
    } else {
        steps < count
    } {
        state.step(steps);
        steps += 1;
    }
    println!("steps done: {steps}");
}

/// At everything but times.
pub fn look(has_ghosts: bool) -> Look {
    Look {
        since: Some(0),
        skip_ghosts: has_ghosts,
        ..Look::default()
    }
}

struct State {
    generator: Generator,
    own: Side,
    shared: PathBuf,
    number: u64,
}

impl State {
    fn new(root: &Path, number: u64, has_ghosts: bool) -> State {
        let own = root.join(format!("w{number}"));
        let mut generator = Generator::new(1000 + number).without_lists();
        generator.learn(&snapshot::read(&own, look(has_ghosts)).snapshot);
        State {
            generator,
            own: Side {
                root: own,
                slots: Default::default(),
                has_ghosts,
                since: 0,
            },
            shared: root.join("shared"),
            number,
        }
    }

    fn step(&mut self, step: u64) {
        let op = self.generator.next();
        let outcome = self.own.apply(&op);
        self.generator.note(&op, &outcome);
        if step.is_multiple_of(16) {
            self.in_public(step / 16);
        }
    }

    /// Where all others work too: names of its own, which come, change and go.
    fn in_public(&self, round: u64) {
        let at =
            |kind: &str, round: u64| self.shared.join(format!("{kind}{}-{round}", self.number));
        sys::put(at("new", round), &round.to_le_bytes()).unwrap();
        sys::rename(at("new", round), at("old", round)).unwrap();
        sys::link(at("old", round), at("link", round)).unwrap();
        let names = sys::names(&self.shared);
        let mine = format!("link{}-{round}", self.number);
        assert!(
            names.contains(&mine),
            "{mine} is missing among {} names",
            names.len()
        );
        if round > 2 {
            sys::unlink(at("old", round - 3)).unwrap();
            sys::unlink(at("link", round - 3)).unwrap();
        }
    }
}
