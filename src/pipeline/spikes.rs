//! Bright stars, and the lines they make: is one the diffraction spike of a star? Spikes come in pairs, one on either side.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::geometry::{Point, Segment};

/// A star that could have made a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BrightStar {
    pub(crate) position: Point,
    /// Radius of its footprint, px.
    pub(crate) radius_px: f64,
    /// S/N as a point source; of a saturated one a lower limit.
    pub(crate) snr: f64,
    pub(crate) saturated: bool,
    /// Not round: charge that has spilled over, or a saturated streak. It explains lines along its column alone.
    pub(crate) elongated: bool,
}

/// Spikes, ghosts and wings hold no more than this part of a star's S/N.
const STAR_LEAVES: f64 = 0.05;

impl BrightStar {
    /// Whether it is bright enough to leave a line of this S/N.
    pub(crate) fn could_leave(&self, snr: f64) -> bool {
        self.saturated || snr < STAR_LEAVES * self.snr
    }
}

/// A spike has at least this part of the other one's light per length.
const LEAST_OF_TWIN: f64 = 0.5;

/// Standard errors by which what is in its place must lie below that.
const BELOW_BY: f64 = 3.0;

/// So much of its place must be usable, compared with that of the line.
const LEAST_USABLE: f64 = 0.5;

/// A line through a bright star that starts beside it, or is centred on it.
pub(crate) fn is_spike(s: &Segment, star: &BrightStar, psf: f64) -> bool {
    let (u, v) = s.along_across(star.position);
    let length = s.length_px();
    let beside = u > -2.0 * star.radius_px - 4.0 * psf && u < length + 2.0 * star.radius_px + 4.0 * psf;
    let outside = u < 0.15 * length || u > 0.85 * length;
    // No spike is much longer than its star is wide.
    let in_proportion = length < 10.0 * star.radius_px;
    v.abs() < 2.0 * psf && beside && in_proportion && (is_centred(s, star) || outside)
}

fn is_centred(s: &Segment, star: &BrightStar) -> bool {
    let (length, u) = (s.length_px(), s.along_across(star.position).0);
    (u - 0.5 * length).abs() < 0.2 * length
}

/// Whether each of some lines, with its S/N and the light along it, looks like the spike of a star on whose other side it is
/// dark. All trails are in the residual image.
pub(crate) fn without_twin(
    backend: &mut dyn Backend,
    lines: &[(Segment, f64, &TrackProfile)],
    stars: &[BrightStar],
    psf: f64,
) -> Result<Vec<bool>> {
    let twins: Vec<Vec<Segment>> = lines.iter().map(|(s, snr, _)| twins(s, *snr, stars, psf)).collect();
    let of_all: Vec<Segment> = twins.iter().flatten().copied().collect();
    let mut profiles = backend.profiles(&of_all, psf as f32)?.into_iter();
    let all_dark = |((_, _, line), twins): (&(Segment, f64, &TrackProfile), &Vec<Segment>)| {
        let dark = profiles.by_ref().take(twins.len()).filter(|twin| is_dark(twin, line)).count();
        dark > 0 && dark == twins.len()
    };
    Ok(lines.iter().zip(&twins).map(all_dark).collect())
}

/// Where the other spikes lie if a line is one; none where it is centred on a star, and may be both.
fn twins(s: &Segment, snr: f64, stars: &[BrightStar], psf: f64) -> Vec<Segment> {
    let of_stars: Vec<&BrightStar> =
        stars.iter().filter(|star| !star.elongated && star.could_leave(snr) && is_spike(s, star, psf)).collect();
    if of_stars.iter().any(|star| is_centred(s, star)) {
        return Vec::new();
    }
    let beyond = |star: &&BrightStar| {
        // The star may lie a little off the line: its spikes are the line.
        let middle = s.at(s.along_across(star.position).0 / s.length_px());
        let mirrored = |p: Point| Point::new(2.0 * middle.x - p.x, 2.0 * middle.y - p.y);
        Segment::new(mirrored(s.start), mirrored(s.end))
    };
    of_stars.iter().map(beyond).collect()
}

