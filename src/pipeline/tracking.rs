//! Tracking: do the stars stand still, or do they all draw the same streak?
//!
//! Method: docs/algorithm.md, "Two regimes".

use std::f64::consts::PI;
use std::str::FromStr;

use crate::geometry::{Point, Segment, track_angle_difference};
use crate::report::TrackingMode;
use crate::{Error, Result};

/// How the telescope moved.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Tracking {
    /// Decide from the frame: where most streaks share one length and angle, they are the stars.
    #[default]
    Auto,
    /// The telescope followed the stars: they are points.
    Sidereal,
    /// Stars are streaks of this length and angle.
    Rate {
        /// Length of the star trails, px.
        star_length_px: f64,
        /// Angle of the star trails from +x towards +y, rad.
        star_angle_rad: f64,
    },
}

impl FromStr for Tracking {
    type Err = Error;

    /// `auto`, `sidereal`, or `rate:LENGTH,ANGLE`: the length of the star trails in px, and their angle in degrees (for
    /// people; angles are radians everywhere else), such as `rate:35.5,12`. In upper or lower case.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for any other text, and for a length or an angle that no trail has.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.to_lowercase();
        match text.as_str() {
            "auto" => return Ok(Self::Auto),
            "sidereal" => return Ok(Self::Sidereal),
            _ => {}
        }
        let numbers = text.strip_prefix("rate:").and_then(|rest| rest.split_once(','));
        let parsed = numbers.and_then(|(length, angle)| Some((length.parse().ok()?, angle.parse::<f64>().ok()?)));
        match parsed {
            Some((star_length_px, angle_deg)) => {
                let rate = Self::Rate { star_length_px, star_angle_rad: angle_deg.to_radians().rem_euclid(PI) };
                rate.validate()?;
                Ok(rate)
            }
            None => Err(Error::Config(
                "tracking: expected auto, sidereal or rate:LENGTH_PX,ANGLE_DEG, such as rate:35.5,12".to_owned(),
            )),
        }
    }
}

