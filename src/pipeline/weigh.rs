//! Weigh stage: compact sources and hot pixels get weight zero, bright streaks stay.
//!
//! The device finds the local maxima of the PSF-filtered image and walks outwards from each; what they are, and how
//! much of the frame they spoil, is decided here. Method: docs/algorithm.md, "Weigh".

use std::ops::Range;

use crate::Result;
use crate::backend::{WALK_DIRECTIONS, walk_direction};
use crate::error::require;
use crate::geometry::{Point, Segment};

/// How compact sources are told from streaks and weighed out.
#[derive(Debug, Clone, PartialEq)]
pub struct WeighConfig {
    /// Sources of this S/N and more are weighed out. Below it a bump on a faint streak cannot be told from a star by
    /// its shape, and a star alone hardly passes for a streak.
    pub source_snr: f64,
    /// A source's footprint reaches to where its wings fall below this many times the noise of a pixel.
    pub wing_sigmas: f64,
}

impl Default for WeighConfig {
    fn default() -> Self {
        Self { source_snr: 8.0, wing_sigmas: 0.5 }
    }
}

impl WeighConfig {
    pub(crate) fn validate(&self) -> Result<()> {
        require("weigh.source_snr", self.source_snr, 3.0.., "3 or more")?;
        require("weigh.wing_sigmas", self.wing_sigmas, f64::MIN_POSITIVE.., "positive")
    }
}

/// A local maximum of the PSF-filtered image, with how far it reaches in each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CompactSource {
    pub(crate) x: u32,
    pub(crate) y: u32,
    /// Filtered value at the maximum.
    pub(crate) peak: f32,
    /// Residual / noise of the central pixel itself.
    pub(crate) centre: f32,
    /// One of the central 5 x 5 pixels is saturated: half of a full column may lie just below the level, all of nine now
    /// and then.
    pub(crate) saturated: bool,
    /// Steps of a pixel to where the filtered image falls below a quarter of the peak.
    pub(crate) core_reach: [u8; WALK_DIRECTIONS],
    /// Steps of a pixel to where it falls below the wing level.
    pub(crate) wing_reach: [u8; WALK_DIRECTIONS],
}

/// Filtered value (in units of a pixel's noise) from which a star's wings are followed however far they go.
const BRIGHT_PEAK: f64 = 20.0;

/// In a crowded field a source has this many neighbours within [`BLEND_REACH_PX`] on average.
const CROWDED_NEIGHBOURS: f64 = 0.1;
const BLEND_REACH_PX: f64 = 10.0;

/// Whether so many sources on so many pixels often blend.
pub(crate) fn is_crowded(n_sources: usize, pixels: usize) -> bool {
    n_sources as f64 * std::f64::consts::PI * BLEND_REACH_PX.powi(2) > CROWDED_NEIGHBOURS * pixels as f64
}

/// The maximum of light that comes in over a border lies within so many pixels of it.
const BORDER_PX: u32 = 2;

/// How many steps of a pixel the filtered image of a streak, √2 PSF widths wide, takes to fall to a quarter, at most.
fn streak_reach_px(sigma_eff_px: f64) -> f64 {
    2.0 * (2.0 * std::f64::consts::LN_2).sqrt() * sigma_eff_px + 1.0
}

/// A source whose core is so much broader than a star's is a galaxy, up to so much: broader ones are the sky's.
const BROAD: Range<f64> = 1.3..4.0;

/// Beyond the wing level a line through the light of a disk stands out for so many of its scale lengths.
const HALO_SCALES: f64 = 1.5;

/// What a local maximum is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceClass {
    /// Round: a star.
    Star,
    /// Sharper than the PSF: a hot pixel or a particle hit.
    Hot,
    /// Longer than wide: part of a streak, to be left to the search.
    Elongated,
    /// Saturated along the column of the detector: charge that has spilled over from a star.
    Bleed,
    /// A star on the border or beyond it, of which a part is seen.
    Cut,
}

/// What sources that are longer than wide are likely to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Streaks, some of them short.
    Sparse,
    /// Blends of two stars, of which there are more than of bright short streaks.
    Crowded,
    /// Stars, which trail.
    Trailed,
}

impl Field {
    /// Of a core this wide that is longer than wide, px, and may be broader than a streak's.
    fn least_length(self, across_px: f64, is_broad: bool) -> f64 {
        match self {
            // Two streaks side by side; that a galaxy is none is told later.
            Self::Sparse if is_broad => 1.2 * across_px + 1.0,
            Self::Sparse => 1.5 * across_px + 1.0,
            Self::Crowded => 1.8 * across_px + 2.0,
            Self::Trailed => 1.3 * across_px + 1.0,
        }
    }
}

