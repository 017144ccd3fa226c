//! How well a streak can be measured at best: Cramér-Rao bounds.

use super::unit_stamp;
use crate::{Error, Point, Result, Segment};

/// Pixels further away say nothing more of a background.
const MOST_REACH_PX: f64 = 1000.0;

/// Step of the central differences, px: its error is a few 10⁻⁵ of the derivative, rounding far less.
const STEP_PX: f64 = 0.01;

/// Smallest standard errors any unbiased measurement of a streak can reach.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Covariance of (flux, x1, y1, x2, y2), electrons and px. For a point source both ends are the same place.
    pub covariance: [[f64; 5]; 5],
    /// Flux, relative.
    pub flux_rel: f64,
    /// One end point along the track, px (rms of the two ends).
    pub end_along_px: f64,
    /// One end point across the track, px (rms of the two ends).
    pub end_across_px: f64,
    /// Midpoint along the track, px.
    pub mid_along_px: f64,
    /// Midpoint across the track, px.
    pub mid_across_px: f64,
    /// Length, px; infinite for a point source.
    pub length_px: f64,
    /// Angle, rad; infinite for a point source.
    pub angle_rad: f64,
    /// PSF width, px; 0 where it is known.
    pub sigma_px: f64,
}

/// What else a measurement has to find, beside flux and ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unknowns {
    /// Pixels up to this far from the segment are used, px, and the level of the background is found from them.
    pub reach_px: f64,
    /// Standard deviation of what is known of the PSF width beforehand, px; infinite where nothing is.
    pub width_spread_px: f64,
}

/// Cramér-Rao bounds of a streak in white noise, its PSF width and background known, from the Fisher information of its
/// pixels.
///
/// `flux_e` and `noise_e` (rms per pixel) share a unit: electrons, when `source_photons` adds the variance of the
/// streak's own light to that of the noise. The streak is taken to lie wholly inside the frame; its place relative to
/// the pixel grid counts. A segment of no length is measured as a point source: flux and position only.
///
/// # Errors
///
/// [`Error::Config`] when flux, width or noise is not positive, or the streak is too short to tell its ends apart.
///
/// ```
/// use skystreak::{Segment, simulate::cramer_rao};
///
/// let streak = Segment::from_coordinates(20.0, 30.0, 120.0, 60.0);
/// let faint = cramer_rao(&streak, 5_000.0, 1.5, 20.0, false)?;
/// let bright = cramer_rao(&streak, 10_000.0, 1.5, 20.0, false)?;
/// assert!((faint.mid_across_px / bright.mid_across_px - 2.0).abs() < 1e-6);
/// # Ok::<(), skystreak::Error>(())
/// ```
pub fn cramer_rao(segment: &Segment, flux_e: f64, sigma_px: f64, noise_e: f64, source_photons: bool) -> Result<Bounds> {
    bounds(segment, flux_e, sigma_px, noise_e, source_photons, None)
}

/// As [`cramer_rao`], where the PSF width and the background are unknown as well: most of all the flux is then known
/// less well.
///
/// # Errors
///
/// As [`cramer_rao`], and when the reach is not above 0 and at most 1000 px, or the spread not above 0.
///
/// ```
/// use skystreak::{Segment, simulate::{Unknowns, cramer_rao, cramer_rao_with}};
///
/// let streak = Segment::from_coordinates(20.0, 30.0, 60.0, 50.0);
/// let known = cramer_rao(&streak, 5_000.0, 1.5, 20.0, false)?;
/// let unknowns = Unknowns { reach_px: 12.0, width_spread_px: f64::INFINITY };
/// let free = cramer_rao_with(&streak, 5_000.0, 1.5, 20.0, false, unknowns)?;
/// assert!(free.flux_rel > 1.2 * known.flux_rel);
/// assert!(free.mid_across_px < 1.02 * known.mid_across_px);
/// # Ok::<(), skystreak::Error>(())
/// ```
pub fn cramer_rao_with(
    segment: &Segment,
    flux_e: f64,
    sigma_px: f64,
    noise_e: f64,
    source_photons: bool,
    unknowns: Unknowns,
) -> Result<Bounds> {
    bounds(segment, flux_e, sigma_px, noise_e, source_photons, Some(unknowns))
}

