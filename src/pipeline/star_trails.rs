//! Star trails: with their common vector known, all of a frame are found, down to where noise alone would make them.
//!
//! Method: docs/algorithm.md, "Stars that trail".

mod free_ends;

use self::free_ends::{is_whole, measured};
use crate::Result;
use crate::backend::Backend;
use crate::geometry::{Point, Segment};
use crate::pipeline::background::{self, BackgroundMap};
use crate::pipeline::believed::Believed;
use crate::pipeline::ends::KnownStars;
use crate::pipeline::in_line;
use crate::pipeline::measure::{FitSettings, Shape, Trail, TrailFit, UNCLIPPED_SIGMAS};
use crate::pipeline::psf::{PsfKernel, effective_sigma, optical_sigma};
use crate::pipeline::saturated::SaturatedSource;
use crate::pipeline::strip::{Doubt, Peaks, Source, Strip};
use crate::pipeline::tracking::{self, MeasuredTrail, StarMotion};
use crate::pipeline::turns::again;
use crate::pipeline::weigh::Footprint;
use crate::pipeline::wings::{self, Wings};

/// Stars of this S/N and more tell the common vector, the PSF width and how well the model holds.
const BRIGHT_SNR: f64 = 15.0;

/// Stars are taken out down to this S/N: in white noise a frame of a million pixels has some four such places, and
/// what is left of fainter stars stays below the noise of a point.
const LEAST_SNR: f64 = 4.0;

/// From this S/N on a trail's own ends say more than the common vector. What is reported is measured that way.
pub(crate) const FREE_SNR: f64 = 15.0;

/// Stars of this S/N and more tell how well the model holds.
const TELLING_SNR: f64 = 40.0;

/// Part of its light by which a model may be wrong where that could not be measured, and at least: the PSF is sampled,
/// and no Gaussian.
const MODEL_ERROR: f64 = 0.05;
const LEAST_MODEL_ERROR: f64 = 0.02;

/// A star whose peak reaches this share of a full pixel may have spilled some of its charge.
const FULL_SHARE: f64 = 0.8;

/// Around saturated trails so many PSF widths are left out, and along the column no more than this.
const SPOILED_SIGMAS: f64 = 4.0;
const MOST_SPILL_PX: f64 = 300.0;

/// Where more than this part of the stars touch targets, only the others tell the vector.
const MANY_TOUCHED: f64 = 0.05;

/// Rounds in which stars are found, at most: the brightest of every neighbourhood first.
const MOST_ROUNDS: usize = 60;

/// Stars nearer to each other than this many PSF widths beyond their ends are not believed in one round.
const APART_SIGMAS: f64 = 4.0;

/// How often every star is placed anew with the others taken out.
const PLACE_ROUNDS: usize = 2;

/// The PSF width may differ from the frame's by this factor: as in the merge stage.
const WIDTH_FREEDOM: f64 = 1.08;

/// Wider limits where the PSF is measured.
const WIDTH_RANGE: (f64, f64) = (0.4, 2.5);

/// Light whose doubt is this many times the noise of a point hides what lies behind: such pixels get weight zero while
/// streaks are looked for.
const HIDING_DOUBT: f64 = 2.0;

/// What is known of a frame before its stars are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) psf_sigma_px: f64,
    /// It was given: the stars need not tell it.
    pub(crate) psf_is_given: bool,
    pub(crate) photon_variance: f64,
    pub(crate) clip_sigmas: f64,
    /// Value from which on a pixel is full.
    pub(crate) saturation: Option<f64>,
}

/// The stars of a frame. Their models have been taken out of the residual image.
#[derive(Debug, Clone)]
pub(crate) struct StarTrails {
    pub(crate) motion: StarMotion,
    pub(crate) psf_sigma_px: f64,
    /// Stars whose width told the PSF's; 0 where none did.
    pub(crate) n_widths: usize,
    pub(crate) doubt: Doubt,
    /// See [`StarMotion::spread_px`].
    pub(crate) spread_px: f64,
    /// Scatter of the S/N of star trails where none has been found, which is one in white noise.
    pub(crate) scatter: f64,
    pub(crate) trails: Vec<Believed>,
    /// The wings of bright ones.
    pub(crate) wings: Vec<Wings>,
}

