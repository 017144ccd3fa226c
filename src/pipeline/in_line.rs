//! Star trails: points that are the free end of a second star.
//!
//! Of two stars in line that share most of their light the brighter one is found first, drawn towards the other; what is
//! left of that looks like a point. Method: docs/algorithm.md, "Stars that trail".

use crate::pipeline::strip::{Doubt, Source, Strip};

/// A star and a point share their light when they are no further apart, in PSF widths: across, and beyond the star's ends.
const ACROSS_SIGMAS: f64 = 2.5;
const BEYOND_SIGMAS: f64 = 4.0;

/// The free end of a second star is seen so many PSF widths before its middle.
const END_SIGMAS: f64 = 1.5;

/// How often both stars are placed in turn, each with the other taken out.
const ROUNDS: usize = 8;

/// A point must explain so much more, in χ², than a second star: −2 ln of the odds between them, some hundred stars to a
/// point.
pub(crate) const STAR_ODDS: f64 = 10.0;

/// Puts two stars in the place of a star and a point where they explain the light as well. All sources have been taken out
/// of the strip. `scatter` is that of the S/N over that of white noise, no less than one.
pub(crate) fn part(strip: &mut Strip, doubt: &Doubt, scatter: f64, sources: &mut [Source]) {
    for i in 0..sources.len() {
        if sources[i].length_px > 0.0 {
            continue;
        }
        let beside: Vec<usize> = (0..sources.len()).filter(|&j| is_beside(&sources[j], &sources[i], strip)).collect();
        for j in beside {
            if let Some([star, second]) = two_stars(strip, doubt, scatter, &sources[j], &sources[i]) {
                (sources[j], sources[i]) = (star, second);
                break;
            }
        }
    }
}

/// Near enough to share their light.
pub(crate) fn is_beside(star: &Source, point: &Source, strip: &Strip) -> bool {
    let (across, beyond) = (ACROSS_SIGMAS * strip.sigma_px, BEYOND_SIGMAS * strip.sigma_px);
    let along = point.begin_px - star.begin_px;
    star.length_px > 0.0
        && (star.across_px - point.across_px).abs() < across
        && (-beyond..star.length_px + beyond).contains(&along)
}

/// Two stars that explain the light as well as a star and a point, which have been taken out; the stars are then.
pub(crate) fn two_stars(
    strip: &mut Strip,
    doubt: &Doubt,
    scatter: f64,
    star: &Source,
    point: &Source,
) -> Option<[Source; 2]> {
    let end_px = END_SIGMAS * strip.sigma_px;
    let begins = [point.begin_px - end_px, point.begin_px + end_px - strip.star_px];
    let beside = |by: f64| Source { across_px: star.across_px + by * end_px, ..*star };
    let reached = [*star, beside(-1.0), beside(1.0), *point, at(begins[0], point, strip), at(begins[1], point, strip)];
    // One noise for both: the doubt grows with the light that has been taken out, and two stars take more bins' light.
    let patch = strip.patch_around(&reached, doubt);
    let most = strip.misfit(&patch) + STAR_ODDS * scatter.powi(2);
    for begin_px in begins {
        strip.add(point, 1.0);
        let mut stars = [*star, at(begin_px, point, strip)];
        strip.add(&stars[1], -1.0);
        let placed = place(strip, doubt, &mut stars);
        if placed && stars.iter().all(|s| patch.holds(s)) && strip.misfit(&patch) < most {
            return Some(stars);
        }
        stars.iter().for_each(|s| strip.add(s, 1.0));
        [star, point].into_iter().for_each(|s| strip.add(s, -1.0));
    }
    None
}

/// A star with as much light on its free end as a point has.
fn at(begin_px: f64, point: &Source, strip: &Strip) -> Source {
    let density = point.density / (2.0 * END_SIGMAS * strip.sigma_px);
    Source { begin_px, length_px: strip.star_px, density, ..*point }
}

/// Places two stars in turn; false where one has no light left.
fn place(strip: &mut Strip, doubt: &Doubt, stars: &mut [Source; 2]) -> bool {
    for _ in 0..ROUNDS {
        for star in stars.iter_mut() {
            strip.add(star, 1.0);
            let better = strip.best_near(star, doubt);
            *star = better.unwrap_or(*star);
            strip.add(star, -1.0);
            if better.is_none() {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::strip::sample::{STAR, strip};

    fn source(begin_px: f64, length_px: f64, density: f64) -> Source {
        Source { begin_px, across_px: 0.0, length_px, density, snr: 0.0 }
    }

    #[test]
    fn the_free_end_of_a_second_star_is_no_point() {
        // Two stars a quarter of their length apart, taken for a brighter one and a point where the second ends.
        let mut strip = strip(&[(40.0, 0.0, 9.0), (32.0, 0.0, 3.0)]);
        let (star, point) = (source(38.5, STAR, 11.5), source(33.5, 0.0, 18.0));
        strip.add(&star, -1.0);
        strip.add(&point, -1.0);
        assert!(is_beside(&star, &point, &strip));
        let mut sources = [star, point];
        part(&mut strip, &Doubt::NONE, 1.0, &mut sources);
        assert!((sources[0].begin_px - 40.0).abs() < 1.0 && (sources[0].density - 9.0).abs() < 1.5, "{sources:?}");
        assert!((sources[1].begin_px - 32.0).abs() < 1.0 && sources[1].length_px > 0.0, "{sources:?}");
        assert!(strip.best_star().is_none_or(|s| s.snr < 3.0), "both have been taken out");
    }

    #[test]
    fn a_point_at_the_end_of_a_star_stays() {
        let mut strip = strip(&[(40.0, 0.0, 9.0)]);
        let (star, point) = (source(40.0, STAR, 9.0), source(36.0, 0.0, 60.0));
        strip.add(&point, 1.0);
        let mut sources = [star, point];
        sources.iter().for_each(|s| strip.add(s, -1.0));
        let before = strip.misfit(&strip.patch_around(&[star, point], &Doubt::NONE));
        part(&mut strip, &Doubt::NONE, 1.0, &mut sources);
        assert_eq!(sources, [star, point]);
        let after = strip.misfit(&strip.patch_around(&[star, point], &Doubt::NONE));
        assert!((after - before).abs() < 0.01 * STAR_ODDS, "the strip is as before: {before} {after}");
        let apart = source(80.0, 0.0, 60.0);
        assert!(!is_beside(&star, &apart, &strip));
    }
}
