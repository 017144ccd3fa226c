//! The light of a galaxy: an elliptical disk whose brightness falls off exponentially, blurred by the PSF.

use crate::geometry::Point;
use crate::pipeline::measure::{MOST_STOP_DAMPING, N_PARAMETERS, Trail, invert};

/// Gaussians whose sum is `e^(−r) / 2π` but for 0.014 % of its S/N²: share of the flux, and variance along each axis in
/// squared scale lengths. (Least squares over the plane; the idea is that of Hogg & Lang 2013, PASP 125, 719.)
const GAUSSIANS: [(f64, f64); 4] = [(0.0227, 0.0907), (0.1662, 0.5161), (0.4764, 1.8936), (0.3347, 5.7853)];

/// Variance of the disk's light along each axis, in squared scale lengths.
const DISK_VARIANCE: f64 = 3.0;

/// No disk is narrower when its fit begins: from nothing the width could not grow. In squared px.
const LEAST_START: f64 = 0.1;

const MOST_STEPS: usize = 30;

/// A step that promises less, or gains less, in χ², is the last.
const STOP_DELTA_CHI2: f64 = 0.01;

/// One pixel of what is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pixel {
    pub(crate) place: Point,
    pub(crate) value: f64,
    /// Inverse variance.
    pub(crate) weight: f64,
}

impl Pixel {
    /// Adds the noise of some light's own photons.
    pub(crate) fn add_photons(&mut self, light: f64, photon_variance: f64) {
        self.weight = 1.0 / (1.0 / self.weight + photon_variance * light.max(0.0));
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Disk {
    flux: f64,
    centre: Point,
    /// `xx`, `xy` and `yy` of the lower triangular root of its shape: squared scale lengths along the axes of the frame.
    root: [f64; 3],
    background: f64,
    /// Seen from its edge: its short axis has no length, and keeps none.
    is_edge_on: bool,
}

/// A disk that was fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DiskFit {
    pub(crate) disk: Disk,
    pub(crate) chi2: f64,
}

impl Disk {
    /// With the flux, middle and spread of some trails.
    pub(crate) fn like(trails: &[Trail], psf_sigma_px: f64) -> Self {
        let bright = || trails.iter().filter(|t| t.flux > 0.0);
        let flux: f64 = bright().map(|t| t.flux).sum();
        let mean = |value: &dyn Fn(&Trail) -> f64| bright().map(|t| t.flux * value(t)).sum::<f64>() / flux;
        let centre = Point::new(mean(&|t| t.segment.midpoint().x), mean(&|t| t.segment.midpoint().y));
        let moment = |of: &dyn Fn(Point, (f64, f64)) -> f64, width: f64| {
            mean(&|t| {
                let (middle, (c, s)) = (t.segment.midpoint(), t.segment.direction());
                let half = 0.5 * t.segment.length_px() / 3.0_f64.sqrt();
                of(Point::new(middle.x - centre.x, middle.y - centre.y), (half * c, half * s))
                    + width * (t.sigma_eff_px.powi(2) - psf_sigma_px.powi(2))
            }) / DISK_VARIANCE
        };
        let xx = moment(&|off, half| off.x * off.x + half.0 * half.0, 1.0).max(LEAST_START);
        let yy = moment(&|off, half| off.y * off.y + half.1 * half.1, 1.0).max(LEAST_START);
        let xy = moment(&|off, half| off.x * off.y + half.0 * half.1, 0.0);
        let of_x = xx.sqrt();
        let root = [of_x, xy / of_x, (yy - xy * xy / xx).max(LEAST_START).sqrt()];
        Self { flux, centre, root, background: 0.0, is_edge_on: false }
    }

    /// The same seen from its edge: its long axis alone.
    pub(crate) fn edge_on(self) -> Self {
        let [p, q, r] = self.root;
        let (xx, xy, yy) = (p * p, p * q, q * q + r * r);
        let (mean, half) = (0.5 * (xx + yy), (0.25 * (xx - yy).powi(2) + xy * xy).sqrt());
        let (sin, cos) = (0.5 * (2.0 * xy).atan2(xx - yy)).sin_cos();
        let long_px = (mean + half).sqrt();
        Self { root: [long_px * cos, long_px * sin, 0.0], is_edge_on: true, ..self }
    }

