//! Intervals of counted numbers, response curves, and summaries of samples.

use libm::{erf, erfc, lgamma};

/// Share of the normal distribution below `x`.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    0.5 * erfc(-x / std::f64::consts::SQRT_2)
}

/// The `x` below which a share `p` of the normal distribution lies.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    bisect(-40.0, 40.0, |x| normal_cdf(x) < p)
}

/// Chance of `n` or fewer events where `mean` are expected.
pub(crate) fn poisson_cdf(n: u64, mean: f64) -> f64 {
    if mean <= 0.0 {
        return 1.0;
    }
    let term = |k: u64| (k as f64 * mean.ln() - mean - lgamma(k as f64 + 1.0)).exp();
    (0..=n).map(term).sum::<f64>().min(1.0)
}

/// Exact central interval of the mean of a Poisson variable that came out as `n`, at a confidence such as 0.68.
pub(crate) fn poisson_interval(n: u64, confidence: f64) -> (f64, f64) {
    let tail = 0.5 * (1.0 - confidence);
    let top = n as f64 + 20.0 * (n as f64 + 4.0).sqrt();
    let low = if n == 0 { 0.0 } else { bisect(0.0, top, |mean| 1.0 - poisson_cdf(n - 1, mean) < tail) };
    (low, bisect(0.0, top, |mean| poisson_cdf(n, mean) > tail))
}

/// Wilson's interval of a share of which `hits` of `n` were seen, at one standard deviation.
pub(crate) fn share_interval(hits: usize, n: usize) -> (f64, f64) {
    let (n, p) = (n as f64, hits as f64 / n as f64);
    let (centre, half) =
        ((p + 0.5 / n) / (1.0 + 1.0 / n), (p * (1.0 - p) / n + 0.25 / (n * n)).sqrt() / (1.0 + 1.0 / n));
    (centre - half, centre + half)
}

/// Where `is_below` turns from true to false.
fn bisect(mut low: f64, mut high: f64, is_below: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if is_below(middle) { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// A response `Φ(a + b s)` fitted to hits and misses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Response {
    a: f64,
    b: f64,
    /// Covariance of (a, b): variance, covariance, variance.
    covariance: [f64; 3],
}

impl Response {
    /// Maximum likelihood by Fisher scoring; none where hits and misses do not overlap.
    pub(crate) fn fit(trials: &[(f64, bool)]) -> Option<Self> {
        let middle = trials.iter().map(|t| t.0).sum::<f64>() / trials.len() as f64;
        let (mut a, mut b) = (-middle, 1.0);
        let log_likelihood = |a: f64, b: f64| -> f64 {
            let of = |&(s, hit): &(f64, bool)| {
                let p = normal_cdf((a + b * s).clamp(-6.0, 6.0));
                if hit { p.ln() } else { (1.0 - p).ln() }
            };
            trials.iter().map(of).sum()
        };
        for _ in 0..100 {
            let mut information = [0.0; 3];
            let mut score = [0.0; 2];
            for &(s, hit) in trials {
                let eta = (a + b * s).clamp(-6.0, 6.0);
                let (p, density) = (normal_cdf(eta), (-0.5 * eta * eta).exp() / std::f64::consts::TAU.sqrt());
                let gain = density / (p * (1.0 - p));
                let residual = f64::from(u8::from(hit)) - p;
                score[0] += gain * residual;
                score[1] += gain * residual * s;
                let weight = gain * density;
                information[0] += weight;
                information[1] += weight * s;
                information[2] += weight * s * s;
            }
            let determinant = information[0] * information[2] - information[1] * information[1];
            if determinant.is_nan() || determinant <= 1e-9 * information[0] * information[2] {
                return None;
            }
            let covariance = [2, 1, 0].map(|i| if i == 1 { -information[i] } else { information[i] } / determinant);
            let full_a = covariance[0] * score[0] + covariance[1] * score[1];
            let full_b = covariance[1] * score[0] + covariance[2] * score[1];
            // Steps lead upwards, and go too far where hits and misses lie far from where they are expected.
            let before = log_likelihood(a, b);
            let mut part = (3.0 / full_a.abs()).min(0.5 / full_b.abs()).min(1.0);
            while log_likelihood(a + part * full_a, b + part * full_b) < before && part > 1e-6 {
                part *= 0.5;
            }
            let (step_a, step_b) = (part * full_a, part * full_b);
            a += step_a;
            b += step_b;
            if b.abs() > 30.0 {
                return None;
            }
            if step_a.abs() < 1e-9 && step_b.abs() < 1e-9 {
                return (b > 0.0).then_some(Self { a, b, covariance });
            }
        }
        None
    }

    /// Share of hits at `s`.
    pub(crate) fn share(&self, s: f64) -> f64 {
        normal_cdf(self.a + self.b * s)
    }

    /// Where the share of hits is `p`, with its standard error.
    pub(crate) fn at_share(&self, p: f64) -> (f64, f64) {
        let s = (normal_quantile(p) - self.a) / self.b;
        let [aa, ab, bb] = self.covariance;
        (s, (aa + 2.0 * s * ab + s * s * bb).max(0.0).sqrt() / self.b)
    }
}

/// Mean of a sample; NaN of an empty one.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Root of the mean square; NaN of an empty sample.
pub(crate) fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt()
}

/// The value below which a share `p` of the sample lies; NaN of an empty one.
pub(crate) fn quantile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((p * last).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Share of a normal sample within one standard deviation: 0.683.
pub(crate) fn one_sigma() -> f64 {
    erf(std::f64::consts::FRAC_1_SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_range_of_trials_is_fitted() {
        // Shares of Φ((s − 10) / 2) from 5 to 30, and of a much steeper response.
        for (width, seen_to) in [(2.0, 15.0), (2.0, 30.0), (0.5, 30.0)] {
            let trial = |i: usize| {
                let s = 5.0 + (seen_to - 5.0) * (i as f64 + 0.5) / 400.0;
                (s, (0.618_034 * i as f64).fract() < normal_cdf((s - 10.0) / width))
            };
            let trials: Vec<(f64, bool)> = (0..400).map(trial).collect();
            let response = Response::fit(&trials).unwrap();
            for (share, truth) in [(0.5, 10.0), (normal_cdf(1.0), 10.0 + width)] {
                let (at_share, error) = response.at_share(share);
                assert!((at_share - truth).abs() < 3.0 * error && error < 0.5, "{share}: {at_share} ± {error}");
            }
        }
        assert!(Response::fit(&[(5.0, false), (6.0, false), (7.0, true), (8.0, true)]).is_none());
    }
}
