//! The `unionmount` program: everything lives in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    unionmount::cli::run(std::env::args_os().collect())
}
