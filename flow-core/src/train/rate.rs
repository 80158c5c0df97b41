//! How fast a run is going.

/// Samples per second, forgetting what is more than about fifty steps ago.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: f64,
    seconds: f64,
}

impl Rate {
    pub(super) fn add(&mut self, samples: usize, seconds: f64) {
        self.samples = 0.98 * self.samples + samples as f64;
        self.seconds = 0.98 * self.seconds + seconds;
    }

    pub(super) fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.samples / self.seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_a_change_of_speed() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), 0.0);
        (0..10).for_each(|_| rate.add(32, 0.5));
        assert!((rate.per_second() - 64.0).abs() < 1e-9);
        (0..1000).for_each(|_| rate.add(32, 0.25));
        assert!((rate.per_second() - 128.0).abs() < 1e-3);
    }
}