/// A disk of pixels to be weighed out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Footprint {
    pub(crate) x: f32,
    pub(crate) y: f32,
    pub(crate) radius_px: f32,
}

impl Footprint {
    pub(crate) fn position(&self) -> Point {
        Point::new(f64::from(self.x), f64::from(self.y))
    }

    /// Disks a radius apart along a segment.
    pub(crate) fn around(segment: &Segment, radius_px: f64) -> impl Iterator<Item = Self> + use<> {
        let segment = *segment;
        let n = (segment.length_px() / radius_px).ceil().max(1.0);
        (0..=n as usize).map(move |k| {
            let place = segment.at(k as f64 / n);
            Self { x: place.x as f32, y: place.y as f32, radius_px: radius_px as f32 }
        })
    }
}

impl CompactSource {
    pub(crate) fn position(&self) -> Point {
        Point::new(f64::from(self.x), f64::from(self.y))
    }

    /// Width of the core along one half of the walk's directions.
    fn diameter(&self, direction: usize) -> u32 {
        [direction, direction + WALK_DIRECTIONS / 2].map(|k| u32::from(self.core_reach[k])).iter().sum()
    }

    /// Longest width through the core, and the third smallest of eight: across a short streak all but a few directions
    /// see some of its length.
    fn core_diameters(&self) -> (u32, u32) {
        let half = WALK_DIRECTIONS / 2;
        let mut diameters: Vec<u32> = (0..half).map(|k| self.diameter(k)).collect();
        diameters.sort_unstable();
        (diameters[half - 1], diameters[2])
    }

    /// In which the core is longest, of that half.
    pub(crate) fn longest_direction(&self) -> usize {
        (0..WALK_DIRECTIONS / 2).max_by_key(|k| self.diameter(*k)).unwrap_or(0)
    }

    /// The longest line through the core.
    pub(crate) fn core(&self) -> Segment {
        let half = WALK_DIRECTIONS / 2;
        let longest = self.longest_direction();
        let [c, s] = walk_direction(longest).map(f64::from);
        let Point { x, y } = self.position();
        let [ahead, back] = [longest, longest + half].map(|k| f64::from(self.core_reach[k]));
        Segment::from_coordinates(x - back * c, y - back * s, x + ahead * c, y + ahead * s)
    }

    /// Tells stars from streaks by the core's elongation, and hot pixels by their sharpness.
    ///
    /// A saturated streak within some 7 degrees of the column cannot be told from spilled charge.
    pub(crate) fn classify(&self, sigma_eff_px: f64, field: Field) -> SourceClass {
        let (longest, across) = self.core_diameters();
        let is_broad = !self.saturated && f64::from(across) > 2.0 * streak_reach_px(sigma_eff_px);
        if f64::from(longest) >= field.least_length(f64::from(across), is_broad) {
            let is_spilled = self.saturated && self.is_column(longest, sigma_eff_px);
            return if is_spilled { SourceClass::Bleed } else { SourceClass::Elongated };
        }
        // Over its filtered value a star's central pixel stands 2 times, a lone pixel 2πσ² times: the geometric mean
        // of the two parts them.
        let boundary = (4.0 * std::f64::consts::PI).sqrt() * sigma_eff_px;
        if !self.saturated && f64::from(self.centre) > boundary.max(2.4) * f64::from(self.peak) {
            return SourceClass::Hot;
        }
        SourceClass::Star
    }

    /// As in [`classify`](Self::classify), in a frame of a size: what is longest along a border on which it lies, and
    /// reaches further inwards than a streak is wide, is the light of a star that the border cuts, or of one beyond it.
    pub(crate) fn classify_in(&self, width: usize, height: usize, sigma_eff_px: f64, field: Field) -> SourceClass {
        let [c, sin] = walk_direction(self.longest_direction()).map(f32::abs);
        let is_near = |at: u32, size: usize| at <= BORDER_PX || at + BORDER_PX + 1 >= size as u32;
        let is_cut = is_near(self.x, width) && sin > 2.0 * c || is_near(self.y, height) && c > 2.0 * sin;
        let is_broad = f64::from(self.across_longest(&self.core_reach)) > streak_reach_px(sigma_eff_px);
        match self.classify(sigma_eff_px, field) {
            SourceClass::Elongated if is_cut && is_broad => SourceClass::Cut,
            class => class,
        }
    }

    /// The further one of two reaches across the longest direction: at a border, inwards.
    fn across_longest(&self, reach: &[u8; WALK_DIRECTIONS]) -> u8 {
        let across = self.longest_direction() + WALK_DIRECTIONS / 4;
        reach[across].max(reach[(across + WALK_DIRECTIONS / 2) % WALK_DIRECTIONS])
    }

