//! The tracks of a strip, as they are cut from the image.

use rayon::prelude::*;

use super::{BINS_AT_ONCE, REACH_SIGMAS, Strip, Track};
use crate::Result;
use crate::backend::Backend;
use crate::geometry::{Point, Segment};
use crate::pipeline::tracking::StarMotion;

/// Distance of a frame's tracks, in PSF widths: a star half way between two has 0.94 of its S/N on either.
const FRAME_STEP_SIGMAS: f64 = 1.0;

impl Strip {
    /// The tracks, `step_px` apart, within `half_length` and `half_width` of a place.
    pub(crate) fn around(
        backend: &mut dyn Backend,
        middle: Point,
        half_length_px: f64,
        half_width_px: f64,
        step_px: f64,
        sigma_px: f64,
        motion: &StarMotion,
    ) -> Result<Self> {
        let whole = Segment::around(middle, 2.0 * half_length_px, motion.angle_rad);
        Self::beside(backend, &whole, half_width_px, step_px, sigma_px, motion, Some)
    }

    /// The whole frame, with what of a star's trail the border cuts.
    pub(crate) fn over_frame(
        backend: &mut dyn Backend,
        width: usize,
        height: usize,
        sigma_px: f64,
        motion: &StarMotion,
    ) -> Result<Self> {
        let (s, c) = motion.angle_rad.sin_cos();
        let (w, h) = (0.5 * width as f64, 0.5 * height as f64);
        let beyond_px = motion.length_px + 2.0 * REACH_SIGMAS * sigma_px;
        let longest_px = 2.0 * w.hypot(h) + 4.0 * beyond_px;
        let whole = Segment::around(Point::new(w - 0.5, h - 0.5), longest_px, motion.angle_rad);
        let half_width_px = w * s.abs() + h * c.abs();
        let cut = |track: Segment| track.clipped_near(width, height, beyond_px);
        Self::beside(backend, &whole, half_width_px, FRAME_STEP_SIGMAS * sigma_px, sigma_px, motion, cut)
    }

    /// Tracks on either side of one, up to `half_width_px`, each no longer than it is cut to.
    fn beside(
        backend: &mut dyn Backend,
        whole: &Segment,
        half_width_px: f64,
        step_px: f64,
        sigma_px: f64,
        motion: &StarMotion,
        cut: impl Fn(Segment) -> Option<Segment>,
    ) -> Result<Self> {
        let (s, c) = motion.angle_rad.sin_cos();
        let rows = (half_width_px / step_px).ceil() as i32;
        let places: Vec<(f64, f64, Segment)> = (-rows..=rows)
            .filter_map(|row| {
                let across_px = f64::from(row) * step_px;
                let track = whole.moved_across(across_px);
                let inside = cut(track)?;
                Some((across_px, track.start.distance(inside.start) - 0.5 * whole.length_px(), inside))
            })
            .collect();
        let longest_px = places.iter().map(|(.., track)| track.length_px()).fold(1.0, f64::max);
        let at_once = (BINS_AT_ONCE as f64 / longest_px).max(1.0) as usize;
        let mut tracks = Vec::with_capacity(places.len());
        let mut bin_px = 1.0;
        for some in places.chunks(at_once) {
            let segments: Vec<Segment> = some.iter().map(|(.., track)| *track).collect();
            let profiles = backend.profiles(&segments, sigma_px as f32)?;
            bin_px = profiles.first().map_or(bin_px, |p| p.bin_px);
            let new = some.par_iter().zip(profiles).map(|((across_px, from, _), p)| Track::new(*across_px, *from, p));
            tracks.par_extend(new);
        }
        Ok(Self::new(tracks, whole.midpoint(), (c, s), bin_px, step_px, sigma_px, motion.length_px))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::pipeline::background::{self, Mesh};
    use crate::{Frame, simulate};

    const SIGMA: f64 = 1.5;

    #[test]
    fn stars_are_found_wherever_they_touch_the_frame_and_no_track_is_longer_than_that() {
        let (width, height, length_px) = (150, 110, 30.0);
        for angle_rad in [0.0, 17.0, 45.0, 90.0, 126.0].map(f64::to_radians) {
            let motion = StarMotion { length_px, angle_rad, length_err_px: 0.0, angle_err_rad: 0.0, n_stars: 0 };
            for (x, y) in [(75.0, 55.0), (2.0, 60.0), (147.0, 3.0), (80.0, 108.0), (0.0, 0.0)] {
                let star = Segment::around(Point::new(x, y), length_px, angle_rad);
                let mut pixels = simulate::gaussian_frame(width, height, 7, 1.0);
                simulate::add_streak(&mut pixels, width, &star, SIGMA, 600.0);
                let mut backend = CpuBackend::default();
                backend.prepare(width, height).unwrap();
                backend.ingest(&Frame::new(&pixels, width, height).unwrap()).unwrap();
                background::draw_map(&mut backend, Mesh::new(width, height, 64)).unwrap().unwrap();
                let mut strip = Strip::over_frame(&mut backend, width, height, SIGMA, &motion).unwrap();
                let found = strip.best_star().unwrap();
                // Of one that the border cuts its place along the track is known to what is cut off.
                let (along, across) = star.along_across(strip.segment(&found).midpoint());
                let off_px = along - 0.5 * length_px;
                let most_px = if (x, y) == (75.0, 55.0) { 1.5 } else { 0.5 * length_px };
                assert!(off_px.abs() < most_px, "{off_px} at ({x}, {y}), {angle_rad} rad");
                assert!(across.abs() < 2.0, "{across} at ({x}, {y}), {angle_rad} rad");
                let beyond_px = length_px + 2.0 * REACH_SIGMAS * SIGMA;
                let most_px2 = (width as f64 + 2.0 * beyond_px) * (height as f64 + 2.0 * beyond_px);
                let n_bins: usize = strip.tracks.iter().map(|track| track.signal.len()).sum();
                assert!((n_bins as f64) * strip.bin_px * strip.step_px < most_px2, "{n_bins} at {angle_rad} rad");
            }
        }
    }
}