fn bounds(
    segment: &Segment,
    flux_e: f64,
    sigma_px: f64,
    noise_e: f64,
    source_photons: bool,
    unknowns: Option<Unknowns>,
) -> Result<Bounds> {
    for (name, value) in [("flux", flux_e), ("PSF width", sigma_px), ("noise", noise_e)] {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::Config(format!("Cramér-Rao bounds for a {name} of {value}: it must be positive")));
        }
    }
    if let Some(Unknowns { reach_px, width_spread_px }) = unknowns
        && !(reach_px > 0.0 && reach_px <= MOST_REACH_PX && width_spread_px > 0.0)
    {
        return Err(Error::Config(format!(
            "Cramér-Rao bounds with a reach of {reach_px} px and a width known to {width_spread_px} px: both must be positive, the reach at most {MOST_REACH_PX}"
        )));
    }
    let canvas = Canvas::around(segment, sigma_px, unknowns.map_or(0.0, |u| u.reach_px));
    let is_point = segment.length_px() == 0.0;
    let light = canvas.light(segment);
    let mut derivatives = vec![light.clone()];
    // A point source has two coordinates, which move both ends; a streak has four.
    for coordinate in 0..if is_point { 2 } else { 4 } {
        let (ahead, behind) = (displaced(segment, coordinate, STEP_PX), displaced(segment, coordinate, -STEP_PX));
        let difference = canvas.light(&ahead).into_iter().zip(canvas.light(&behind));
        derivatives.push(difference.map(|(a, b)| (a - b) / (2.0 * STEP_PX)).collect());
    }
    // The flux is varied relative to itself, which keeps the elements of the matrix comparable.
    let mut weights: Vec<f64> = light
        .iter()
        .map(|t| flux_e * flux_e / (noise_e * noise_e + if source_photons { flux_e * t } else { 0.0 }))
        .collect();
    let n_wanted = derivatives.len();
    if let Some(Unknowns { reach_px, .. }) = unknowns {
        let light_at = |width: f64| Canvas { sigma_px: width, ..canvas }.light(segment).into_iter();
        let difference = light_at(sigma_px + STEP_PX).zip(light_at(sigma_px - STEP_PX));
        derivatives.push(difference.map(|(a, b)| (a - b) / (2.0 * STEP_PX)).collect());
        derivatives.push(vec![1.0; light.len()]);
        weights
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| canvas.distance_px(*i, segment) > reach_px)
            .for_each(|w| *w.1 = 0.0);
    }
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).zip(&weights).map(|((a, b), w)| a * b * w).sum::<f64>();
    let mut information: Vec<Vec<f64>> =
        derivatives.iter().map(|a| derivatives.iter().map(|b| product(a, b)).collect()).collect();
    if let Some(Unknowns { width_spread_px, .. }) = unknowns {
        information[n_wanted][n_wanted] += width_spread_px.powi(-2);
    }
    let inverse = invert(information)
        .ok_or_else(|| Error::Config(format!("the ends of a streak of {} px cannot be told", segment.length_px())))?;

    let parameter = |i: usize| if is_point && i > 2 { i - 2 } else { i };
    let unit = |i: usize| if i == 0 { flux_e } else { 1.0 };
    let mut covariance = [[0.0; 5]; 5];
    for (i, row) in covariance.iter_mut().enumerate() {
        for (j, element) in row.iter_mut().enumerate() {
            *element = inverse[parameter(i)][parameter(j)] * unit(i) * unit(j);
        }
    }
    let sigma_px = unknowns.map_or(0.0, |_| inverse[n_wanted][n_wanted].sqrt());
    Ok(Bounds { sigma_px, ..Bounds::from_covariance(covariance, segment, flux_e) })
}

