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
        Self::beside(backend, &whole, half_width_px, step_px, sigma_px, motion, |_, track| Some(track))
    }

    /// What stars may cover in whose place a line may be: tracks `step_px` apart.
    pub(crate) fn crossed(
        backend: &mut dyn Backend,
        line: &Crossing,
        step_px: f64,
        sigma_px: f64,
        motion: &StarMotion,
    ) -> Result<Self> {
        let half_length_px = line.half_length_px();
        let whole = Segment::around(line.middle, 2.0 * half_length_px, motion.angle_rad);
        let cut = |across_px: f64, track: Segment| {
            let [from, to] = line.stretch(across_px).map(|u| 0.5 + 0.5 * u / half_length_px);
            Some(Segment::new(track.at(from), track.at(to)))
        };
        Self::beside(backend, &whole, line.half_width_px(), step_px, sigma_px, motion, cut)
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
        let cut = |_: f64, track: Segment| track.clipped_near(width, height, beyond_px);
        Self::beside(backend, &whole, half_width_px, FRAME_STEP_SIGMAS * sigma_px, sigma_px, motion, cut)
    }

    /// Tracks on either side of one, up to `half_width_px`, each no longer than it is cut to by where it lies across.
    fn beside(
        backend: &mut dyn Backend,
        whole: &Segment,
        half_width_px: f64,
        step_px: f64,
        sigma_px: f64,
        motion: &StarMotion,
        cut: impl Fn(f64, Segment) -> Option<Segment>,
    ) -> Result<Self> {
        let (s, c) = motion.angle_rad.sin_cos();
        let rows = (half_width_px / step_px).ceil() as i32;
        let places: Vec<(f64, f64, Segment)> = (-rows..=rows)
            .filter_map(|row| {
                let across_px = f64::from(row) * step_px;
                let track = whole.moved_across(across_px);
                let inside = cut(across_px, track)?;
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

/// A line that crosses the stars' direction, and the stars that may lie on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crossing {
    pub(crate) middle: Point,
    /// From the middle to the end that lies across the stars' direction: along it, and across, which is not negative.
    half: (f64, f64),
    /// The light of a star that lies on a place reaches so far from it along its direction, and across.
    along_px: f64,
    across_px: f64,
    /// Along the stars' direction: of a star beyond the line's ends half may lie there.
    half_length_px: f64,
}

impl Crossing {
    pub(crate) fn new(line: &Segment, sigma_px: f64, motion: &StarMotion) -> Self {
        let middle = line.midpoint();
        let (u, v) = Segment::around(middle, 1.0, motion.angle_rad).along_across(line.start);
        let half = if v < 0.0 { (0.5 - u, -v) } else { (u - 0.5, v) };
        let ends_px = 2.0 * REACH_SIGMAS * sigma_px;
        Self {
            middle,
            half,
            along_px: motion.length_px + ends_px,
            across_px: REACH_SIGMAS * sigma_px,
            half_length_px: half.0.abs() + 0.5 * motion.length_px + ends_px,
        }
    }

    pub(crate) fn half_length_px(&self) -> f64 {
        self.half_length_px
    }

    pub(crate) fn half_width_px(&self) -> f64 {
        self.half.1 + self.across_px
    }

    /// No light of a star on the line lies further from it.
    pub(crate) fn reach_px(&self) -> f64 {
        self.along_px.hypot(self.across_px)
    }

    /// From where to where along the stars' direction a star on the line lies whose axis is so far across.
    fn stretch(&self, across_px: f64) -> [f64; 2] {
        let (u, v) = self.half;
        let along = |across_px: f64| if v > 0.0 { u * (across_px / v).clamp(-1.0, 1.0) } else { u.copysign(across_px) };
        let (a, b) = (along(across_px - self.across_px), along(across_px + self.across_px));
        [(a.min(b) - self.along_px).max(-self.half_length_px), (a.max(b) + self.along_px).min(self.half_length_px)]
    }

    /// Pixels on all tracks `step_px` apart, at most.
    pub(crate) fn n_px(&self, step_px: f64) -> usize {
        let n_tracks = 2.0 * (self.half_width_px() / step_px).ceil() + 1.0;
        let (u, v) = (self.half.0.abs(), self.half.1);
        let run_px = if self.across_px < v { u * self.across_px / v } else { u };
        (2.0 * (run_px + self.along_px).min(self.half_length_px) * n_tracks).ceil() as usize
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

    #[test]
    fn stars_on_a_line_lie_on_its_tracks_which_are_far_shorter_than_all_it_spans() {
        let (angle_rad, length_px, reach_px) = (0.3_f64, 40.0, REACH_SIGMAS * SIGMA);
        let motion = StarMotion { length_px, angle_rad, length_err_px: 0.0, angle_err_rad: 0.0, n_stars: 0 };
        for (line_px, turn_rad, share) in [(900.0, 0.4, 0.3), (900.0, -2.0, 0.5), (30.0, 0.1, 1.1), (600.0, 0.0, 1.1)] {
            let line = Segment::around(Point::new(500.0, 400.0), line_px, angle_rad + turn_rad);
            let crossing = Crossing::new(&line, SIGMA, &motion);
            let whole = Segment::around(line.midpoint(), 1.0, angle_rad);
            let off = [-4.0, 0.0, 4.0];
            // A star that touches the line anywhere, with any of its parts.
            for (at, off_px) in (0..=20).flat_map(|k| off.map(|off| (f64::from(k) / 20.0, off))) {
                let (u, across_px) = whole.along_across(line.at(at));
                let [from, to] = crossing.stretch(across_px + off_px);
                for part in [0.0, 0.3, 0.5, 1.0] {
                    let begin = u - 0.5 - part * length_px;
                    let star = (begin - reach_px, begin + length_px + reach_px);
                    let all = crossing.half_length_px();
                    assert!(from <= star.0.max(-all) && star.1.min(all) <= to, "{from} to {to} without {star:?}");
                }
                assert!((across_px + off_px).abs() <= crossing.half_width_px());
            }
            let n_tracks = (crossing.half_width_px() / SIGMA).ceil() as i32;
            let stretches = (-n_tracks..=n_tracks).map(|k| crossing.stretch(f64::from(k) * SIGMA));
            let px: f64 = stretches.map(|[from, to]| to - from).sum();
            let all = 2.0 * crossing.half_length_px() * f64::from(2 * n_tracks + 1);
            let n_px = crossing.n_px(SIGMA) as f64;
            assert!(px <= n_px && n_px < 1.5 * px && n_px < share * all, "{px}, {n_px} of {all}");
        }
    }

    #[test]
    fn stars_that_a_line_crosses_anywhere_are_found_on_its_tracks() {
        let (side, length_px, angle_rad) = (300, 40.0, 0.3);
        let motion = StarMotion { length_px, angle_rad, length_err_px: 0.0, angle_err_rad: 0.0, n_stars: 0 };
        let line = Segment::around(Point::new(150.0, 150.0), 220.0, angle_rad - 0.6);
        let direction = Segment::around(Point::new(0.0, 0.0), 1.0, angle_rad).direction();
        // Where on the line, and which of its parts lies there.
        let stars = [(0.1, 0.1), (0.4, 0.9), (0.6, 0.05), (0.9, 0.7)].map(|(at, part)| {
            let place = line.at(at);
            let along = (0.5 - part) * length_px;
            Segment::around(
                Point::new(place.x + along * direction.0, place.y + along * direction.1),
                length_px,
                angle_rad,
            )
        });
        let mut pixels = simulate::gaussian_frame(side, side, 7, 1.0);
        stars.iter().for_each(|star| simulate::add_streak(&mut pixels, side, star, SIGMA, 600.0));
        // One far from the line, which none of its tracks sees.
        let other = Segment::around(Point::new(150.0, 30.0), length_px, angle_rad);
        simulate::add_streak(&mut pixels, side, &other, SIGMA, 3000.0);
        let mut backend = CpuBackend::default();
        backend.prepare(side, side).unwrap();
        backend.ingest(&Frame::new(&pixels, side, side).unwrap()).unwrap();
        background::draw_map(&mut backend, Mesh::new(side, side, 64)).unwrap().unwrap();
        let crossing = Crossing::new(&line, SIGMA, &motion);
        let mut strip = Strip::crossed(&mut backend, &crossing, 0.5 * SIGMA, SIGMA, &motion).unwrap();
        for _ in &stars {
            let found = strip.best_star().unwrap();
            let middle = strip.segment(&found).midpoint();
            let off = stars.iter().map(|s| s.midpoint().distance(middle)).fold(f64::INFINITY, f64::min);
            assert!(off < 2.5, "{off} px from the nearest star: {middle:?}");
            strip.add(&found, -1.0);
            assert!((strip.power_of(&found) / found.snr.powi(2) - 1.0).abs() < 0.01);
        }
        assert!(strip.best_star().is_none_or(|s| s.snr < 6.0));
    }
}