/// Far less light than along a line.
fn is_dark(twin: &TrackProfile, line: &TrackProfile) -> bool {
    let ((light, weight), (light_of_line, weight_of_line)) = (twin.sums(), line.sums());
    let least = LEAST_OF_TWIN * light_of_line / weight_of_line.max(1e-20);
    weight > LEAST_USABLE * weight_of_line && light + BELOW_BY * weight.sqrt() < least * weight
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::pipeline::background::{self, Mesh};
    use crate::{Frame, simulate};

    const SIGMA: f64 = 1.5;
    const LINE: Segment = Segment::new(Point::new(112.0, 74.0), Point::new(160.0, 98.0));
    const STAR: BrightStar = BrightStar {
        position: Point::new(100.0, 68.0),
        radius_px: 10.0,
        snr: 2000.0,
        saturated: false,
        elongated: false,
    };

    /// Whether a line of this light per length is dark behind some stars, with so much of its light on the other side of the
    /// first, and values left out there or not.
    fn is_dark_behind(stars: &[BrightStar], per_px: f64, twin: f64, is_masked: bool) -> bool {
        let (width, height) = (220, 150);
        let mut pixels = simulate::gaussian_frame(width, height, 5, 1.0);
        let flux = per_px * LINE.length_px();
        simulate::add_streak(&mut pixels, width, &LINE, SIGMA, flux);
        let other = twins(&LINE, 10.0, &stars[..1], SIGMA).first().copied().unwrap_or(LINE);
        simulate::add_streak(&mut pixels, width, &other, SIGMA, twin * flux);
        if is_masked {
            pixels.iter_mut().enumerate().filter(|(i, _)| i % width < 80).for_each(|(_, v)| *v = f32::NAN);
        }
        let mut backend = CpuBackend::default();
        backend.prepare(width, height).unwrap();
        backend.ingest(&Frame::new(&pixels, width, height).unwrap()).unwrap();
        background::draw_map(&mut backend, Mesh::new(width, height, 64)).unwrap().unwrap();
        let profile = backend.profiles(&[LINE], SIGMA as f32).unwrap().remove(0);
        without_twin(&mut backend, &[(LINE, 10.0, &profile)], stars, SIGMA).unwrap()[0]
    }

    #[test]
    fn a_spike_has_a_twin() {
        assert!(is_dark_behind(&[STAR], 1.5, 0.0, false));
        assert!(!is_dark_behind(&[STAR], 1.5, 1.0, false), "as bright");
        assert!(!is_dark_behind(&[STAR], 1.5, 0.6, false), "nearly so");
        assert!(!is_dark_behind(&[STAR], 1.5, 0.0, true), "nothing is seen there");
        assert!(!is_dark_behind(&[STAR], 0.3, 0.0, false), "too faint to tell");
        let (c, s) = LINE.direction();
        let beside = BrightStar { position: Point::new(100.0 - 2.5 * s, 68.0 + 2.5 * c), ..STAR };
        assert!(
            is_dark_behind(&[beside], 1.5, 0.0, false) && !is_dark_behind(&[beside], 1.5, 1.0, false),
            "off the line"
        );
    }

    #[test]
    fn one_star_with_a_twin_is_enough() {
        let behind = BrightStar { position: Point::new(172.0, 104.0), ..STAR };
        assert!(is_dark_behind(&[STAR, behind], 1.5, 0.0, false));
        assert!(!is_dark_behind(&[STAR, behind], 1.5, 1.0, false));
        let on_it = BrightStar { position: LINE.midpoint(), ..STAR };
        assert!(!is_dark_behind(&[STAR, on_it], 1.5, 0.0, false), "both spikes");
        assert!(!is_dark_behind(&[BrightStar { snr: 100.0, ..STAR }], 1.5, 0.0, false), "no spike in any case");
    }
}