impl Bounds {
    fn from_covariance(covariance: [[f64; 5]; 5], segment: &Segment, flux_e: f64) -> Self {
        let (c, s) = segment.direction();
        let variance = |of: [f64; 4]| -> f64 {
            (0..16).map(|k| of[k / 4] * covariance[1 + k / 4][1 + k % 4] * of[k % 4]).sum::<f64>().max(0.0)
        };
        let either = |a: [f64; 4], b: [f64; 4]| (0.5 * (variance(a) + variance(b))).sqrt();
        let middle = |dx: f64, dy: f64| variance([0.5 * dx, 0.5 * dy, 0.5 * dx, 0.5 * dy]).sqrt();
        let length = segment.length_px();
        let of_streak = |error: f64| if length > 0.0 { error } else { f64::INFINITY };
        Self {
            flux_rel: covariance[0][0].sqrt() / flux_e,
            end_along_px: either([c, s, 0.0, 0.0], [0.0, 0.0, c, s]),
            end_across_px: either([-s, c, 0.0, 0.0], [0.0, 0.0, -s, c]),
            mid_along_px: middle(c, s),
            mid_across_px: middle(-s, c),
            length_px: of_streak(variance([-c, -s, c, s]).sqrt()),
            angle_rad: of_streak(variance([s, -c, -s, c]).sqrt() / length),
            sigma_px: 0.0,
            covariance,
        }
    }
}

/// A piece of sky that holds a whole streak and its displaced twins.
#[derive(Clone, Copy)]
struct Canvas {
    shift_px: (f64, f64),
    width: usize,
    height: usize,
    sigma_px: f64,
}

impl Canvas {
    fn around(segment: &Segment, sigma_px: f64, reach_px: f64) -> Self {
        let margin = (7.0 * sigma_px + 2.0).max(reach_px + 1.0);
        let span = |a: f64, b: f64| ((a.min(b) - margin).floor(), ((a - b).abs() + 2.0 * margin).ceil() as usize + 1);
        let ((x0, width), (y0, height)) = (span(segment.start.x, segment.end.x), span(segment.start.y, segment.end.y));
        Self { shift_px: (x0, y0), width, height, sigma_px }
    }

    fn distance_px(&self, i: usize, segment: &Segment) -> f64 {
        let (x, y) = ((i % self.width) as f64, (i / self.width) as f64);
        segment.distance_to(Point::new(x + self.shift_px.0, y + self.shift_px.1))
    }

    /// Light of unit flux in every pixel of the canvas.
    fn light(&self, segment: &Segment) -> Vec<f64> {
        let local = |p: Point| Point::new(p.x - self.shift_px.0, p.y - self.shift_px.1);
        let moved = Segment::new(local(segment.start), local(segment.end));
        let mut light = vec![0.0; self.width * self.height];
        for (x, y, share) in unit_stamp(&moved, self.sigma_px, self.width, self.height).pixels() {
            light[y * self.width + x] = share;
        }
        light
    }
}

/// The segment with one of (x1, y1, x2, y2) moved; a point source stays one.
fn displaced(segment: &Segment, coordinate: usize, step_px: f64) -> Segment {
    let mut moved = *segment;
    let is_point = segment.length_px() == 0.0;
    let on_x = coordinate.is_multiple_of(2);
    let shift = |p: &mut Point| *(if on_x { &mut p.x } else { &mut p.y }) += step_px;
    if coordinate < 2 {
        shift(&mut moved.start);
    }
    if coordinate >= 2 || is_point {
        shift(&mut moved.end);
    }
    moved
}