/// Finds the bright stars, learns from them, and measures the sky again without them.
pub(crate) fn find_bright(
    backend: &mut dyn Backend,
    sky: &mut BackgroundMap,
    setting: &Setting,
    motion: StarMotion,
    saturated: &[SaturatedSource],
) -> Result<StarTrails> {
    let mut found = StarTrails {
        motion,
        psf_sigma_px: setting.psf_sigma_px,
        n_widths: 0,
        doubt: Doubt { photon_variance: setting.photon_variance, model_error: MODEL_ERROR },
        spread_px: 0.0,
        scatter: 1.0,
        trails: Vec::new(),
        wings: Vec::new(),
    };
    let (bright, points) = found.search(backend, setting, BRIGHT_SNR, &[])?;
    backend.add_trails(&bright.iter().map(|f| f.trail).collect::<Vec<_>>(), -1.0)?;
    found.learn(backend, setting, &bright)?;
    found.trails = found.fit_ends(backend, setting, bright, &points, &[])?;
    let saturated = saturated.iter().filter_map(|source| source.as_star(&found.motion, found.sigma()));
    let bright: Vec<Believed> = found.trails.iter().copied().chain(saturated).collect();
    found.wings = wings::find(backend, &bright, |star| found.doubtful(star).is_some(), found.sigma())?;
    let kernel = PsfKernel::new(found.psf_sigma_px);
    backend.filter(&kernel, setting.clip_sigmas as f32, false)?;
    if let Some(again) = background::measure_again(backend, sky, true)? {
        *sky = again;
    }
    Ok(found)
}

impl StarTrails {
    /// Finds all stars, the light as it is, with what the bright ones have taught. What has been taken out besides may have
    /// been a part of those that touch it.
    pub(crate) fn find_all(&mut self, backend: &mut dyn Backend, setting: &Setting, without: &[Trail]) -> Result<()> {
        self.refine(setting, without);
        let touches = |star: &Segment| without.iter().any(|t| self.touch(star, &t.segment));
        let known: Vec<TrailFit> =
            self.trails.iter().map(|b| b.fit).filter(|f| f.snr >= FREE_SNR && !touches(&f.trail.segment)).collect();
        let (all, points) = self.search(backend, setting, LEAST_SNR, &known)?;
        backend.add_trails(&all.iter().map(|f| f.trail).collect::<Vec<_>>(), -1.0)?;
        // A point that outshines the stars beside it draws all of them along: it is out while they are fitted.
        let (bright, faint): (Vec<TrailFit>, Vec<TrailFit>) = points.into_iter().partition(|p| p.snr >= TELLING_SNR);
        let (bright, other) = self.take_out_points(backend, bright)?;
        let without = [without, &bright].concat();
        self.trails = self.fit_ends(backend, setting, all, &[faint, other].concat(), &without)?;
        backend.add_trails(&bright, 1.0)?;
        for star in &mut self.trails {
            star.is_part_of_wings = self.wings.iter().any(|wings| wings.hold(star));
        }
        Ok(())
    }

    /// How well single stars keep to the vector; and the vector, where targets have drawn along some that told it.
    fn refine(&mut self, setting: &Setting, targets: &[Trail]) {
        let is_touched = |star: &Believed| targets.iter().any(|t| self.touch(&star.trail().segment, &t.segment));
        let tells = |star: &&Believed| star.fit.snr >= FREE_SNR && star.fit.converged && is_whole(&star.fit, setting);
        let (touched, others): (Vec<&Believed>, Vec<&Believed>) =
            self.trails.iter().filter(tells).partition(|star| is_touched(star));
        let told: Vec<MeasuredTrail> = others.into_iter().filter_map(|star| self.measured(star)).collect();
        if touched.len() as f64 > MANY_TOUCHED * told.len() as f64 {
            self.motion = self.motion.refined(&told);
        }
        self.spread_px = self.motion.spread_px(&told);
    }

    /// Share of the frame's pixels that the stars' trails cover, each as wide as a Gaussian of its height would be.
    pub(crate) fn covered(&self, setting: &Setting) -> f64 {
        let width_px = std::f64::consts::TAU.sqrt() * self.sigma();
        let lit_px2 = self.trails.len() as f64 * self.motion.length_px * width_px;
        lit_px2 / (setting.width * setting.height) as f64
    }

    /// As far as other trails on them are concerned, which were out when the stars were found.
    pub(crate) fn known(&self, without: Vec<Trail>) -> KnownStars {
        KnownStars { fits: self.trails.iter().map(|star| star.fit).collect(), doubt: self.doubt, without }
    }

    pub(crate) fn sigma(&self) -> f64 {
        effective_sigma(self.psf_sigma_px)
    }

