//! What a likelihood says of one quantity: its mean, and how far around it the truth may lie.

/// What the likelihood says of one quantity, whatever the others are, at places a step apart.
pub(super) struct Marginal<'a> {
    pub(super) from_px: f64,
    pub(super) step_px: f64,
    pub(super) likelihood: &'a [f64],
}

impl Marginal<'_> {
    fn mean_of(&self, value: impl Fn(f64) -> f64) -> f64 {
        let total: f64 = self.likelihood.iter().sum();
        let place = |k: usize| self.from_px + k as f64 * self.step_px;
        self.likelihood.iter().enumerate().map(|(k, l)| value(place(k)) * l).sum::<f64>() / total
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean_of(|p| p)
    }

    /// The error of a place: within one and three of it lies what lies within those of a normal variable, or more.
    pub(super) fn error_at(&self, place: f64) -> f64 {
        self.half_width(place, ONE_SIGMA).max(self.half_width(place, THREE_SIGMA) / 3.0)
    }

    /// So far to either side of a place a share of the likelihood lies.
    pub(super) fn half_width(&self, place: f64, share: f64) -> f64 {
        // Every place that was tried stands for the stretch around it.
        let half = 0.5 * self.step_px;
        let within = |half_width: f64| {
            let part = |p: f64| (p + half).min(place + half_width) - (p - half).max(place - half_width);
            self.mean_of(|p| part(p).max(0.0) / self.step_px)
        };
        let (mut low, mut high) = (0.0, self.likelihood.len() as f64 * self.step_px);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if within(middle) < share { low = middle } else { high = middle }
        }
        high
    }
}

/// Shares of a normal variable within one and three standard deviations.
pub(super) const ONE_SIGMA: f64 = 0.682_689;
const THREE_SIGMA: f64 = 0.997_3;

/// Halvings of an interval: to a thousandth of a step between places.
const HALVINGS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_widths_hold_their_share() {
        let check = |likelihood: &dyn Fn(f64) -> f64, one: f64, error: f64| {
            let likelihood: Vec<f64> = (0..61).map(|k| likelihood(0.2 * f64::from(k) - 6.0)).collect();
            let marginal = Marginal { from_px: 4.0, step_px: 0.2, likelihood: &likelihood };
            assert!((marginal.mean() - 10.0).abs() < 1e-9);
            assert!((marginal.half_width(10.0, ONE_SIGMA) / one - 1.0).abs() < 0.03);
            assert!((marginal.error_at(10.0) / error - 1.0).abs() < 0.03, "{}", marginal.error_at(10.0));
            assert!(marginal.half_width(12.0, ONE_SIGMA) > marginal.half_width(10.0, ONE_SIGMA));
        };
        check(&|t| (-0.5 * t * t).exp(), 1.0, 1.0);
        // Of a two-sided exponential 68 % lie within 1.148 of its scale, and 99.73 % within 5.915.
        check(&|t| (-t.abs() / 0.6).exp(), 0.6 * 1.148, 0.6 * 5.915 / 3.0);
    }
}