/// Inverse of a symmetric positive definite matrix by Gauss-Jordan elimination; none where it is singular.
fn invert(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let n = matrix.len();
    let largest: Vec<f64> = (0..n).map(|i| matrix[i][i]).collect();
    let mut inverse: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for pivot in 0..n {
        let scale = matrix[pivot][pivot];
        if scale.is_nan() || scale <= 1e-11 * largest[pivot] {
            return None;
        }
        for rows in [&mut matrix, &mut inverse] {
            rows[pivot].iter_mut().for_each(|v| *v /= scale);
        }
        for other in (0..n).filter(|&i| i != pivot) {
            let factor = matrix[other][pivot];
            for rows in [&mut matrix, &mut inverse] {
                let pivot_row = rows[pivot].clone();
                rows[other].iter_mut().zip(pivot_row).for_each(|(v, p)| *v -= factor * p);
            }
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    fn close(value: f64, expected: f64, tolerance: f64, what: &str) {
        assert!((value / expected - 1.0).abs() < tolerance, "{what}: {value}, expected {expected}");
    }

    #[test]
    fn long_streaks_follow_the_closed_forms() {
        for (length, sigma, degrees) in [(200.0, 1.5, 17.0), (200.0, 2.5, 90.0), (120.0, 2.0, 45.0)] {
            let segment = Segment::around(Point::new(150.3, 149.6), length, f64::to_radians(degrees));
            let norm = unit_stamp(&segment, sigma, 300, 300).norm();
            let (snr, noise) = (20.0, 17.0);
            let bounds = cramer_rao(&segment, snr * noise / norm, sigma, noise, false).unwrap();
            // Pixels widen the PSF by their own variance.
            let sigma = (sigma * sigma + 1.0 / 12.0).sqrt();
            let ends = PI.sqrt() * sigma * length;
            let shorter = (1.0 - PI.sqrt() * sigma / length).sqrt();
            for (value, expected, what) in [
                (bounds.mid_across_px, 2.0_f64.sqrt() * sigma, "across"),
                (bounds.mid_along_px, ends.sqrt(), "along"),
                (bounds.angle_rad, 24.0_f64.sqrt() * sigma / length, "angle"),
                (bounds.length_px, 2.0 * ends.sqrt() / shorter, "length"),
                (bounds.end_along_px, (2.0 * ends).sqrt(), "end"),
                (bounds.flux_rel, 1.0 / shorter, "flux"),
            ] {
                close(value * snr, expected, 0.03, what);
            }
        }
    }

    #[test]
    fn point_sources_have_a_position_and_a_flux() {
        let point = Segment::around(Point::new(10.2, 11.4), 0.0, 0.0);
        let sigma: f64 = 2.5;
        let flux = 30.0 * 4.0 / unit_stamp(&point, sigma, 40, 40).norm();
        let bounds = cramer_rao(&point, flux, sigma, 4.0, false).unwrap();
        close(bounds.mid_along_px, 2.0_f64.sqrt() * sigma / 30.0, 0.03, "position");
        close(bounds.flux_rel, 1.0 / 30.0, 0.01, "flux");
        assert!(bounds.length_px.is_infinite() && bounds.angle_rad.is_infinite());
    }

    #[test]
    fn a_free_width_and_background_cost_flux() {
        let segment = Segment::around(Point::new(150.3, 149.6), 200.0, 0.3);
        let ratio = |unknowns| {
            let free = cramer_rao_with(&segment, 5_000.0, 1.5, 20.0, false, unknowns).unwrap();
            free.flux_rel / cramer_rao(&segment, 5_000.0, 1.5, 20.0, false).unwrap().flux_rel
        };
        // A long streak is a Gaussian profile across: with a free width its flux has 3/2 of the variance.
        close(ratio(Unknowns { reach_px: 200.0, width_spread_px: f64::INFINITY }), 1.5_f64.sqrt(), 0.02, "width");
        close(ratio(Unknowns { reach_px: 200.0, width_spread_px: 1e-3 }), 1.0, 0.02, "nothing");
        // From a strip of ± r the background has 1/2r of the variance per length; flux goes with 2√π σ of it.
        let sigma = (1.5_f64 * 1.5 + 1.0 / 12.0).sqrt();
        let of_strip = |r: f64| (1.0 + 2.0 * PI.sqrt() * sigma / (2.0 * r - 2.0 * PI.sqrt() * sigma)).sqrt();
        close(ratio(Unknowns { reach_px: 30.0, width_spread_px: 1e-3 }), of_strip(30.0), 0.02, "background");
    }

    #[test]
    fn own_photons_count_when_bright() {
        let streak = Segment::from_coordinates(10.0, 10.0, 60.0, 40.0);
        let ratio = |flux: f64| {
            let with = |photons| cramer_rao(&streak, flux, 1.5, 20.0, photons).unwrap().mid_across_px;
            with(true) / with(false)
        };
        assert!(ratio(1e3) < 1.02 && ratio(1e7) > 5.0);
    }

    #[test]
    fn bad_input_is_refused() {
        let streak = Segment::from_coordinates(10.0, 10.0, 60.0, 40.0);
        for (flux, sigma, noise) in [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, f64::NAN)] {
            assert!(matches!(cramer_rao(&streak, flux, sigma, noise, true), Err(Error::Config(_))));
        }
    }
}
