//! HOW the stages are computed: one trait, two backends with files of the same names.
//!
//! A backend holds one frame at a time. Image-sized data stays with it from stage to stage; what it returns is small
//! (tiles, sources, peaks, fits). It knows nothing of files, thresholds or reasons.

use crate::Result;
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::background::{BackgroundMap, Mesh, TileStatistics};
use crate::pipeline::lines::Lines;
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::search::{Peak, SearchRequest};
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::weigh::{CompactSource, Footprint};

#[cfg(all(test, feature = "gpu"))]
mod conformance;
pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod timed;

/// Which image tile statistics are taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileSource {
    /// Pixel values, as ingested.
    Values,
    /// The PSF-filtered image of the last [`Backend::filter`].
    Filtered,
}

/// Directions in which a compact source is walked outwards: every 22.5 degrees from +x towards +y.
pub(crate) const WALK_DIRECTIONS: usize = 16;
/// Longest walk, px.
pub(crate) const MAX_WALK_PX: usize = 64;

/// Below this length the two ends of a trail are one point.
pub(crate) const POINT_LENGTH_PX: f32 = 0.05;

/// Pixels further from the segment than this hold nothing of a trail.
pub(crate) fn trail_reach_px(trail: &Trail) -> f64 {
    // Bright trails have to be taken out down to a hundredth of the noise: exp(−6²/2) = 1.5e-8.
    6.0 * trail.sigma_eff_px + 1.0
}

/// Unit vector of one of the directions.
pub(crate) fn walk_direction(k: usize) -> [f32; 2] {
    let angle = std::f32::consts::TAU * k as f32 / WALK_DIRECTIONS as f32;
    [angle.cos(), angle.sin()]
}

/// A place to compute: the frame's pixels live here while it is worked on.
///
/// The order of calls is that of the pipeline: `ingest`, `tile_statistics`, `normalise`, then any of the others.
/// Pixel weights are inverse variances, 0 for missing pixels; a saturated pixel has a negative weight, which counts
/// as 0 except where sources are looked for.
pub(crate) trait Backend: Send {
    /// How the slopes are to be cut: at least so many wedges, and no level to keep of more nodes than this.
    fn task_size(&self) -> (usize, usize);

    /// Memory for a frame of this shape, in bytes, at most; tables that every frame shares are left out.
    fn frame_bytes(&self, width: usize, height: usize) -> u64;

    /// Milliseconds of each operation since last asked, in the order of their first calls; empty where no times are
    /// taken.
    fn take_times(&mut self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// The same of each kernel by the clock of the device; empty where it has none.
    fn take_kernel_times(&mut self) -> Result<Vec<(&'static str, f64)>> {
        Ok(Vec::new())
    }

    /// Makes room for frames of this shape, reusing what is there.
    fn prepare(&mut self, width: usize, height: usize) -> Result<()>;

    /// Takes the raw pixels in and converts them: value, and weight 1 (usable), 0 (missing) or −1 (saturated).
    fn ingest(&mut self, frame: &Frame<'_>) -> Result<()>;

    /// Robust statistics of every tile of the mesh.
    fn tile_statistics(&mut self, mesh: Mesh, source: TileSource) -> Result<Vec<TileStatistics>>;

    /// Value − sky level becomes the residual, weights become inverse variances.
    fn normalise(&mut self, map: &BackgroundMap) -> Result<()>;

    /// Takes offsets off columns and rows, and gives weight zero to those left out.
    fn take_off_lines(&mut self, lines: &Lines) -> Result<()>;

    /// Gives weight zero to pixels that stand alone: above `threshold` times the noise, and above `ratio` times the
    /// median of their eight neighbours.
    fn weigh_out_hot(&mut self, threshold: f32, ratio: f32) -> Result<()>;

    /// Convolves residual / noise with the PSF. Values beyond ±`clip` are clipped first; saturated pixels take part
    /// only where asked for.
    fn filter(&mut self, kernel: &PsfKernel, clip: f32, with_saturated: bool) -> Result<()>;

    /// Local maxima of the filtered image above `threshold` (filtered units) with walks outwards from each: to where
    /// the filtered image falls below a quarter of the peak, and to where it falls below `wing_level`.
    fn find_compact(&mut self, threshold: f32, wing_level: f32) -> Result<Vec<CompactSource>>;

    /// Gives weight zero to every pixel within the footprints.
    fn weigh_out(&mut self, footprints: &[Footprint]) -> Result<()>;

    /// Transforms the filtered image and its weights, and returns the local maxima above the threshold: of every cell
    /// the best, in their defined order (see [`best_of_cells`](crate::pipeline::search::best_of_cells)).
    fn find_peaks(&mut self, segments: &SegmentSet, request: &SearchRequest) -> Result<Vec<Peak>>;

    /// Light along each track, bin by bin.
    fn profiles(&mut self, tracks: &[Segment], sigma_eff_px: f32) -> Result<Vec<TrackProfile>>;

    /// Fits every request on the residual image.
    fn fit(&mut self, requests: &[FitRequest], settings: &FitSettings) -> Result<Vec<TrailFit>>;

    /// Adds `factor` times each model to the residual image: −1 takes it out.
    fn add_trails(&mut self, trails: &[Trail], factor: f32) -> Result<()>;

    /// The residual image and its weights, for tests that compare backends.
    #[cfg(all(test, feature = "gpu"))]
    fn read_images(&mut self) -> Result<(Vec<f32>, Vec<f32>)>;

    /// The filtered image and the weights it was made with, for tests that compare backends.
    #[cfg(all(test, feature = "gpu"))]
    fn read_filtered(&mut self) -> Result<(Vec<f32>, Vec<f32>)>;

    /// Puts a residual image with its weights, and a filtered image with its coverage, in place of what is there: so
    /// that tests compare one stage of two backends on equal input.
    #[cfg(all(test, feature = "gpu"))]
    fn write_images(&mut self, images: [&[f32]; 4]) -> Result<()>;
}

/// Light along a track, weighted by the transverse profile. One bin is one row (or column, for flat tracks) of the
/// frame; the bins run from the start of the track to its end.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct TrackProfile {
    /// Length of track in one bin, px.
    pub(crate) bin_px: f64,
    /// Distance of the first bin's centre from the track's start, along the track, px.
    pub(crate) first_px: f64,
    /// Σ w d G over the bin's pixels.
    pub(crate) signal: Vec<f32>,
    /// Σ w G²: the variance of `signal`.
    pub(crate) variance: Vec<f32>,
}

impl TrackProfile {
    /// The signal of the whole track, and its variance.
    pub(crate) fn sums(&self) -> (f64, f64) {
        let total = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum();
        (total(&self.signal), total(&self.variance))
    }

