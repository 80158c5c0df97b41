//! Deep latent Gaussian models from the command line: train, evaluate, sample, reconstruct.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::cli::main(examples::dlgm::run)
}
