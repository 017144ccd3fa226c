//! Star trails and points so bright that no model follows their light: of full pixels, and of charge that spills over
//! along the columns, the sums tell where a source is.
//!
//! Method: docs/algorithm.md, "Stars that trail".

mod light;
mod patches;

use crate::detection::{Detection, Flags, Role};
use crate::frame::Frame;
use crate::geometry::{Point, Segment};
use crate::pipeline::background::BackgroundMap;
use crate::pipeline::believed::{Believed, Origin};
use crate::pipeline::detected;
use crate::pipeline::last_fits::final_settings;
use crate::pipeline::measure::{N_TRIANGLE, Shape, Trail, TrailFit, triangle};
use crate::pipeline::psf::effective_sigma;
use crate::pipeline::stars::StarField;
use crate::pipeline::tracking::StarMotion;
use crate::pipeline::weigh::Footprint;
use crate::report::{RejectReason, Rejected};
use light::{FLANK_SIGMAS, Flanks, Light, halo_px};
use patches::{Patch, filled_value, is_missing, patches, place};

/// Full pixels are so many wide, in the mean, along a trail that no fit follows.
const LEAST_WIDTH_PX: f64 = 2.0;

/// Of a star that the border cuts this part of that may be left.
const CUT_SHARE: f64 = 0.5;

/// Where charge has spilled, a patch of full pixels is so much taller than the trail is wide. Else what the pixels could not
/// hold may be lost.
const LEAST_SPILL_PX: f64 = 2.5;

/// It is certain where the patch is taller by this part of what the PSF makes it wide too, or by so many PSF widths where
/// the light beside it is not (by this ratio of variances; L² / 12 σ² more would be that of a source that drifts by L):
/// else one may be that drifts along the column, on a sensor whose charge does not spill.
const CERTAIN_SPILL: f64 = 1.5;
const CERTAIN_SIGMAS: f64 = 2.0;
const CERTAIN_TALLNESS: f64 = 1.25;

/// The light beside a point whose charge flows over the border ends so many PSF widths before it, or a cut star may be it.
const INSIDE_SIGMAS: f64 = 3.0;

/// Where charge is seen to spill anywhere in the frame, a point of so many full pixels has spilled some.
const LEAST_SPILLING: usize = 4;

/// The light of a star reaches so many PSF widths beyond its full pixels, and no neighbour's counts.
const AROUND_SIGMAS: f64 = 5.0;

/// Full pixels reach along the row no further beyond the trail's own ends than this, in PSF widths, and fall short of them by
/// no more.
const FURTHEST_SIGMAS: f64 = 6.0;
const SHORT_SIGMAS: f64 = 1.5;

/// By this part the variance of the light along the row may differ from a star's, and be larger by so many of the PSF's own:
/// it has wings.
const SPREAD_SHARE: f64 = 0.3;
const WINGS_PSFS: f64 = 2.0;

/// Beside the patch it may be so many times as large along the column, or as small: a point's is far smaller. Wings make
/// a point's larger by more.
const FLANK_SPREAD: f64 = 2.0;
const POINT_FLANK_SPREAD: f64 = 3.0;

/// By so many PSF widths, and this part of the trail's extent along the column, the middle of the light on one side of the
/// patch may lie off where the other side's has it: under wings both come nearer to the trail's middle.
const FLANK_OFF_SIGMAS: f64 = 0.75;
const FLANK_OFF_SHARE: f64 = 0.15;

/// So much of a patch is full between the first and the last full pixel of its columns, at least.
const FULL_SHARE: f64 = 0.8;

/// So many of its pixels may be missing.
const MISSING_SHARE: f64 = 0.02;

/// Error of the middle of the light, at least: sensors are not linear near the level. And of the sum.
const LEAST_ERROR_PX: f64 = 0.1;
const FLUX_ERROR: f64 = 0.02;

/// Where charge was lost over the border, it may be more of one side's: by this part of the patch's width its middle moves.
const LOST_SHARE: f64 = 0.1;

