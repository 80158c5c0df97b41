//! VideoFlow from the command line: train, predict, sample, evaluate, score, interpolate.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::cli::main(examples::videoflow::run)
}
