//! WaveFlow and WaveGlow from the command line: train, synthesize, vocode, evaluate.

use std::process::ExitCode;

fn main() -> ExitCode {
    examples::cli::main(examples::waveflow::run)
}