    /// Trails of the common vector, the light as it is; and points, which have no length.
    fn search(
        &mut self,
        backend: &mut dyn Backend,
        setting: &Setting,
        least_snr: f64,
        known: &[TrailFit],
    ) -> Result<(Vec<TrailFit>, Vec<TrailFit>)> {
        let mut strip = Strip::over_frame(backend, setting.width, setting.height, self.sigma(), &self.motion)?;
        let doubt = self.doubt.among_blends();
        // What has been fitted is not placed anew: the strip's grid is coarser.
        let known: Vec<Source> = known.iter().map(|f| Source { snr: f.snr, ..strip.source(&f.trail) }).collect();
        known.iter().for_each(|s| strip.add(s, -1.0));
        let n_known = known.len();
        let mut sources = known;
        take_out(&mut strip, least_snr.max(BRIGHT_SNR), &doubt, &mut sources);
        place_again(&mut strip, least_snr.max(BRIGHT_SNR), &doubt, &mut sources, n_known);
        if least_snr < BRIGHT_SNR {
            // Unresolved stars, hot pixels and the like scatter as well.
            let scatter = strip.scatter().max(1.0);
            let least_snr = least_snr * scatter;
            for _ in 0..PLACE_ROUNDS {
                take_out(&mut strip, least_snr, &doubt, &mut sources);
                place_again(&mut strip, least_snr, &doubt, &mut sources, n_known);
                in_line::part(&mut strip, &doubt, scatter, &mut sources);
            }
        }
        self.scatter = strip.scatter();
        let sigma_eff_px = self.sigma();
        let trail = |s: &Source| Trail { segment: strip.segment(s), flux: s.flux(), background: 0.0, sigma_eff_px };
        let (stars, points): (Vec<Source>, Vec<Source>) = sources.into_iter().partition(|s| s.length_px > 0.0);
        let unfitted = |sources: Vec<Source>| -> Vec<TrailFit> {
            sources.iter().map(|s| TrailFit { snr: s.snr, ..TrailFit::unfitted(trail(s)) }).collect()
        };
        Ok((unfitted(stars), unfitted(points)))
    }