    /// Light of the middle one of the usable bins, per unit of their variance: no star on the track moves it.
    pub(crate) fn median_light(&self) -> f64 {
        let seen = self.signal.iter().zip(&self.variance).filter(|(_, v)| **v > 0.0);
        let mut light: Vec<f32> = seen.map(|(s, v)| s / v).collect();
        light.sort_unstable_by(f32::total_cmp);
        let Some(last) = light.len().checked_sub(1) else { return 0.0 };
        // Of an even number of bins either middle one alone would be off: on a short trail by a third of the noise.
        0.5 * (f64::from(light[last / 2]) + f64::from(light[last - last / 2]))
    }
}

/// The error of [`TrackProfile::median_light`] over that of the mean.
pub(crate) const MEDIAN_ERROR: f64 = 1.25;

/// Where a profile's bins lie in the frame: the same for both backends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ProfileBins {
    /// Bins are columns of the frame (the track is flatter than 45 degrees), else rows.
    pub(crate) along_x: bool,
    /// First row or column.
    pub(crate) first: i64,
    pub(crate) n: usize,
    /// True when the bins run against the axis.
    pub(crate) reversed: bool,
}

impl ProfileBins {
    pub(crate) fn of(track: &Segment) -> Self {
        let (c, s) = track.direction();
        let along_x = c.abs() >= s.abs();
        let (a, b) = if along_x { (track.start.x, track.end.x) } else { (track.start.y, track.end.y) };
        let (low, high) = (a.min(b).ceil() as i64, a.max(b).floor() as i64);
        Self { along_x, first: low, n: (high - low + 1).max(0) as usize, reversed: b < a }
    }

    /// Completes a profile from the sums of the bins in the order of the axis.
    pub(crate) fn profile(&self, track: &Segment, mut signal: Vec<f32>, mut variance: Vec<f32>) -> TrackProfile {
        let (c, s) = track.direction();
        let (along, start) = if self.along_x { (c, track.start.x) } else { (s, track.start.y) };
        let first = if self.reversed { self.first + self.n as i64 - 1 } else { self.first };
        if self.reversed {
            signal.reverse();
            variance.reverse();
        }
        TrackProfile { bin_px: 1.0 / along.abs(), first_px: (first as f64 - start) / along, signal, variance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let profile = TrackProfile {
            bin_px: 1.0,
            first_px: 0.0,
            signal: vec![4.0, -1.0, 2.0, -3.0, 9.0],
            variance: vec![1.0, 1.0, 2.0, 1.0, 0.0],
        };
        assert_eq!(profile.median_light(), 0.0);
    }
}
