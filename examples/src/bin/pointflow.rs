//! Continuous flows of point clouds: `pointflow --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::cli::main(examples::pointflow::run)
}