/// A saturated star, or where stars trail a saturated point, measured by the sums of its light.
#[derive(Debug, Clone)]
pub(crate) struct SaturatedSource {
    /// A trail's is a star.
    shape: Shape,
    /// No fit, but what one would tell.
    fit: TrailFit,
    /// Of the sky, there.
    noise: f64,
    /// All pixels that its charge and its light fill.
    footprints: Vec<Footprint>,
    /// The border of the frame cuts it: it is not known where it lies, nor how bright it is.
    is_cut_off: bool,
    /// Charge has spilled from it for certain.
    has_spilled: bool,
}

impl SaturatedSource {
    pub(crate) fn footprints(&self) -> impl Iterator<Item = Footprint> {
        self.footprints.iter().copied()
    }

    /// Spilled charge that is its own.
    pub(crate) fn holds(&self, bleed: &Segment) -> bool {
        let middle = bleed.midpoint();
        self.footprints.iter().any(|f| f.position().distance(middle) < f64::from(f.radius_px))
    }

    /// As other stars are known, if it is one.
    pub(crate) fn as_star(&self, motion: &StarMotion, sigma_px: f64) -> Option<Believed> {
        (self.shape == Shape::Trail).then(|| Believed::new(self.as_of(motion, sigma_px), Origin::Star))
    }

    /// What is reported of it; what is listed in its stead where the border cuts it.
    pub(crate) fn report(
        &self,
        motion: &StarMotion,
        frame: &Frame<'_>,
        field: &StarField,
    ) -> Result<Detection, Rejected> {
        let fit = self.as_of(motion, effective_sigma(field.psf_sigma_px));
        if self.is_cut_off {
            return Err(Rejected { segment: fit.trail.segment, snr: fit.snr, reason: RejectReason::FrameEdge });
        }
        let settings = final_settings(self.shape, field, frame);
        let motion = motion_of(self.shape, motion);
        let known = detected::detection(&fit, &settings, frame, field, fit.snr, Some(&motion), None, [0.0; 2]);
        let mut detection = known.detection;
        detection.role = if self.shape == Shape::Trail { Role::Star } else { Role::Target };
        detection.flags |= Flags::SUMMED;
        Ok(detection)
    }

    /// With the stars' vector and the PSF's effective width as they are known by now.
    fn as_of(&self, motion: &StarMotion, sigma_px: f64) -> TrailFit {
        let mut fit = self.fit;
        let StarMotion { length_px, angle_rad, .. } = motion_of(self.shape, motion);
        fit.trail.segment = Segment::around(fit.trail.segment.midpoint(), length_px, angle_rad);
        fit.trail.sigma_eff_px = sigma_px;
        // Of a PSF, in either direction.
        let width_px = 2.0 * std::f64::consts::PI.sqrt() * sigma_px;
        let along_px = if self.shape == Shape::Trail { length_px } else { width_px };
        fit.snr = fit.trail.flux / (self.noise * (width_px * along_px).sqrt());
        fit
    }
}

/// Finds them by their patches of full pixels. What has neither the shape that the stars' vector gives a patch nor a
/// point's is left alone.
pub(crate) fn find(
    frame: &Frame<'_>,
    sky: &BackgroundMap,
    motion: &StarMotion,
    psf_sigma_px: f64,
) -> Vec<SaturatedSource> {
    let sigma_px = effective_sigma(psf_sigma_px);
    let around_px = (AROUND_SIGMAS * sigma_px).ceil() as usize;
    let patches = patches(frame, sky, around_px);
    let looks: Vec<PatchLook<'_>> = patches.iter().map(|p| PatchLook::of(p, frame, sky, motion, sigma_px)).collect();
    let found = |spills: bool| looks.iter().filter_map(move |look| look.source(spills)).collect::<Vec<_>>();
    let certain = found(false);
    if certain.iter().any(|source| source.has_spilled) { found(true) } else { certain }
}

/// The stars' own, or none of what stands still among them.
fn motion_of(shape: Shape, motion: &StarMotion) -> StarMotion {
    match shape {
        Shape::Trail => *motion,
        Shape::Point => StarMotion { length_px: 0.0, length_err_px: 0.0, angle_err_rad: 0.0, ..*motion },
    }
}

/// First and last columns and rows of full pixels.
struct Extent {
    columns: [f64; 2],
    rows: [f64; 2],
}

impl Extent {
    fn of(full: &[Point]) -> Self {
        let range = |of: fn(&Point) -> f64| {
            let places = || full.iter().map(of);
            [places().fold(f64::INFINITY, f64::min), places().fold(f64::NEG_INFINITY, f64::max)]
        };
        Self { columns: range(|p| p.x), rows: range(|p| p.y) }
    }

