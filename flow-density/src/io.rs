//! Rows of numbers as text.

use std::fmt::Write as _;

/// Rows that lie one after the other in `values`, one per line, their entries parted by commas: the shortest decimals that
/// read back as the same numbers.
///
/// ```
/// assert_eq!(flow_density::io::csv(&[1.0, 0.1, -2.5, 3e8], 2), "1,0.1\n-2.5,300000000\n");
/// ```
pub fn csv(values: &[f32], columns: usize) -> String {
    let mut text = String::new();
    for row in values.chunks(columns.max(1)) {
        for (place, value) in row.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = write!(text, "{}{value}", if place == 0 { "" } else { "," });
        }
        text.push('\n');
    }
    text
}