    /// Light at a place with its derivatives by flux, centre, root and background.
    fn sample(&self, place: Point, psf_sigma_px: f64) -> (f64, [f64; N_PARAMETERS]) {
        let [p, q, r] = self.root;
        let (dx, dy) = (place.x - self.centre.x, place.y - self.centre.y);
        let psf = psf_sigma_px * psf_sigma_px;
        let mut light = 0.0;
        let mut d = [0.0; N_PARAMETERS];
        for (share, variance) in GAUSSIANS {
            let (xx, xy, yy) = (variance * p * p + psf, variance * p * q, variance * (q * q + r * r) + psf);
            let det = xx * yy - xy * xy;
            let (ix, ixy, iy) = (yy / det, -xy / det, xx / det);
            let (ux, uy) = (ix * dx + ixy * dy, ixy * dx + iy * dy);
            let per_flux = share * (-0.5 * (dx * ux + dy * uy)).exp() / (std::f64::consts::TAU * det.sqrt());
            let g = self.flux * per_flux;
            light += g;
            d[0] += per_flux;
            d[1] += g * ux;
            d[2] += g * uy;
            // By the elements of the Gaussian's covariance: ½ (u uᵀ − Σ⁻¹).
            let [kx, kxy, ky] = [ux * ux - ix, ux * uy - ixy, uy * uy - iy].map(|k| 0.5 * g * variance * k);
            d[3] += 2.0 * (p * kx + q * kxy);
            d[4] += 2.0 * (p * kxy + q * ky);
            d[5] += 2.0 * r * ky;
        }
        d[6] = 1.0;
        (light + self.background, d)
    }

    pub(crate) fn chi2(&self, pixels: &[Pixel], psf_sigma_px: f64) -> f64 {
        let off = |pixel: &Pixel| pixel.value - self.sample(pixel.place, psf_sigma_px).0;
        pixels.iter().map(|pixel| pixel.weight * off(pixel).powi(2)).sum()
    }

    fn moved(&self, by: &[f64; N_PARAMETERS]) -> Self {
        let [flux, x, y, p, q, r, background] = *by;
        Self {
            flux: self.flux + flux,
            centre: Point::new(self.centre.x + x, self.centre.y + y),
            root: [self.root[0] + p, self.root[1] + q, self.root[2] + r],
            background: self.background + background,
            is_edge_on: self.is_edge_on,
        }
    }