    fn width_px(&self) -> f64 {
        self.columns[1] - self.columns[0] + 1.0
    }

    fn middle(&self) -> Point {
        Point::new(0.5 * (self.columns[0] + self.columns[1]), 0.5 * (self.rows[0] + self.rows[1]))
    }

    fn height_px(&self) -> f64 {
        self.rows[1] - self.rows[0] + 1.0
    }
}

/// What the sums of a patch say of one shape.
struct Sums {
    shape: Shape,
    fit: TrailFit,
    /// How far its spread is from what the shape's would be: along the row and beside the patch, as logarithms.
    misfit: f64,
    has_spilled: bool,
}

/// A patch, and what is known of stars.
struct PatchLook<'a> {
    patch: &'a Patch,
    frame: &'a Frame<'a>,
    motion: &'a StarMotion,
    sigma_px: f64,
    full: Vec<Point>,
    extent: Extent,
    /// Level and noise of the sky.
    sky: [f64; 2],
}

impl<'a> PatchLook<'a> {
    fn of(patch: &'a Patch, frame: &'a Frame<'a>, sky: &BackgroundMap, motion: &'a StarMotion, sigma_px: f64) -> Self {
        let full: Vec<Point> = patch.pixels[..patch.n_full].iter().map(|&i| place(i, frame)).collect();
        let middle = patch.pixels[patch.n_full / 2];
        let (level, noise) = sky.at(middle % frame.width(), middle / frame.width());
        let sky = [level, noise].map(f64::from);
        Self { patch, frame, motion, sigma_px, extent: Extent::of(&full), full, sky }
    }

    /// The star or point, if it is one: measured, or cut by the border. It may be known that charge spills in the frame.
    fn source(&self, spills: bool) -> Option<SaturatedSource> {
        let margin = FLANK_SIGMAS * self.sigma_px;
        let is_inside = |[first, last]: [f64; 2], size: usize| first >= margin && last + margin < size as f64;
        let is_seen = is_inside(self.extent.columns, self.frame.width());
        // Charge that flows over the border is lost, but the light beside it is not.
        let is_lossless = is_inside(self.extent.rows, self.frame.height());
        let shapes = [Shape::Trail, Shape::Point].into_iter().filter(|_| is_seen);
        let measured = shapes.filter_map(|shape| self.measured(shape, is_lossless, spills));
        let measured = measured.min_by(|a, b| a.misfit.total_cmp(&b.misfit));
        let is_cut_off = measured.is_none();
        let at_border = || if is_seen && is_lossless { None } else { self.cut_off() };
        let Sums { shape, fit, has_spilled, .. } = measured.or_else(at_border)?;
        let mut footprints = footprints(&self.full, AROUND_SIGMAS * self.sigma_px);
        if shape == Shape::Point {
            let place = fit.trail.segment.midpoint();
            let halo_px = halo_px(self.frame, place, AROUND_SIGMAS * self.sigma_px, self.sigma_px.max(1.0), self.sky);
            footprints.extend(Footprint::around(&Segment::new(place, place), halo_px));
        }
        Some(SaturatedSource { shape, fit, noise: self.sky[1], footprints, is_cut_off, has_spilled })
    }

    fn lit(&self) -> impl Iterator<Item = (Point, f64)> {
        self.patch.pixels.iter().map(|&i| (place(i, self.frame), f64::from(filled_value(self.frame, i)) - self.sky[0]))
    }

    fn trail_at(&self, middle: Point, flux: f64, length_px: f64) -> Trail {
        let segment = Segment::around(middle, length_px, self.motion.angle_rad);
        Trail { segment, flux, background: 0.0, sigma_eff_px: self.sigma_px }
    }

    fn n_full_per_px(&self) -> f64 {
        self.full.len() as f64 / self.motion.length_px
    }

    /// What is left of a star at the border, if it may be that: its pieces would pass for targets.
    fn cut_off(&self) -> Option<Sums> {
        let flux = self.lit().map(|(_, v)| v).sum();
        let fit = TrailFit::unfitted(self.trail_at(self.extent.middle(), flux, self.motion.length_px));
        let is_enough = self.n_full_per_px() >= LEAST_WIDTH_PX * CUT_SHARE;
        is_enough.then_some(Sums { shape: Shape::Trail, fit, misfit: f64::INFINITY, has_spilled: false })
    }

