//! The disk of a galaxy, seen at an angle and blurred by the PSF.

/// A disk whose light falls off exponentially.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk {
    /// Centre, px.
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) scale_px: f64,
    pub(crate) axis_ratio: f64,
    pub(crate) angle_rad: f64,
    /// Matched S/N in noise that is the same everywhere.
    pub(crate) snr: f64,
}

/// Parts of its light and their widths in scale lengths: Gaussians whose sum is nearly the exponential.
const GAUSSIANS: [(f64, f64); 3] = [(0.12, 0.35), (0.43, 0.95), (0.45, 1.75)];

/// Beyond so many scale lengths and PSF widths lies a ten thousandth of the light at most.
const REACH: f64 = 8.0;

impl Disk {
    /// Light of one unit in all on a pixel.
    fn light(&self, x: f64, y: f64, psf_sigma_px: f64) -> f64 {
        let (s, c) = self.angle_rad.sin_cos();
        let (dx, dy) = (x - self.x, y - self.y);
        let (u, v) = (dx * c + dy * s, dy * c - dx * s);
        let gaussian = |(part, scales): (f64, f64)| {
            let a = (scales * self.scale_px).hypot(psf_sigma_px);
            let b = (scales * self.scale_px * self.axis_ratio).hypot(psf_sigma_px);
            part * (-0.5 * ((u / a).powi(2) + (v / b).powi(2))).exp() / (std::f64::consts::TAU * a * b)
        };
        GAUSSIANS.map(gaussian).iter().sum()
    }

    /// Adds it to an image `width` pixels wide, in units of its values' noise.
    pub(crate) fn add(&self, image: &mut [f64], width: usize, psf_sigma_px: f64) {
        let reach = REACH * (self.scale_px + psf_sigma_px);
        let range = |middle: f64, side: usize| {
            (middle - reach).max(0.0) as usize..((middle + reach).max(0.0) as usize + 1).min(side)
        };
        let (columns, rows) = (range(self.x, width), range(self.y, image.len() / width));
        let pixels: Vec<(usize, f64)> = rows
            .flat_map(|y| columns.clone().map(move |x| (x, y)))
            .map(|(x, y)| (y * width + x, self.light(x as f64, y as f64, psf_sigma_px)))
            .collect();
        let norm = pixels.iter().map(|(_, light)| light * light).sum::<f64>().sqrt();
        for (i, light) in pixels {
            image[i] += self.snr / norm * light;
        }
    }
}