    /// The disk that fits best (Levenberg & Marquardt).
    pub(crate) fn fitted(mut self, pixels: &[Pixel], psf_sigma_px: f64) -> DiskFit {
        let mut chi2 = self.chi2(pixels, psf_sigma_px);
        let mut damping = 1e-3;
        for _ in 0..MOST_STEPS {
            let mut normal = [[0.0; N_PARAMETERS]; N_PARAMETERS];
            let mut gradient = [0.0; N_PARAMETERS];
            for pixel in pixels.iter().filter(|p| p.weight > 0.0) {
                let (light, d) = self.sample(pixel.place, psf_sigma_px);
                let off = pixel.weight * (pixel.value - light);
                for i in 0..N_PARAMETERS {
                    gradient[i] += off * d[i];
                    for j in 0..N_PARAMETERS {
                        normal[i][j] += pixel.weight * d[i] * d[j];
                    }
                }
            }
            if self.is_edge_on {
                // Its derivative by the short axis is zero.
                normal[5][5] = 1.0;
            }
            for (i, row) in normal.iter_mut().enumerate() {
                row[i] *= 1.0 + damping;
            }
            let Some(inverse) = invert(&normal) else { break };
            let step: [f64; N_PARAMETERS] =
                std::array::from_fn(|i| (0..N_PARAMETERS).map(|j| inverse[i][j] * gradient[j]).sum());
            let promised: f64 = step.iter().zip(&gradient).map(|(s, g)| s * g).sum();
            let next = self.moved(&step);
            let of_next = next.chi2(pixels, psf_sigma_px);
            let gain = chi2 - of_next;
            // A step that is damped much promises little wherever it starts.
            let is_told = damping < MOST_STOP_DAMPING;
            if gain > 0.0 {
                (self, chi2) = (next, of_next);
                damping *= 0.1;
            } else {
                damping *= 10.0;
            }
            if is_told && (promised < STOP_DELTA_CHI2 || (0.0..STOP_DELTA_CHI2).contains(&gain)) {
                break;
            }
        }
        DiskFit { disk: self, chi2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Segment;

    const PSF: f64 = 1.5;

    fn disk(scale_px: f64, axis_ratio: f64, angle_rad: f64) -> Disk {
        let (s, c) = angle_rad.sin_cos();
        let (a2, b2) = (scale_px * scale_px, (scale_px * axis_ratio).powi(2));
        let (xx, xy, yy) = (a2 * c * c + b2 * s * s, (a2 - b2) * c * s, a2 * s * s + b2 * c * c);
        let p = xx.sqrt();
        let root = [p, xy / p, (yy - xy * xy / xx).sqrt()];
        Disk { flux: 900.0, centre: Point::new(20.3, 18.6), root, background: 0.2, is_edge_on: false }
    }

    /// Light on a grid of so many pixels each way.
    fn pixels(n: usize, light: impl Fn(Point) -> f64) -> Vec<Pixel> {
        let place = |i: usize| Point::new((i % n) as f64, (i / n) as f64);
        (0..n * n).map(|i| Pixel { place: place(i), value: light(place(i)), weight: 1.0 }).collect()
    }

    #[test]
    fn the_gaussians_are_an_exponential() {
        let sum = |r: f64| -> f64 {
            let gaussian = |(share, v): (f64, f64)| share * (-0.5 * r * r / v).exp() / (std::f64::consts::TAU * v);
            GAUSSIANS.into_iter().map(gaussian).sum()
        };
        let (mut lost, mut all) = (0.0, 0.0);
        for k in 0..2000 {
            let r = 0.005 * (f64::from(k) + 0.5);
            let exponential = (-r).exp() / std::f64::consts::TAU;
            lost += r * (sum(r) - exponential).powi(2);
            all += r * exponential.powi(2);
        }
        assert!(lost / all < 2e-4, "{}", lost / all);
    }

    #[test]
    fn derivatives_are_those_of_the_light() {
        let disk = disk(4.0, 0.3, 0.4);
        let place = Point::new(23.0, 19.0);
        let (_, d) = disk.sample(place, PSF);
        for (i, d) in d.into_iter().enumerate() {
            let moved = |by: f64| disk.moved(&std::array::from_fn(|j| if i == j { by } else { 0.0 }));
            let light = |by: f64| moved(by).sample(place, PSF).0;
            let numeric = (light(1e-4) - light(-1e-4)) / 2e-4;
            assert!((d - numeric).abs() < 1e-5 * (1.0 + numeric.abs()), "{i}: {d} {numeric}");
        }
    }

    #[test]
    fn a_disk_is_found_from_a_trail_through_it() {
        let truth = disk(4.0, 0.3, 0.4);
        let pixels = pixels(40, |p| truth.sample(p, PSF).0);
        let segment = Segment::around(Point::new(20.0, 19.0), 15.0, 0.4);
        let start = Disk::like(&[Trail { segment, flux: 700.0, background: 0.0, sigma_eff_px: 2.0 }], PSF);
        let fit = start.fitted(&pixels, PSF);
        assert!(fit.chi2 < 1e-3, "{fit:?}");
        assert!((fit.disk.flux - truth.flux).abs() < 1.0, "{fit:?}");
        assert!(fit.disk.centre.distance(truth.centre) < 0.01, "{fit:?}");
        let edge_on = start.edge_on().fitted(&pixels, PSF);
        assert_eq!(edge_on.disk.root[2], 0.0);
        assert!(edge_on.chi2 > 10.0, "{edge_on:?}");
    }

    #[test]
    fn light_may_be_nothing() {
        let start = Disk::like(&[Trail { sigma_eff_px: 2.0, flux: 0.0, ..Trail::default() }], PSF);
        let fit = start.fitted(&pixels(10, |_| 0.0), PSF);
        assert!(fit.chi2.is_nan(), "{fit:?}");
    }
}