    /// What the bright stars tell: the vector, the PSF width, and how well the model holds. They have been taken out.
    fn learn(&mut self, backend: &mut dyn Backend, setting: &Setting, stars: &[TrailFit]) -> Result<()> {
        let sigma = self.sigma();
        let range = (WIDTH_RANGE.0 * sigma, WIDTH_RANGE.1 * sigma);
        let settings = FitSettings { free_background: true, ..self.settings(range) };
        let fits = backend.fit(&stars.iter().map(again).collect::<Vec<_>>(), &settings)?;
        let whole = |f: &&TrailFit| f.converged && is_whole(f, setting);
        let whole: Vec<&TrailFit> = fits.iter().filter(whole).collect();
        let measured: Vec<MeasuredTrail> = whole.iter().filter_map(|f| measured(f, &settings)).collect();
        self.motion = self.motion.refined(&measured);
        let motion = self.motion;
        let is_star = |f: &&&TrailFit| tracking::agrees(&f.trail.segment, 0.0, &motion);
        let mut widths: Vec<f64> = whole.iter().filter(is_star).map(|f| f.trail.sigma_eff_px).collect();
        let median = |values: &mut Vec<f64>| {
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let mut errors: Vec<f64> = whole
            .iter()
            .filter(is_star)
            .filter(|f| f.snr > TELLING_SNR)
            .map(|f| (f.misfit(&settings) * f.n_pixels).sqrt() / f.snr)
            .collect();
        if let Some(error) = median(&mut errors) {
            self.doubt.model_error = error.max(LEAST_MODEL_ERROR);
        }
        if let Some(width) = median(&mut widths).filter(|_| !setting.psf_is_given) {
            (self.psf_sigma_px, self.n_widths) = (optical_sigma(width), widths.len());
        }
        Ok(())
    }

    fn settings(&self, sigma_range: (f64, f64)) -> FitSettings {
        FitSettings {
            shape: Shape::Trail,
            free_background: false,
            free_sigma: true,
            sigma_range,
            sigma_prior: None,
            reach_px: 5.0 * self.sigma() + 2.0,
            photon_variance: self.doubt.photon_variance,
            clip_sigmas: UNCLIPPED_SIGMAS,
            max_iterations: 40,
        }
    }

    /// The pixels that saturated stars spoil, spilled charge along their columns included.
    pub(crate) fn spoiled(&self, saturation: Option<f64>) -> Vec<Footprint> {
        let Some(full) = saturation else { return Vec::new() };
        let sigma = self.sigma();
        let radius_px = SPOILED_SIGMAS * sigma;
        let spoiled = |b: &Believed| -> Vec<Footprint> {
            let (segment, flux) = (b.trail().segment, b.trail().flux);
            let length = segment.length_px();
            if flux < FULL_SHARE * full * length * std::f64::consts::TAU.sqrt() * sigma {
                return Vec::new();
            }
            // What a column has received fills so many of its pixels.
            let columns = (segment.start.x - segment.end.x).abs() + 2.0 * sigma;
            let reach = (0.5 * flux / columns / full).min(MOST_SPILL_PX);
            let down = (reach / radius_px).ceil() as i32;
            let column = |f: Footprint| (-down..=down).map(move |k| Footprint { y: f.y + k as f32 * f.radius_px, ..f });
            Footprint::around(&segment, radius_px).flat_map(column).collect()
        };
        self.trails.iter().flat_map(spoiled).collect()
    }

    /// The pixels where the doubt about the stars' light exceeds the noise by far, or where a bright one's wings do.
    pub(crate) fn hidden(&self) -> Vec<Footprint> {
        let doubtful = self.trails.iter().filter_map(|b| self.doubtful(b));
        let of_doubt = doubtful.flat_map(|(segment, radius_px)| Footprint::around(&segment, radius_px));
        of_doubt.chain(self.wings.iter().flat_map(Wings::footprints)).collect()
    }

    /// Where the doubt about a star's light exceeds the noise by far: so many px around its trail.
    fn doubtful(&self, star: &Believed) -> Option<(Segment, f64)> {
        let (sigma, segment) = (self.sigma(), star.trail().segment);
        let of_point = self.doubt.model_error
            * star.fit.snr
            * (2.0 * std::f64::consts::PI.sqrt() * sigma / segment.length_px()).sqrt();
        let ratio = of_point / HIDING_DOUBT;
        (ratio > 1.0).then(|| (segment, sigma * (2.0 * ratio.ln()).sqrt() + 1.0))
    }
}

/// The noise of a point's S/N behind trails' light: its photons, and what their models may leave.
pub(crate) fn noise_of_light(trails: impl Iterator<Item = Trail>, place: Point, sky_noise: f64, doubt: &Doubt) -> f64 {
    let (mut light, mut error2) = (0.0, 0.0);
    for trail in trails {
        let sigma = trail.sigma_eff_px;
        let apart = trail.segment.distance_to(place) / sigma;
        if apart < 5.0 {
            // Over a point's width the light of a trail is that on a line √2 as wide.
            let density = trail.flux.abs() / trail.segment.length_px().max(sigma);
            let here = density * (-0.25 * apart * apart).exp() / (2.0 * std::f64::consts::PI.sqrt() * sigma);
            light += here;
            error2 += (doubt.model_error * here * 2.0 * std::f64::consts::PI.sqrt() * sigma / sky_noise).powi(2);
        }
    }
    (1.0 + doubt.photon_variance * light / sky_noise.powi(2) + error2).sqrt()
}

/// Takes stars out of a strip, the brightest of every neighbourhood first, and points that would pass for stars.
fn take_out(strip: &mut Strip, least_snr: f64, doubt: &Doubt, sources: &mut Vec<Source>) {
    let apart = APART_SIGMAS * strip.sigma_px;
    let mut places = Peaks::new(least_snr, *doubt);
    for _ in 0..MOST_ROUNDS {
        let mut peaks = places.of(strip);
        peaks.sort_by(|a, b| {
            b.snr.total_cmp(&a.snr).then(a.across_px.total_cmp(&b.across_px)).then(a.begin_px.total_cmp(&b.begin_px))
        });
        let mut taken: Vec<Source> = Vec::new();
        for peak in peaks {
            let is_near = |t: &Source| {
                (t.across_px - peak.across_px).abs() < apart
                    && (t.begin_px - peak.begin_px).abs() < strip.star_px + apart
            };
            if !taken.iter().any(is_near) {
                taken.push(peak);
            }
        }
        if taken.is_empty() {
            return;
        }
        strip.slab_by_slab(&mut taken, |strip, source| {
            let point = strip.best_point_on(source, doubt).filter(|p| p.snr > source.snr);
            *source = point.unwrap_or(*source);
            strip.add(source, -1.0);
        });
        sources.extend(taken);
    }
}

/// Places every star anew with the others taken out; leaves out those that the others explain.
fn place_again(strip: &mut Strip, least_snr: f64, doubt: &Doubt, sources: &mut Vec<Source>, n_known: usize) {
    for _ in 0..PLACE_ROUNDS {
        strip.slab_by_slab(&mut sources[n_known..], |strip, source| {
            if source.length_px > 0.0 {
                strip.add(source, 1.0);
                match strip.best_near(source, doubt).filter(|s| s.snr >= KEEPS * least_snr) {
                    Some(better) => *source = better,
                    None => source.density = 0.0,
                }
                strip.add(source, -1.0);
            }
        });
        sources.retain(|s| s.density > 0.0);
    }
}

/// A star found at the least S/N may lose a little of it to its neighbours.
const KEEPS: f64 = 0.9;