    /// Nowhere longer than along the column, and three times as long as along the row, or broader than a streak: a star's
    /// wings are around it.
    fn is_column(&self, longest: u32, sigma_eff_px: f64) -> bool {
        let (along, across) = (self.diameter(WALK_DIRECTIONS / 4), self.diameter(0));
        along == longest && (along > 3 * across || f64::from(across) > 2.0 * streak_reach_px(sigma_eff_px))
    }

    /// Where charge has spilled: along the column, as far as it is followed.
    pub(crate) fn bleed(&self) -> Segment {
        let [up, down] = [WALK_DIRECTIONS / 4, 3 * WALK_DIRECTIONS / 4].map(|k| f64::from(self.wing_reach[k]));
        let Point { x, y } = self.position();
        Segment::from_coordinates(x, y - down, x, y + up)
    }

    /// The pixels that spilled charge spoils: disks along the column.
    pub(crate) fn bleed_footprints(&self, sigma_eff_px: f64) -> Vec<Footprint> {
        let up_down = [WALK_DIRECTIONS / 4, 3 * WALK_DIRECTIONS / 4].map(|k| i64::from(self.wing_reach[k]));
        let radius_px = (3.0 * sigma_eff_px) as f32 + 1.0;
        (-up_down[1]..=up_down[0])
            .step_by(2)
            .map(|along| Footprint { x: self.x as f32, y: self.y as f32 + along as f32, radius_px })
            .collect()
    }

    /// Where the wings of a star of this peak could end: two and a half times the radius of a Gaussian's. On a raised
    /// background a walk would never end.
    fn widest_px(&self, sigma_eff_px: f64, wing_level: f64) -> f64 {
        let over_wings = (2.0 * f64::from(self.peak) / wing_level).max(2.0);
        2.5 * sigma_eff_px * (2.0 * over_wings.ln()).sqrt() + 2.0
    }

    /// The core's radius over that of a star, by the median direction.
    fn broader_than_a_star(&self, sigma_eff_px: f64) -> f64 {
        (f64::from(median(self.core_reach)) - 1.0) / (streak_reach_px(sigma_eff_px) - 1.0)
    }

    /// How far light that falls as that of a galaxy's disk goes on beyond the wing level, until no line along it stands out.
    fn halo_px(&self, wing_level: f64) -> f64 {
        let [core, wings] = [self.core_reach, self.wing_reach].map(|reach| f64::from(median(reach)));
        let falls_by = (0.25 * f64::from(self.peak) / wing_level).max(std::f64::consts::E).ln();
        HALO_SCALES * (wings - core).max(0.0) / falls_by
    }

    /// To the wing level in the median direction, since a spike, a neighbour or a streak through the source lengthens only
    /// a few. Of a faint one no further than the wings of such a width could.
    fn reach_px(&self, sigma_eff_px: f64, wing_level: f64) -> f32 {
        let walked = f32::from(median(self.wing_reach)) + 1.0;
        if self.saturated || f64::from(self.peak) > BRIGHT_PEAK {
            walked
        } else {
            walked.min(self.widest_px(sigma_eff_px, wing_level) as f32)
        }
    }

    /// How far its light reaches, if it is no galaxy.
    pub(crate) fn radius_px(&self, class: SourceClass, sigma_eff_px: f64, wing_level: f64) -> f32 {
        match class {
            SourceClass::Hot => 1.5,
            // It reaches furthest along the border. What reaches far further than inwards is the border's own light.
            SourceClass::Cut => {
                let inwards = self.across_longest(&self.wing_reach);
                let furthest = self.wing_reach.into_iter().max().unwrap_or(0);
                f32::from(furthest.min(2 * inwards)) + 1.0
            }
            _ => self.reach_px(sigma_eff_px, wing_level),
        }
    }

    /// The pixels it spoils.
    pub(crate) fn footprint(&self, class: SourceClass, sigma_eff_px: f64, wing_level: f64) -> Footprint {
        let broader = self.broader_than_a_star(sigma_eff_px);
        // What spills makes a star broad as well.
        let is_galaxy =
            BROAD.contains(&broader) && !self.saturated && !matches!(class, SourceClass::Hot | SourceClass::Cut);
        let radius_px = if is_galaxy {
            self.reach_px(broader * sigma_eff_px, wing_level) + self.halo_px(wing_level) as f32
        } else {
            self.radius_px(class, sigma_eff_px, wing_level)
        };
        Footprint { x: self.x as f32, y: self.y as f32, radius_px }
    }
}