impl Tracking {
    pub(crate) fn validate(&self) -> Result<()> {
        match *self {
            Self::Rate { star_length_px, star_angle_rad } if !(star_length_px > 0.0 && star_angle_rad.is_finite()) => {
                Err(Error::Config(format!(
                    "tracking: star trails of {star_length_px} px at {:.3} deg: the length must be positive, the angle finite",
                    star_angle_rad.to_degrees()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Of star trails far longer than the frame nothing can be told, and it takes long to find that out.
    pub(crate) fn validate_for(&self, width: usize, height: usize) -> Result<()> {
        let diagonal_px = (width as f64).hypot(height as f64);
        match *self {
            Self::Rate { star_length_px, .. } if star_length_px > MOST_DIAGONALS * diagonal_px => {
                Err(Error::Config(format!(
                    "tracking: star trails of {star_length_px} px in a frame of {width} x {height}: at most {MOST_DIAGONALS} times its diagonal"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Star trails that are given may be so many times as long as the frame's diagonal.
const MOST_DIAGONALS: f64 = 4.0;

/// Fewer trails than this do not make a common motion.
pub(crate) const MIN_STARS: usize = 5;

/// The common vector must be shared by this fraction of all whole streaks.
const MIN_SHARE: f64 = 0.5;

/// Where only the brightest are asked: of these spilled charge and spikes may be half.
const MIN_BRIGHT_SHARE: f64 = 0.7;

/// A streak as far as the decision needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) segment: Segment,
    pub(crate) snr: f64,
    /// Half-width of the 68 % interval of its length, px.
    pub(crate) length_68_px: f64,
    /// Both ends were seen.
    pub(crate) whole: bool,
    /// Wider than the PSF, or bent: it may be two trails side by side.
    pub(crate) wide: bool,
}

/// How the stars of a frame moved over it: each draws this trail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StarMotion {
    pub(crate) length_px: f64,
    pub(crate) angle_rad: f64,
    pub(crate) length_err_px: f64,
    pub(crate) angle_err_rad: f64,
    /// Trails it was measured on.
    pub(crate) n_stars: usize,
}

impl StarMotion {
    pub(crate) fn of(mode: &TrackingMode) -> Option<Self> {
        match *mode {
            TrackingMode::Sidereal => None,
            TrackingMode::Rate { star_length_px, star_angle_rad, star_length_err_px, star_angle_err_rad, n_stars } => {
                Some(Self {
                    length_px: star_length_px,
                    angle_rad: star_angle_rad,
                    length_err_px: star_length_err_px,
                    angle_err_rad: star_angle_err_rad,
                    n_stars,
                })
            }
        }
    }

    pub(crate) fn tracking(&self) -> Tracking {
        Tracking::Rate { star_length_px: self.length_px, star_angle_rad: self.angle_rad }
    }

    pub(crate) fn mode(&self) -> TrackingMode {
        TrackingMode::Rate {
            star_length_px: self.length_px,
            star_angle_rad: self.angle_rad,
            star_length_err_px: self.length_err_px,
            star_angle_err_rad: self.angle_err_rad,
            n_stars: self.n_stars,
        }
    }

    /// The weighted mean of those trails that agree with this motion; itself where they are too few.
    pub(crate) fn refined(&self, trails: &[MeasuredTrail]) -> Self {
        let mut motion = *self;
        for _ in 0..REFINE_ROUNDS {
            let members = motion.members(trails);
            if members.len() < MIN_STARS {
                return motion;
            }
            let angle = |t: &MeasuredTrail| signed_difference(t.segment.angle_rad(), motion.angle_rad);
            let lengths = members.iter().map(|t| (t.segment.length_px(), t.length_err_px, MODEL_LENGTH_PX));
            let angles = members.iter().map(|t| (angle(t), t.angle_err_rad, MODEL_LENGTH_PX / motion.length_px));
            let ((length_px, length_err_px, n_stars), (turn, angle_err_rad, _)) = (mean(lengths), mean(angles));
            let angle_rad = (motion.angle_rad + turn).rem_euclid(PI);
            motion = Self { length_px, angle_rad, length_err_px, angle_err_rad, n_stars };
        }
        motion
    }

    /// By how much single trails differ from this motion, in length or by what their ends lie beside it, beyond their own
    /// errors, as a standard deviation: so distortion and field rotation do. It is that of the half that differs least, since
    /// blends and stars that hold a target differ more, and 0 where it may be chance.
    pub(crate) fn spread_px(&self, trails: &[MeasuredTrail]) -> f64 {
        let members = self.members(trails);
        let beyond_errors = |off_and_error: &dyn Fn(&MeasuredTrail) -> (f64, f64)| {
            let (mut offs, mut errors): (Vec<f64>, Vec<f64>) = members.iter().map(|t| off_and_error(t)).unzip();
            let median = |values: &mut Vec<f64>| {
                values.sort_unstable_by(f64::total_cmp);
                values.get(values.len() / 2).copied().unwrap_or(0.0)
            };
            let (off, error) = (median(&mut offs) / HALF_OF_NORMAL, median(&mut errors));
            let by_chance = 1.0 + CHANCE / (members.len().max(1) as f64).sqrt();
            (off * off - by_chance * error * error).max(0.0).sqrt()
        };
        let length = beyond_errors(&|t| ((t.segment.length_px() - self.length_px).abs(), t.length_err_px));
        let beside = beyond_errors(&|t| {
            let turn_rad = signed_difference(t.segment.angle_rad(), self.angle_rad).abs();
            (self.length_px * turn_rad, self.length_px * t.angle_err_rad)
        });
        length.max(beside)
    }

    /// The trails that agree with this motion.
    fn members<'a>(&self, trails: &'a [MeasuredTrail]) -> Vec<&'a MeasuredTrail> {
        trails.iter().filter(|t| agrees(&t.segment, t.length_err_px, self)).collect()
    }
}

/// A median squared is off by 2.3 of its parts over the root of their number, in standard errors: twice that is chance.
const CHANCE: f64 = 5.0;

/// Half of what is normally distributed lies within so many standard deviations.
const HALF_OF_NORMAL: f64 = 0.6745;

/// A trail with the errors of its length and angle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MeasuredTrail {
    pub(crate) segment: Segment,
    pub(crate) length_err_px: f64,
    pub(crate) angle_err_rad: f64,
}

/// The first mean may lie where others agree.
const REFINE_ROUNDS: usize = 3;

/// The brightest trail is known no better than this: PSFs are not Gaussian, optics distort.
const MODEL_LENGTH_PX: f64 = 0.2;

/// Weighted mean of values with errors that are no less than some floor, and its error, from the scatter where that is
/// larger than the errors say. Values far off are left out: two stars in one trail, a star cut by what was weighed out.
/// Returns how many are left as well.
fn mean(values: impl Iterator<Item = (f64, f64, f64)>) -> (f64, f64, usize) {
    let mut values: Vec<(f64, f64)> = values.map(|(value, error, floor)| (value, error.hypot(floor))).collect();
    let mut best = mean_of(&values);
    for _ in 0..CLIP_ROUNDS {
        let off = |&(value, error): &(f64, f64)| (value - best.0).abs() / error;
        let mut offs: Vec<f64> = values.iter().map(off).collect();
        offs.sort_unstable_by(f64::total_cmp);
        let usual = (offs.get(offs.len() / 2).copied().unwrap_or(0.0) / HALF_OF_NORMAL).max(1.0);
        values.retain(|value| off(value) <= MOST_SIGMAS * usual);
        best = mean_of(&values);
    }
    (best.0, best.1, values.len())
}

/// Weighted mean of values with errors, and its error.
fn mean_of(values: &[(f64, f64)]) -> (f64, f64) {
    let weighted = values.iter().map(|(value, error)| (value, error.powi(-2)));
    let (sum, weight) = weighted.clone().fold((0.0, 0.0), |(sum, weight), (v, w)| (sum + w * v, weight + w));
    let mean = sum / weight;
    let chi2: f64 = weighted.map(|(v, w)| w * (v - mean).powi(2)).sum();
    (mean, (f64::max(1.0, chi2 / f64::max(1.0, values.len() as f64 - 1.0)) / weight).sqrt())
}

/// The first mean is drawn by what is left out after it.
const CLIP_ROUNDS: usize = 3;

/// Of the directions of two tracks, in (−π/2, π/2].
fn signed_difference(a: f64, b: f64) -> f64 {
    let turn = (a - b).rem_euclid(PI);
    if turn > 0.5 * PI { turn - PI } else { turn }
}

/// Decides how the telescope moved from the streaks of a frame.
pub(crate) fn decide(tracking: Tracking, streaks: &[Seen]) -> TrackingMode {
    match tracking {
        Tracking::Sidereal => TrackingMode::Sidereal,
        Tracking::Rate { star_length_px, star_angle_rad } => given(star_length_px, star_angle_rad).mode(),
        Tracking::Auto => common_vector(streaks).unwrap_or(TrackingMode::Sidereal),
    }
}

fn given(length_px: f64, angle_rad: f64) -> StarMotion {
    let angle_rad = angle_rad.rem_euclid(PI);
    StarMotion { length_px, angle_rad, length_err_px: 0.0, angle_err_rad: 0.0, n_stars: 0 }
}

/// The vector that most of the whole streaks share, or most of the brightest half, quarter or eighth of them: what
/// faint lines join by chance outvotes no bright star.
fn common_vector(streaks: &[Seen]) -> Option<TrackingMode> {
    let mut whole: Vec<&Seen> = streaks.iter().filter(|s| s.whole).collect();
    whole.sort_by(|a, b| b.snr.total_cmp(&a.snr));
    let brightest = |part: usize| &whole[..whole.len() / part];
    let large_enough = |part: &usize| *part == 1 || whole.len() / part >= 2 * MIN_STARS;
    let share = |part: usize| if part == 1 { MIN_SHARE } else { MIN_BRIGHT_SHARE };
    [1, 2, 4, 8].into_iter().filter(large_enough).find_map(|part| vector_of_most(brightest(part), share(part)))
}

/// Of thousands of streaks not each has to be held against all: so many are, or up to twice as many.
const ENOUGH_ASKED: usize = 500;

fn vector_of_most(streaks: &[&Seen], least_share: f64) -> Option<TrackingMode> {
    let whole: Vec<&Segment> = streaks.iter().map(|s| &s.segment).collect();
    let members = |of: &Segment| -> Vec<&Segment> {
        whole.iter().filter(|s| same_vector(s, 0.0, of.length_px(), of.angle_rad())).copied().collect()
    };
    // Where most share a vector, so do most of those that are asked for theirs.
    let some = whole.iter().step_by((whole.len() / ENOUGH_ASKED).max(1));
    let best = some.map(|s| members(s)).max_by_key(Vec::len)?;
    if best.len() < MIN_STARS || (best.len() as f64) < least_share * whole.len() as f64 {
        return None;
    }
    let mut lengths: Vec<f64> = best.iter().map(|s| s.length_px()).collect();
    lengths.sort_unstable_by(f64::total_cmp);
    // Doubled angles have no seam at 0 = π.
    let (sin, cos) =
        best.iter().map(|s| (2.0 * s.angle_rad()).sin_cos()).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    let (length_px, n_stars) = (lengths[lengths.len() / 2], best.len());
    if spread_px(&best) < length_px.min(MOST_GALAXY_PX) {
        return None;
    }
    // Measured again once all stars are found.
    Some(StarMotion { n_stars, ..given(length_px, 0.5 * sin.atan2(cos)) }.mode())
}

/// Trails of stars lie all over the frame, lines through the light of one galaxy side by side: half of them within their
/// length from their middle, and in no case further than this.
const MOST_GALAXY_PX: f64 = 60.0;

/// Median distance of segments from the middle of all.
fn spread_px(segments: &[&Segment]) -> f64 {
    let median = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of_all = |of: fn(Point) -> f64| median(segments.iter().map(|s| of(s.midpoint())).collect());
    let middle = Point::new(of_all(|p| p.x), of_all(|p| p.y));
    median(segments.iter().map(|s| s.midpoint().distance(middle)).collect())
}

/// A star's trail may be longer or shorter than the others by so many of its own errors: of hundreds of stars none
/// shall differ by chance.
const MOST_SIGMAS: f64 = 4.0;

/// Whether a trail has the stars' vector, by as much as its length may be off.
pub(crate) fn agrees(segment: &Segment, length_err_px: f64, motion: &StarMotion) -> bool {
    same_vector(segment, MOST_SIGMAS * length_err_px, motion.length_px, motion.angle_rad)
}

/// Length within a tenth (3 px and the given slack at least), angle within what moves an end by 3 px (2 degrees at least).
fn same_vector(segment: &Segment, slack_px: f64, length_px: f64, angle_rad: f64) -> bool {
    let length_slack = (0.1 * length_px).max(3.0).max(slack_px);
    (segment.length_px() - length_px).abs() <= length_slack && same_angle(segment, length_px, angle_rad)
}

fn same_angle(segment: &Segment, length_px: f64, angle_rad: f64) -> bool {
    let slack = (3.0 / segment.length_px().min(length_px)).max(2.0_f64.to_radians());
    track_angle_difference(segment.angle_rad(), angle_rad) <= slack
}

/// What is so much longer than a star's trail, or turned by so much, is neither a star nor a part of one.
const DISTINCT_LENGTH: f64 = 1.25;
const DISTINCT_ANGLE_RAD: f64 = 0.2;

/// Stars in a row draw a line along their own direction.
const ROW_ANGLE_RAD: f64 = 0.03;

/// No blend of two stars, no end of one and no row of them looks like this.
pub(crate) fn is_distinct(segment: &Segment, motion: &StarMotion) -> bool {
    let turn = track_angle_difference(segment.angle_rad(), motion.angle_rad);
    turn > DISTINCT_ANGLE_RAD || (turn > ROW_ANGLE_RAD && segment.length_px() > DISTINCT_LENGTH * motion.length_px)
}

/// True where a trail is turned from the stars' direction further than a row of them is, by more than so much.
pub(crate) fn is_turned(segment: &Segment, slack_rad: f64, motion: &StarMotion) -> bool {
    track_angle_difference(segment.angle_rad(), motion.angle_rad) > ROW_ANGLE_RAD + slack_rad
}

/// A trail alone that is shorter than this part of a star's is no star's; nor a row of some, if it points elsewhere by
/// this, rad.
const SHORT_LENGTH: f64 = 0.75;
const SHORT_ANGLE_RAD: f64 = 0.1;

/// True where a trail alone is too short for a star's.
pub(crate) fn is_short(segment: &Segment, motion: &StarMotion) -> bool {
    segment.length_px() < SHORT_LENGTH * motion.length_px
}

/// True where a trail is too short for a star's, and turned from them.
pub(crate) fn is_short_and_turned(segment: &Segment, motion: &StarMotion) -> bool {
    let turn = track_angle_difference(segment.angle_rad(), motion.angle_rad);
    turn > SHORT_ANGLE_RAD && is_short(segment, motion)
}

/// Two blended trails seen as one differ by up to this from either, rad, and in units of the length.
const BLEND_ANGLE_RAD: f64 = 0.2;
const BLEND_LENGTH: f64 = 0.5;

/// True where a streak moves with the stars. One that is cut by the frame or by a mask only needs their angle; a wide
/// one may be a blend of two.
pub(crate) fn is_star(mode: &TrackingMode, streak: &Seen) -> bool {
    match *mode {
        TrackingMode::Sidereal => false,
        TrackingMode::Rate { star_length_px, star_angle_rad, .. } => {
            let cut = !streak.whole && streak.segment.length_px() < 1.5 * star_length_px;
            // Of one that is cut, the length is that of the part inside.
            let slack = if streak.whole { MOST_SIGMAS * streak.length_68_px } else { 0.0 };
            same_vector(&streak.segment, slack, star_length_px, star_angle_rad)
                || (cut && same_angle(&streak.segment, star_length_px, star_angle_rad))
                || (streak.wide && could_be_blend(&streak.segment, star_length_px, star_angle_rad))
        }
    }
}

fn could_be_blend(segment: &Segment, star_length_px: f64, star_angle_rad: f64) -> bool {
    (segment.length_px() / star_length_px - 1.0).abs() < BLEND_LENGTH
        && track_angle_difference(segment.angle_rad(), star_angle_rad) < BLEND_ANGLE_RAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(length: f64, angle: f64) -> Seen {
        let segment = Segment::around(Point::new(100.0, 100.0), length, angle);
        Seen { segment, snr: 20.0, length_68_px: 1.0, whole: true, wide: false }
    }

    /// All over a frame of 1000 x 1000 pixels.
    fn scattered(streaks: impl IntoIterator<Item = Seen>) -> Vec<Seen> {
        let at = |i: usize| Point::new((137 * i % 1000) as f64, (379 * i % 1000) as f64);
        let moved = |(i, s): (usize, Seen)| {
            let segment = Segment::around(at(i), s.segment.length_px(), s.segment.angle_rad());
            Seen { segment, ..s }
        };
        streaks.into_iter().enumerate().map(moved).collect()
    }

    #[test]
    fn lines_through_one_galaxy_are_no_stars() {
        let lines: Vec<Seen> = (0..40).map(|i| seen(30.0 + 0.05 * f64::from(i), 0.4)).collect();
        assert_eq!(decide(Tracking::Auto, &lines), TrackingMode::Sidereal);
        assert!(matches!(decide(Tracking::Auto, &scattered(lines)), TrackingMode::Rate { n_stars: 40, .. }));
    }

    #[test]
    fn tracking_is_read_from_text() {
        assert_eq!("auto".parse::<Tracking>().unwrap(), Tracking::Auto);
        assert_eq!("Sidereal".parse::<Tracking>().unwrap(), Tracking::Sidereal);
        let Ok(Tracking::Rate { star_length_px, star_angle_rad }) = "rate:35.5,-30".parse() else { panic!() };
        // Tracks at −30 and 150 degrees are the same.
        assert!(star_length_px == 35.5 && (star_angle_rad - 5.0 * PI / 6.0).abs() < 1e-12, "{star_angle_rad}");
        for text in ["", "rate", "rate:", "rate:35", "rate:x,3", "rate:3,", "rate:nan,3", "rate:-5,3", "rate:35,inf"] {
            assert!(matches!(text.parse::<Tracking>(), Err(Error::Config(_))), "{text}");
        }
    }

    #[test]
    fn stars_outvote_the_targets() {
        // Angles on both sides of the seam at 0 = π.
        let mut streaks: Vec<Seen> =
            (0..8).map(|i| seen(30.0 + 0.2 * f64::from(i), PI + 0.002 * f64::from(i - 4))).collect();
        streaks.extend([seen(60.0, 1.0), seen(30.0, 0.5)]);
        let mode = decide(Tracking::Auto, &scattered(streaks.clone()));
        let TrackingMode::Rate { star_length_px, star_angle_rad, n_stars, .. } = mode else { panic!("{mode:?}") };
        assert_eq!(n_stars, 8);
        assert!((star_length_px - 30.7).abs() < 0.5 && track_angle_difference(star_angle_rad, 0.0) < 0.01);
        assert!(is_star(&mode, &streaks[0]) && !is_star(&mode, &streaks[8]) && !is_star(&mode, &streaks[9]));
        let uncertain = Seen { length_68_px: 3.0, ..seen(24.0, 0.0) };
        assert!(is_star(&mode, &uncertain) && !is_star(&mode, &seen(24.0, 0.0)));
        let cut = |length: f64| Seen { whole: false, length_68_px: length, ..seen(length, 0.0) };
        assert!(is_star(&mode, &cut(12.0)) && !is_star(&mode, &cut(200.0)));
    }

    #[test]
    fn only_what_errors_do_not_explain_is_spread() {
        let motion = given(40.0, 0.3);
        let noise: Vec<f64> = crate::simulate::gaussian_frame(200, 2, 1, 1.0).into_iter().map(f64::from).collect();
        let spread = |n: usize, length_px: f64, beside_px: f64| {
            let trail = |i: usize| {
                let angle_rad = 0.3 + beside_px.hypot(0.2) * noise[200 + i] / 40.0;
                let segment = Segment::around(Point::new(9.0, 9.0), 40.0 + length_px.hypot(0.2) * noise[i], angle_rad);
                MeasuredTrail { segment, length_err_px: 0.2, angle_err_rad: 0.2 / 40.0 }
            };
            motion.spread_px(&(0..n).map(trail).collect::<Vec<_>>())
        };
        assert!(spread(200, 0.0, 0.0) < 0.1 && spread(20, 0.0, 0.0) < 0.1 && spread(0, 1.0, 1.0) == 0.0);
        assert!((spread(200, 0.8, 0.0) - 0.8).abs() < 0.2 && (spread(200, 0.0, 0.6) - 0.6).abs() < 0.2);
    }

    #[test]
    fn two_stars_in_one_trail_do_not_draw_the_vector() {
        let noise: Vec<f64> = crate::simulate::gaussian_frame(100, 1, 1, 0.2).into_iter().map(f64::from).collect();
        let trail = |length_px: f64| MeasuredTrail {
            segment: Segment::around(Point::new(9.0, 9.0), length_px, 0.3),
            length_err_px: 0.05,
            angle_err_rad: 0.001,
        };
        let stars: Vec<MeasuredTrail> = noise.iter().map(|noise| trail(120.0 + noise)).collect();
        let alone = given(120.0, 0.3).refined(&stars);
        let with_blend = given(120.0, 0.3).refined(&[stars.as_slice(), &[trail(131.0)]].concat());
        let told = |motion: &StarMotion| (motion.length_px, motion.length_err_px, motion.n_stars);
        assert_eq!((told(&alone), alone.n_stars), (told(&with_blend), 100));
        assert!((alone.length_px - 120.0).abs() < 0.06 && (0.02..0.03).contains(&alone.length_err_px), "{alone:?}");
        // Of a field whose lengths differ none is left out.
        let spread: Vec<MeasuredTrail> = noise.iter().map(|noise| trail(120.0 + 10.0 * noise)).collect();
        let wide = given(120.0, 0.3).refined(&spread);
        assert!((0.12..0.28).contains(&wide.length_err_px), "{wide:?}");
    }

    #[test]
    fn the_bright_ones_decide() {
        let faint = (0..30).map(|i| Seen { snr: 8.0, ..seen(20.0 + 7.0 * f64::from(i), 0.1 * f64::from(i)) });
        let bright = (0..12).map(|i| Seen { snr: 100.0, ..seen(25.0 + 0.1 * f64::from(i), 0.4) });
        let streaks = scattered(faint.clone().chain(bright));
        let mode = decide(Tracking::Auto, &streaks);
        assert!(matches!(mode, TrackingMode::Rate { n_stars: 10..=12, .. }), "{mode:?}");
        assert_eq!(decide(Tracking::Auto, &scattered(faint)), TrackingMode::Sidereal);
    }

    #[test]
    fn of_thousands_not_all_have_to_be_asked() {
        // Two of three are stars, the others of any kind.
        let kind = |i: u32| match i % 3 {
            0 => (20.0 + f64::from(i % 97), 0.03 * f64::from(i % 101)),
            k => (40.0 + 0.1 * f64::from(k), 0.4),
        };
        let streak = |(length, angle): (f64, f64)| seen(length, angle);
        let streaks = scattered((0..3 * 1167).map(|i| streak(kind(i))));
        let mode = decide(Tracking::Auto, &streaks);
        let TrackingMode::Rate { star_length_px, star_angle_rad, n_stars, .. } = mode else { panic!("{mode:?}") };
        assert!((2334..2380).contains(&n_stars), "{n_stars}");
        assert!((star_length_px - 40.2).abs() < 0.2 && (star_angle_rad - 0.4).abs() < 0.01);
    }

    #[test]
    fn rows_of_stars_point_along_the_stars() {
        let motion = given(30.0, 0.02);
        let at = |angle: f64| Segment::around(Point::new(100.0, 100.0), 40.0, angle);
        assert!(!is_turned(&at(0.0), 0.0, &motion) && is_turned(&at(PI - 0.02), 0.0, &motion));
        assert!(is_turned(&at(0.1), 0.04, &motion) && !is_turned(&at(0.1), 0.06, &motion));
    }

    #[test]
    fn few_streaks_are_not_stars() {
        assert_eq!(decide(Tracking::Auto, &scattered([seen(30.0, 1.0); 4])), TrackingMode::Sidereal);
        assert_eq!(decide(Tracking::Sidereal, &[seen(30.0, 1.0); 40]), TrackingMode::Sidereal);
    }
}
