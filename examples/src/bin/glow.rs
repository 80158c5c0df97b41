//! Glow, RealNVP and NICE from the command line: train, sample, evaluate, edit, compress.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::cli::main(examples::glow::run)
}