    /// Place, flux and their errors, if it has the shape of a star, or of a point.
    fn measured(&self, shape: Shape, is_lossless: bool, spills: bool) -> Option<Sums> {
        let Self { extent, sigma_px, .. } = self;
        let StarMotion { length_px, angle_rad, .. } = motion_of(shape, self.motion);
        let (dx, dy) = (length_px * angle_rad.cos().abs(), length_px * angle_rad.sin());
        let beyond_px = extent.width_px() - dx;
        let spill_px = extent.height_px() - dy - beyond_px;
        let in_columns: f64 = columns(&self.full).iter().map(Segment::length_px).sum();
        let n_missing = self.patch.pixels.iter().filter(|&&i| is_missing(self.frame, i)).count();
        let is_full = match shape {
            Shape::Trail => self.n_full_per_px() >= LEAST_WIDTH_PX,
            Shape::Point => self.full.len() >= LEAST_SPILLING,
        };
        if !is_full
            || !(-SHORT_SIGMAS * sigma_px..FURTHEST_SIGMAS * sigma_px + 1.0).contains(&beyond_px)
            || (self.full.len() as f64) < FULL_SHARE * in_columns
            || n_missing as f64 > MISSING_SHARE * self.patch.pixels.len() as f64
        {
            return None;
        }
        let [row, column] =
            [Light::of(self.lit().map(|(p, v)| (p.x, v))), Light::of(self.lit().map(|(p, v)| (p.y, v)))];
        let at_mean = self.trail_at(Point::new(row.mean, column.mean), row.sum, length_px);
        let flanks = Flanks::of(self.lit(), extent.columns, &at_mean, self.frame.height());

        let psf_px2 = sigma_px * sigma_px;
        let row_px2 = dx * dx / 12.0 + psf_px2;
        let excess_px2 = row.variance - row_px2;
        let is_as_long = (-SPREAD_SHARE * row_px2..SPREAD_SHARE * row_px2 + WINGS_PSFS * psf_px2).contains(&excess_px2);
        let tallness = flanks.seen_px2 / flanks.model_px2;
        let most_tall = if shape == Shape::Point { POINT_FLANK_SPREAD } else { FLANK_SPREAD };
        let is_as_tall = (1.0 / FLANK_SPREAD..most_tall).contains(&tallness);
        let is_certain = spill_px >= CERTAIN_SPILL * beyond_px
            || spill_px >= CERTAIN_SIGMAS * sigma_px && tallness < CERTAIN_TALLNESS;
        // A point whose charge has not spilled is fitted: its wings tell what its full pixels do not.
        let inside = INSIDE_SIGMAS * sigma_px..self.frame.height() as f64 - INSIDE_SIGMAS * sigma_px;
        let is_known = shape == Shape::Trail
            || (spills || is_certain) && (is_lossless || inside.contains(&(column.mean + flanks.shift_px)));
        let agree = flanks.off_px < FLANK_OFF_SIGMAS * sigma_px + FLANK_OFF_SHARE * dy;
        // The row tells little of a steep trail's length: a point of light has the same shape there.
        let by_flanks = !is_lossless || dx < FURTHEST_SIGMAS * sigma_px;
        let is_lit = row.sum > 0.0;
        if !is_lit || !is_known || !agree || is_lossless && !is_as_long || by_flanks && !is_as_tall {
            return None;
        }
        // Light that widens the row's is another's, half way to where it would no longer count; what narrows it, in the
        // middle. On one side of the patch it moves the star's row by half of what the sides are off. Where light moves the
        // mean along the column, charge has spilled unevenly, or it is another's.
        let others_px = 0.5 * (0.5 * extent.width_px() + AROUND_SIGMAS * sigma_px);
        let others_share = (excess_px2 / others_px.powi(2)).max(-excess_px2 / row_px2);
        let column_share = flanks.shift_px.abs() / (0.5 * extent.height_px());
        let lost_px = if is_lossless { 0.0 } else { LOST_SHARE * extent.width_px() };
        let has_spilled = is_lossless && is_certain && spill_px >= LEAST_SPILL_PX;
        let is_whole = is_lossless && (spill_px >= LEAST_SPILL_PX || shape == Shape::Point);
        let lost_share = if is_whole { FLUX_ERROR } else { 1.0 };
        let err_px = LEAST_ERROR_PX.hypot(others_share * others_px).hypot(lost_px);
        let flux_err = lost_share.hypot(others_share).hypot(column_share) * row.sum;
        let trail = self.trail_at(Point::new(row.mean, column.mean + flanks.shift_px), row.sum, length_px);
        let information = information(&trail.segment, [err_px, err_px.hypot(0.5 * flanks.off_px)], flux_err);
        let fit = TrailFit { information, ..TrailFit::unfitted(trail) };
        Some(Sums { shape, fit, misfit: (row.variance / row_px2).ln().abs() + tallness.ln().abs(), has_spilled })
    }
}

