//! GraphAF from the command line: train on molecules, draw new ones, score, complete and improve them.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::cli::main(examples::graphaf::run)
}
