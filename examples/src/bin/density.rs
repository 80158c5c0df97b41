//! Densities from the command line: train flows on toys of the plane and on tables, score and draw points.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::cli::main(examples::density::run)
}
