//! Stars on a stretch of track, and what is left when a trail is taken off it.

use super::track::Track;
use super::{ChainPrior, STAR_PRICES};
use crate::backend::TrackProfile;

/// Stars on a stretch of track.
pub(crate) struct FoundStars {
    /// Their light, bin by bin.
    pub(crate) light: Vec<f64>,
    /// Where they are.
    pub(crate) bins: Vec<usize>,
    /// S/N² that they explain, less their price.
    pub(crate) explained: f64,
}

/// A star above this S/N costs so much more for each e-fold of its S/N²: 1 for its brightness and 1 for its place, which have
/// to be just those to a part of 1 / (S/N), and 0.75 because bright stars are rarer by that power of their light.
const COMMON_SNR: f64 = 5.0;
const PRICE_OF_BRIGHT: f64 = 2.75;

/// A stretch of track on which stars may lie.
pub(crate) struct Stretch(Track);

impl Stretch {
    /// Bin by bin, `bin_px` long: light times inverse variance, and inverse variance.
    pub(crate) fn new(signal: &[f64], weight: &[f64], bin_px: f64, prior: &ChainPrior) -> Self {
        Self(Track::of(signal.to_vec(), weight.to_vec(), 0.0, bin_px, prior))
    }

    /// All of a track.
    pub(crate) fn of(profile: &TrackProfile, prior: &ChainPrior) -> Self {
        Self(Track::new(profile, 0.0, prior))
    }

    /// The stars in what a trail of this light leaves.
    pub(crate) fn stars_left_by(&self, trail: impl Iterator<Item = f64>) -> FoundStars {
        let Self(track) = self;
        let left: Vec<f64> = track.signal.iter().zip(&track.variance).zip(trail).map(|((s, v), t)| s - v * t).collect();
        let before = left.clone();
        let points = track.take_points(left);
        let explained: f64 = (0..before.len()).map(|b| points.light[b] * (before[b] + points.rest[b])).sum();
        // The brighter the star, the better its place and brightness have to be just those.
        let just_so: f64 = points
            .taken
            .iter()
            .map(|(_, gain)| PRICE_OF_BRIGHT * (gain / (COMMON_SNR * COMMON_SNR * track.prior.excess2)).max(1.0).ln())
            .sum();
        let price = points.count as f64 * track.prior.point_price + just_so * track.prior.excess2;
        FoundStars {
            explained: explained - price,
            bins: points.taken.iter().map(|t| t.0).collect(),
            light: points.light,
        }
    }

    /// Stars that are well worth their price: their bins, their S/N² and their light per length.
    pub(crate) fn clear_stars(&self) -> impl Iterator<Item = (usize, f64, f64)> {
        let Self(track) = self;
        let points = track.take_points(track.signal.clone());
        let least = STAR_PRICES * track.prior.point_price;
        points
            .taken
            .into_iter()
            .filter(move |(_, gain)| *gain > least)
            .map(move |(bin, gain)| (bin, gain, points.light[bin]))
    }
}
