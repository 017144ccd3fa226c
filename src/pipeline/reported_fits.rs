//! Measure stage: what is reported of trails among stars leaves these out, or knows that they share the light.
//!
//! Method: docs/algorithm.md, "Measure".

use crate::Result;
use crate::backend::Backend;
use crate::pipeline::believed::Believed;
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::ends::{self, EndSetting, ExpectedEnds, Stars, Subject};
use crate::pipeline::hidden;
use crate::pipeline::last_fits::LastFit;
use crate::pipeline::measure::{FitRequest, Trail, TrailFit};
use crate::pipeline::stars_on_trail;

/// What of a trail is out of the residual image while it is fitted.
pub(crate) fn taken_out(request: &FitRequest) -> Option<Trail> {
    request.subtracted.then_some(request.start)
}

/// What is reported of the trails, while they are judged by the fits to all light there is.
pub(crate) struct ReportedFits {
    pub(crate) fits: Vec<LastFit>,
    /// Where their ends are to be expected; the fits have these.
    pub(crate) ends: Vec<Option<ExpectedEnds>>,
    /// Flux of each that may be that of stars on its axis.
    pub(crate) flux_in_doubt: Vec<f64>,
}

/// Leaves stars around the trails out of their fits, and looks for their ends. What the requests say is out of the residual
/// image, the others are in it.
pub(crate) fn reported_fits(
    backend: &mut dyn Backend,
    fits: &[LastFit],
    trails: &[Believed],
    requests: &[FitRequest],
    held: &[bool],
    setting: &EndSetting<'_>,
) -> Result<ReportedFits> {
    // Behind a mask an end may be anywhere, and is not looked for; a star's are those of its common vector.
    let is_seen = |f: &TrailFit| hidden::are_hidden(f) == [false; 2];
    let subjects = |fits: &[LastFit]| -> Vec<Option<Subject>> {
        let subject = |i: usize| {
            let fit = &fits[i].fit;
            let out_of_stars = match setting.stars {
                Stars::Trails(stars) => stars.without.get(i).copied(),
                _ => None,
            };
            let (snr, taken_out) = (trails[i].fit.snr, taken_out(&requests[i]));
            let subject = Subject { trail: fit.trail, snr, taken_out, out_of_stars };
            (!held[i] && is_seen(fit)).then_some(subject)
        };
        (0..fits.len()).map(subject).collect()
    };
    let (mut fits, mut flux_in_doubt) = (fits.to_vec(), vec![0.0; fits.len()]);
    let drawn = ends::drawn(backend, &subjects(&fits), setting)?;
    let moved = fit_from_ends(backend, &mut fits, &drawn, requests, setting)?;
    if let Stars::Points = setting.stars {
        flux_in_doubt = fit_without_stars(backend, &mut fits, requests, trails, &moved, setting.chains)?;
    }
    let ends = ends::expected(backend, &subjects(&fits), setting)?;
    for (last, ends) in fits.iter_mut().zip(&ends) {
        if let Some(ends) = ends {
            last.fit.trail = ends.set_in(last.fit.trail);
        }
    }
    Ok(ReportedFits { fits, ends, flux_in_doubt })
}

/// Fits those again from there that end elsewhere than their fits do: a star has drawn the fit along, or taken a part of the
/// trail. The pixels of one that is a point are given up. Returns which those are.
fn fit_from_ends(
    backend: &mut dyn Backend,
    fits: &mut [LastFit],
    ends: &[Option<ExpectedEnds>],
    requests: &[FitRequest],
    setting: &EndSetting<'_>,
) -> Result<Vec<bool>> {
    let mut moved = vec![false; fits.len()];
    for (i, (last, request)) in fits.iter_mut().zip(requests).enumerate() {
        let (fitted, taken_out) = (last.fit.trail, taken_out(request));
        let Some(found) = ends[i].filter(|e| e.are_elsewhere(&fitted.segment, setting.sigma_px)) else { continue };
        if let Stars::Points = setting.stars {
            let stars = with_light_of(backend, &taken_out, |backend| {
                stars_on_trail::footprints_beyond(backend, &found.segment, &fitted.segment, setting.chains)
            })?;
            backend.weigh_out(&stars)?;
        }
        last.fit.trail = found.set_in(fitted);
        let again = fit_alone(backend, last, &taken_out)?;
        if again.is_lit() && !found.are_elsewhere(&again.fit.trail.segment, setting.sigma_px) {
            *last = again;
        }
        moved[i] = true;
    }
    Ok(moved)
}

/// Fits those again that have stars beside them, without the stars' pixels; those that `moved` from where they are, the
/// others as before. What the requests say is out of the residual image, the others are in it. Returns the flux of each that
/// may be that of stars on its axis.
fn fit_without_stars(
    backend: &mut dyn Backend,
    fits: &mut [LastFit],
    requests: &[FitRequest],
    trails: &[Believed],
    moved: &[bool],
    chains: &ChainPrior,
) -> Result<Vec<f64>> {
    let fitted: Vec<Trail> = fits.iter().map(|f| f.fit.trail).collect();
    let parts: Vec<Trail> = requests.iter().filter(|r| !r.subtracted).map(|r| r.start).collect();
    backend.add_trails(&parts, -1.0)?;
    let stars = stars_on_trail::stars_on(backend, &fitted, chains)?;
    backend.add_trails(&parts, 1.0)?;
    backend.weigh_out(&stars.iter().flat_map(|s| s.given_up.iter().copied()).collect::<Vec<_>>())?;
    let has_stars = |i: &usize| !stars[*i].given_up.is_empty();
    for i in (0..fits.len()).filter(has_stars).filter(|i| moved[*i]) {
        let again = fit_alone(backend, &fits[i], &taken_out(&requests[i]))?;
        let stays = again.fit.trail.segment.distance_to(fitted[i].segment.midpoint()) < 2.0 * chains.sigma_px();
        if again.is_lit() && stays {
            fits[i] = again;
        }
    }
    for with_prior in [true, false] {
        let has = |i: &usize| has_stars(i) && !moved[*i] && fits[*i].settings.sigma_prior.is_some() == with_prior;
        let which: Vec<usize> = (0..fits.len()).filter(has).collect();
        let Some(settings) = which.first().map(|i| fits[*i].settings) else { continue };
        let again = backend.fit(&which.iter().map(|i| requests[*i]).collect::<Vec<_>>(), &settings)?;
        for (i, fit) in which.into_iter().zip(again) {
            let last = LastFit { fit, settings };
            if last.is_sane(&trails[i]) {
                fits[i] = last;
            }
        }
    }
    Ok(stars.iter().map(|s| s.flux_in_doubt).collect())
}

/// A trail fitted again from where it is, with what has been taken out of the residual image put back meanwhile.
fn fit_alone(backend: &mut dyn Backend, last: &LastFit, taken_out: &Option<Trail>) -> Result<LastFit> {
    let request = FitRequest { start: last.fit.trail, subtracted: false };
    let fits = with_light_of(backend, taken_out, |backend| backend.fit(&[request], &last.settings))?;
    Ok(fits.into_iter().next().map_or(*last, |fit| LastFit { fit, ..*last }))
}

/// Does something with a trail back in the residual image, if it has been taken out.
fn with_light_of<T>(
    backend: &mut dyn Backend,
    taken_out: &Option<Trail>,
    then: impl FnOnce(&mut dyn Backend) -> Result<T>,
) -> Result<T> {
    let trail: Vec<Trail> = taken_out.iter().copied().collect();
    backend.add_trails(&trail, 1.0)?;
    let done = then(backend)?;
    backend.add_trails(&trail, -1.0)?;
    Ok(done)
}
