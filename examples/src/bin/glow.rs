//! glow
fn main() {}