/// Fisher information of a trail of known vector, whose middle and flux have these errors.
fn information(segment: &Segment, [x_err, y_err]: [f64; 2], flux_err: f64) -> [f64; N_TRIANGLE] {
    let (c, s) = segment.direction();
    let (of_x, of_y) = (x_err.powi(-2), y_err.powi(-2));
    let mut information = [0.0; N_TRIANGLE];
    information[triangle(0, 0)] = flux_err.powi(-2);
    information[triangle(1, 1)] = c * c * of_x + s * s * of_y;
    information[triangle(1, 2)] = c * s * (of_y - of_x);
    information[triangle(2, 2)] = s * s * of_x + c * c * of_y;
    information
}

/// From the first to the last full pixel of every column that has some.
fn columns(full: &[Point]) -> Vec<Segment> {
    let mut columns = std::collections::BTreeMap::new();
    for p in full {
        let column = columns.entry(p.x as usize).or_insert(Segment::new(*p, *p));
        column.start.y = column.start.y.min(p.y);
        column.end.y = column.end.y.max(p.y);
    }
    columns.into_values().collect()
}

/// Disks that cover full pixels and what is this near to them.
fn footprints(full: &[Point], radius_px: f64) -> Vec<Footprint> {
    let step = (0.5 * radius_px).max(1.0) as usize;
    let columns = columns(full);
    let some = columns.iter().step_by(step).chain(columns.last());
    some.flat_map(|column| Footprint::around(column, radius_px)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::background::{Mesh, TileStatistics};
    use crate::simulate;

    const WIDTH: usize = 200;
    const HEIGHT: usize = 500;
    const SIGMA: f64 = 1.3;
    const LEVEL: f64 = 500.0;
    const FULL: f64 = 10_000.0;

    /// A frame of noise 5 with one trail on it, of which what fills a pixel more than FULL goes up, but for a share that
    /// goes down.
    fn found(trail: Segment, flux: f64, down: f64, angle_rad: f64) -> Vec<SaturatedSource> {
        let mut pixels = simulate::gaussian_frame(WIDTH, HEIGHT, 3, 5.0);
        simulate::add_streak(&mut pixels, WIDTH, &trail, SIGMA, flux);
        spill(&mut pixels, down);
        pixels.iter_mut().for_each(|v| *v += LEVEL as f32);
        let frame = Frame::new(pixels, WIDTH, HEIGHT).unwrap().with_saturation(FULL + LEVEL);
        find(&frame, &flat_sky(WIDTH, HEIGHT, LEVEL as f32), &motion(25.0, angle_rad), SIGMA)
    }

    /// What fills a pixel more than FULL goes up, but for a share that goes down.
    fn spill(pixels: &mut [f32], down: f64) {
        for x in 0..WIDTH {
            let excess = |y: usize| (pixels[y * WIDTH + x] - FULL as f32).max(0.0);
            let excess: Vec<f32> = (0..HEIGHT).map(excess).collect();
            let mut carried = [0.0; 2];
            for y in 0..HEIGHT {
                for (k, (row, share)) in [(y, 1.0 - down), (HEIGHT - 1 - y, down)].into_iter().enumerate() {
                    let pixel = &mut pixels[row * WIDTH + x];
                    *pixel = pixel.min(FULL as f32);
                    carried[k] += share as f32 * excess[row];
                    let taken = carried[k].min(FULL as f32 - *pixel).max(0.0);
                    *pixel += taken;
                    carried[k] -= taken;
                }
            }
        }
    }

    fn flat_sky(width: usize, height: usize, level: f32) -> BackgroundMap {
        let mesh = Mesh::new(width, height, 64);
        let tile = TileStatistics { n_usable: 1000, n_clipped: 1000, mean: level, median: level, sd: 5.0 };
        BackgroundMap::from_tiles(mesh, &vec![tile; mesh.len()]).unwrap()
    }

    fn motion(length_px: f64, angle_rad: f64) -> StarMotion {
        StarMotion { length_px, angle_rad, length_err_px: 0.1, angle_err_rad: 0.004, n_stars: 30 }
    }

    /// Of a trail whose peak is so many times the level.
    fn flux(times: f64) -> f64 {
        times * FULL * 25.0 * std::f64::consts::TAU.sqrt() * SIGMA
    }

    #[test]
    fn a_star_lies_where_its_light_does_however_it_has_spilled() {
        let middle = Point::new(101.3, 218.6);
        for degrees in [0.0, 17.0, 40.0, 75.0, 90.0, 140.0] {
            for down in [0.5, 0.2] {
                let angle_rad = f64::to_radians(degrees);
                let stars = found(Segment::around(middle, 25.0, angle_rad), flux(8.0), down, angle_rad);
                let [star] = &stars[..] else { panic!("{} stars at {degrees}°, {down}", stars.len()) };
                let believed = star.as_star(&motion(25.0, angle_rad), SIGMA).unwrap();
                let off = believed.trail().segment.midpoint();
                assert!((off.x - middle.x).abs() < 0.1, "{off:?} at {degrees}°, {down}");
                assert!((off.y - middle.y).abs() < 0.15, "{off:?} at {degrees}°, {down}");
                assert!((believed.trail().flux / flux(8.0) - 1.0).abs() < 0.01);
                // Sky noise alone, over the pixels of its template.
                let snr = flux(8.0) / 5.0 / (2.0 * std::f64::consts::PI.sqrt() * SIGMA * 25.0).sqrt();
                assert!((believed.fit.snr / snr - 1.0).abs() < 0.02, "{} for {snr}", believed.fit.snr);
            }
        }
    }

    #[test]
    fn its_flux_may_be_anothers_where_the_mean_is_moved() {
        let angle_rad = 17_f64.to_radians();
        let trail = Segment::around(Point::new(101.3, 218.6), 25.0, angle_rad);
        let share = |down: f64| {
            let stars = found(trail, flux(8.0), down, angle_rad);
            let errors = stars[0].fit.errors_of_known_vector(0.0, 0.0).unwrap();
            let covariance = errors.covariance_px2;
            assert!((0..4).all(|k| (LEAST_ERROR_PX..0.3).contains(&covariance[k][k].sqrt())), "{covariance:?}");
            errors.flux_err / flux(8.0)
        };
        let (even, uneven) = (share(0.5), share(0.2));
        assert!((even - FLUX_ERROR).abs() < 2e-3 && (0.1..0.5).contains(&uneven), "{even} {uneven}");
    }

    #[test]
    fn what_has_another_shape_is_no_star() {
        let middle = Point::new(101.3, 218.6);
        let n = |length_px: f64, degrees: f64, star_degrees: f64, times: f64| {
            let trail = Segment::around(middle, length_px, f64::to_radians(degrees));
            let found = found(trail, flux(times) * length_px.max(8.0) / 25.0, 0.5, f64::to_radians(star_degrees));
            assert!(length_px < 1.0 || found.iter().all(|source| source.shape == Shape::Trail), "no point");
            found.iter().filter(|source| source.shape == Shape::Trail).count()
        };
        assert_eq!(n(25.0, 40.0, 40.0, 8.0), 1);
        assert_eq!(n(0.01, 0.0, 40.0, 8.0), 0, "a point");
        assert_eq!(n(0.01, 0.0, 90.0, 8.0), 0, "a point, of a column's shape");
        assert_eq!(n(60.0, 40.0, 40.0, 8.0), 0, "longer");
        assert_eq!(n(25.0, 140.0, 40.0, 8.0), 0, "turned the other way: it looks alike along row and column");
        assert_eq!(n(25.0, 75.0, 40.0, 8.0), 0, "turned");
        assert_eq!(n(25.0, 40.0, 40.0, 1.1), 0, "full along its axis only: it is fitted");
    }

    /// Of a point whose peak is so many times the level.
    fn point_flux(times: f64) -> f64 {
        times * FULL * std::f64::consts::TAU * SIGMA * SIGMA
    }

    #[test]
    fn a_point_that_has_spilled_is_measured_too() {
        let place = Point::new(101.3, 218.6);
        let angle_rad = 17_f64.to_radians();
        let point = Segment::around(place, 0.01, 0.0);
        for (times, down) in [(3.0, 0.5), (40.0, 0.5), (40.0, 0.2)] {
            let sources = found(point, point_flux(times), down, angle_rad);
            let [source] = &sources[..] else { panic!("{} sources for {times}", sources.len()) };
            assert!(source.shape == Shape::Point && source.has_spilled && !source.is_cut_off);
            assert!(source.as_star(&motion(25.0, angle_rad), SIGMA).is_none());
            let fit = source.as_of(&motion(25.0, angle_rad), SIGMA);
            assert_eq!(fit.trail.segment.length_px(), 0.0);
            let off = fit.trail.segment.midpoint();
            assert!((off.x - place.x).abs() < 0.1 && (off.y - place.y).abs() < 0.15, "{off:?} for {times}, {down}");
            assert!((fit.trail.flux / point_flux(times) - 1.0).abs() < 0.01);
            let snr = point_flux(times) / 5.0 / (4.0 * std::f64::consts::PI * SIGMA * SIGMA).sqrt();
            assert!((fit.snr / snr - 1.0).abs() < 0.02, "{} for {snr}", fit.snr);
        }
    }

    /// A frame of noise 5 with sources that drift so far along the column, cut at FULL, some of them after what is more went
    /// up and down.
    fn sources_of(points: &[(Point, f64, f64)], spills: &[bool]) -> Vec<SaturatedSource> {
        let mut pixels = simulate::gaussian_frame(WIDTH, HEIGHT, 3, 5.0);
        for ((place, times, drift_px), spills) in points.iter().zip(spills) {
            let mut alone = vec![0.0; WIDTH * HEIGHT];
            let drift = Segment::around(*place, *drift_px, std::f64::consts::FRAC_PI_2);
            simulate::add_streak(&mut alone, WIDTH, &drift, SIGMA, point_flux(*times));
            if *spills {
                spill(&mut alone, 0.5);
            }
            pixels.iter_mut().zip(alone).for_each(|(v, own)| *v += own.min(FULL as f32));
        }
        pixels.iter_mut().for_each(|v| *v += LEVEL as f32);
        let frame = Frame::new(pixels, WIDTH, HEIGHT).unwrap().with_saturation(FULL + LEVEL - 50.0);
        find(&frame, &flat_sky(WIDTH, HEIGHT, LEVEL as f32), &motion(25.0, 0.3), SIGMA)
    }

    #[test]
    fn a_point_is_summed_only_where_its_charge_has_spilled() {
        let round = (Point::new(60.3, 120.6), 3.0, 0.01);
        let (bright, slight) = ((Point::new(140.2, 300.9), 10.0, 0.01), (Point::new(60.5, 400.5), 1.25, 0.01));
        assert!(sources_of(&[round], &[false]).is_empty(), "what is full does not spill: its wings tell its flux");
        assert!(sources_of(&[slight], &[true]).is_empty(), "full pixels as wide as tall: nothing says that they spill");
        for drift_px in [2.0, 3.0, 4.0, 5.0, 6.0] {
            let drifting = (Point::new(140.2, 300.9), 12.0, drift_px);
            assert!(sources_of(&[round, drifting], &[false; 2]).is_empty(), "nor where one drifts by {drift_px} px");
        }
        let found = sources_of(&[bright, slight], &[true; 2]);
        let lossless = |s: &SaturatedSource, times: f64| (s.fit.trail.flux / point_flux(times) - 1.0).abs() < 0.02;
        let [slight, bright] = &found[..] else { panic!("{} of two: there the other says it", found.len()) };
        let (bright, slight) = if bright.has_spilled { (bright, slight) } else { (slight, bright) };
        assert!(lossless(bright, 10.0) && lossless(slight, 1.25) && !slight.has_spilled);
    }

    #[test]
    fn a_star_that_passes_a_point_does_not_hide_it() {
        let point = (Point::new(140.2, 300.9), 40.0, 0.01);
        for times in [0.2, 0.5, 1.0] {
            let star = (Point::new(145.5, 306.0), times, 40.0);
            let found = sources_of(&[point, star], &[true; 2]);
            let [found] = &found[..] else { panic!("{} for {times}", found.len()) };
            assert!(found.shape == Shape::Point && found.fit.trail.segment.midpoint().distance(point.0) < 0.3);
        }
    }

    #[test]
    fn of_a_star_at_the_border_both_ends_must_be_seen() {
        let angle_rad = 17_f64.to_radians();
        let at = |x: f64, y: f64| found(Segment::around(Point::new(x, y), 25.0, angle_rad), flux(8.0), 0.5, angle_rad);
        for (x, y) in [(8.0, 218.6), (190.0, 218.6), (101.3, -1.0)] {
            let stars = at(x, y);
            let [star] = &stars[..] else { panic!("{} stars at {x}, {y}", stars.len()) };
            assert!(star.is_cut_off, "at {x}, {y} one end is not");
            assert!(star.fit.trail.segment.midpoint().distance(Point::new(x, y)) < 40.0);
        }
        for y in [-1.0, 2.0, 6.0] {
            let steep = Segment::around(Point::new(101.3, y), 25.0, std::f64::consts::FRAC_PI_2);
            let found = found(steep, flux(8.0), 0.5, std::f64::consts::FRAC_PI_2);
            assert!(found.iter().all(|source| source.shape == Shape::Trail), "a cut star is no point, at {y}");
        }
        let stars = at(101.3, 14.0);
        let [star] = &stars[..] else { panic!("{} stars whose charge has flowed over the border", stars.len()) };
        assert!(!star.is_cut_off);
        let errors = star.fit.errors_of_known_vector(0.0, 0.0).unwrap();
        let Trail { segment, flux: seen, .. } = star.fit.trail;
        let off = [segment.midpoint().x - 101.3, segment.midpoint().y - 14.0];
        assert!(off[0].abs() < 1.0 && off[1].abs() < 0.5, "{off:?}");
        assert!(seen < flux(8.0) && errors.flux_err > 0.9 * seen, "{} of {}", seen, flux(8.0));
        assert!((0..2).all(|k| off[k].abs() < 2.0 * errors.covariance_px2[k][k].sqrt()));
    }

    #[test]
    fn patches_share_what_is_between_them_and_a_bright_sky_is_not_full() {
        // The sky has 0.99 of what a pixel holds.
        let mut pixels = vec![990.0_f32; 128 * 128];
        for (x, value) in [(60, 1000.0), (61, 999.8), (62, 999.0), (66, 1000.0)] {
            pixels[64 * 128 + x] = value;
        }
        let frame = Frame::new(pixels, 128, 128).unwrap().with_saturation(1000.0);
        let patches = patches(&frame, &flat_sky(128, 128, 990.0), 3);
        let full: Vec<usize> = patches.iter().map(|p| p.n_full).collect();
        assert_eq!(full, [2, 1]);
        let columns = |p: &Patch| {
            let of_row = p.pixels.iter().filter(|i| **i / 128 == 64).map(|i| i % 128);
            (of_row.clone().min(), of_row.max())
        };
        assert_eq!((columns(&patches[0]), columns(&patches[1])), ((Some(57), Some(63)), (Some(64), Some(69))));
    }

    #[test]
    fn disks_cover_its_pixels_and_what_is_near() {
        let full: Vec<Point> = (0..30)
            .flat_map(|x| (0..50).map(move |y| Point::new(f64::from(60 + x), f64::from(60 + x / 2 + y))))
            .collect();
        let disks = footprints(&full, 6.5);
        for p in &full {
            for (x, y) in [(0.0, 0.0), (-4.0, 0.0), (4.0, 0.0), (0.0, 4.0), (0.0, -4.0)] {
                let near = Point::new(p.x + x, p.y + y);
                assert!(disks.iter().any(|d| d.position().distance(near) <= f64::from(d.radius_px)), "{near:?}");
            }
        }
        assert!(disks.iter().all(|d| full.contains(&Point::new(d.position().x, d.position().y.round()))));
    }
}