fn median(mut reach: [u8; WALK_DIRECTIONS]) -> u8 {
    reach.sort_unstable();
    reach[WALK_DIRECTIONS / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core as broad as two streaks 7 px apart, one of which is its maximum.
    #[test]
    fn streaks_side_by_side_are_no_star() {
        let pair = CompactSource {
            x: 50,
            y: 40,
            peak: 7.0,
            centre: 7.0,
            saturated: false,
            core_reach: [9, 9, 7, 8, 10, 8, 7, 9, 9, 8, 5, 4, 3, 4, 5, 8],
            wing_reach: [14; WALK_DIRECTIONS],
        };
        assert_eq!(pair.core_diameters(), (18, 12));
        assert_eq!(pair.classify(1.5, Field::Sparse), SourceClass::Elongated);
        assert_eq!(pair.classify(1.5, Field::Crowded), SourceClass::Star, "a blend");
        let saturated = CompactSource { saturated: true, ..pair };
        assert_eq!(saturated.classify(1.5, Field::Sparse), SourceClass::Star);
        let galaxy = CompactSource { core_reach: [8; WALK_DIRECTIONS], ..pair };
        assert_eq!(galaxy.classify(1.5, Field::Sparse), SourceClass::Star);
    }

    /// A maximum at a place of a frame of 100 x 80 with these reaches of its core: along the row, inwards, outwards.
    fn class_at(y: u32, along: u8, inwards: u8, outwards: u8) -> (SourceClass, Footprint) {
        let half = WALK_DIRECTIONS / 2;
        let mut core_reach = [inwards.min(along); WALK_DIRECTIONS];
        (core_reach[0], core_reach[half]) = (along, along);
        core_reach[half + 1..].fill(outwards);
        let source = CompactSource {
            x: 50,
            y,
            peak: 5.0,
            centre: 10.0,
            saturated: false,
            core_reach,
            wing_reach: core_reach.map(|r| if r > 2 { r + 4 } else { r }),
        };
        let class = source.classify_in(100, 80, 1.5, Field::Sparse);
        (class, source.footprint(class, 1.5, 0.5))
    }

    #[test]
    fn light_that_comes_in_over_the_border_is_a_stars() {
        let (class, footprint) = class_at(1, 12, 6, 1);
        assert_eq!(class, SourceClass::Cut);
        assert!((footprint.radius_px - 17.0).abs() < 0.1, "{footprint:?}: as far as it reaches along the border");
        assert_eq!(class_at(40, 12, 6, 1).0, SourceClass::Elongated, "inside of the frame");
        assert_eq!(class_at(1, 12, 3, 1).0, SourceClass::Elongated, "no broader than a streak");
        let (_, of_border) = class_at(1, 60, 6, 1);
        assert!(of_border.radius_px < 25.0, "{of_border:?}: a glowing border is no star");
    }

    #[test]
    fn a_galaxy_is_weighed_out_as_far_as_lines_through_its_light_stand_out() {
        let source = |core: u8, wings: u8| CompactSource {
            x: 50,
            y: 40,
            peak: 10.0,
            centre: 20.0,
            saturated: false,
            core_reach: [core; WALK_DIRECTIONS],
            wing_reach: [wings; WALK_DIRECTIONS],
        };
        let radius_px = |source: CompactSource| source.footprint(SourceClass::Star, 1.5, 0.5).radius_px;
        assert_eq!(radius_px(source(4, 8)), 9.0, "a star");
        // A disk whose scale is 6 px, of 10 times the noise.
        let disk = radius_px(source(9, 18));
        assert!((25.0..32.0).contains(&disk), "{disk}");
        // Behind a star of that peak light may go on for other reasons.
        assert!(radius_px(source(4, 40)) < 14.0);
    }

    #[test]
    fn a_saturated_source_along_the_column_is_spilled_charge() {
        let class = |saturated: bool, longest: usize| {
            let half = WALK_DIRECTIONS / 2;
            let mut core_reach = [5; WALK_DIRECTIONS];
            (core_reach[longest], core_reach[longest + half]) = (13, 13);
            let reach = core_reach;
            let source =
                CompactSource { x: 50, y: 40, peak: 1e4, centre: 2e4, saturated, core_reach, wing_reach: reach };
            source.classify(1.5, Field::Crowded)
        };
        let column = WALK_DIRECTIONS / 4;
        assert_eq!(
            class(true, column),
            SourceClass::Bleed,
            "under the wings of its star it is 2.6 times as long as wide"
        );
        assert_eq!(class(false, column), SourceClass::Elongated);
        assert_eq!(class(true, column + 1), SourceClass::Elongated, "a streak");
    }
}
