//! What the tests that feed damaged files to readers have in common: how many inputs, and how they are damaged.

use crate::FlowRng;

/// The variable of the environment that says how many inputs a test tries.
const VARIABLE: &str = "FLOW_FUZZ";

/// How many inputs a test of a reader tries: the number in `FLOW_FUZZ`, or `default` where that is not set.
///
/// # Panics
/// When `FLOW_FUZZ` is no positive whole number: a test that silently tried fewer inputs than were asked for would pass
/// for the wrong reason.
#[expect(clippy::panic, reason = "only tests call this, and a test fails by a panic")]
pub fn rounds(default: u32) -> u32 {
    let Some(value) = std::env::var_os(VARIABLE) else { return default };
    let value = value.to_string_lossy();
    parsed(&value).unwrap_or_else(|| {
        panic!("{VARIABLE}={value}: expected how many inputs to try, a whole number from 1 to {}", u32::MAX)
    })
}

fn parsed(value: &str) -> Option<u32> {
    value.parse().ok().filter(|&inputs| inputs > 0)
}

/// One of some whole files, damaged in up to four places, or, one time in ten, noise.
///
/// Damage cuts off the end, puts in one of `words`, changes a byte or a bit, doubles a piece or takes a few bytes out.
/// `words` are what a format's readers look for, and numbers that they should refuse.
pub fn input(files: &[Vec<u8>], words: &[&[u8]], rng: &mut FlowRng) -> Vec<u8> {
    if rng.below(10) == 0 || files.is_empty() {
        return (0..rng.below(200)).map(|_| rng.below(256) as u8).collect();
    }
    damaged(&files[rng.below(files.len())], words, rng)
}

fn damaged(file: &[u8], words: &[&[u8]], rng: &mut FlowRng) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 if !words.is_empty() => {
                bytes.splice(at..at, words[rng.below(words.len())].iter().copied()).for_each(drop)
            }
            2 if at < bytes.len() => bytes[at] = rng.below(256) as u8,
            3 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            4 => {
                let end = at + rng.below(bytes.len() - at + 1);
                let piece = bytes[at..end].to_vec();
                let to = rng.below(bytes.len() + 1);
                bytes.splice(to..to, piece).for_each(drop);
            }
            _ => {
                let end = at + rng.below((bytes.len() - at + 1).min(9));
                bytes.drain(at..end);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_positive_whole_number_is_one_of_inputs() {
        assert_eq!(parsed("1000000"), Some(1_000_000));
        for value in ["", "0", "-1", "1e6", "1_000_000", "many", "4294967296"] {
            assert_eq!(parsed(value), None, "{value}");
        }
    }

    #[test]
    fn damage_is_of_every_kind_and_the_same_for_a_seed() {
        let files = [b"0123456789".to_vec()];
        let draw = |seed| {
            let mut rng = FlowRng::seed_from(seed);
            (0..200).map(|_| input(&files, &[b"word"], &mut rng)).collect::<Vec<_>>()
        };
        let inputs = draw(1);
        assert_eq!(inputs, draw(1));
        assert_ne!(inputs, draw(2));
        let has_word = |bytes: &&Vec<u8>| bytes.windows(4).any(|w| w == b"word");
        assert!(inputs.iter().filter(has_word).count() > 10);
        assert!(inputs.iter().any(|bytes| bytes.len() > 40), "noise");
        assert!(inputs.iter().any(|bytes| bytes.len() < 10 && files[0].starts_with(bytes)), "a tail cut off");
        for empty in
            [input(&[], &[], &mut FlowRng::seed_from(3)), input(&[Vec::new()], &[], &mut FlowRng::seed_from(4))]
        {
            assert!(empty.len() < 200);
        }
    }
}
