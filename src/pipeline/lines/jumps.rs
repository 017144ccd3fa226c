//! Jumps of the level from one line to the next: where one amplifier ends and the next begins.

use super::{LEAST_OFFSET, Line, SIGNIFICANT};
use crate::pipeline::background::CLIPPED_SD;

/// Lines on either side of a jump by which it is measured: fewer than a tile has, within which the sky is straight.
const JUMP_SIDE: usize = 16;

/// A jump is as high, to this part, by lines so far from it that a streak along the lines lies between.
const LASTING: f64 = 0.6;
const APART: usize = 12;

/// No more jumps than this are looked for among the columns, or the rows.
const MOST_JUMPS: usize = 16;

/// The level of the lines as a sum of jumps from one to the next; none where there is none. The greatest is looked for first,
/// and taken off before the next. Near the border there is no telling whether one lasts.
pub(super) fn jump_offsets(lines: &[Line]) -> Option<Vec<f32>> {
    let seen: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].was_seen()).collect();
    let mut noise: Vec<f32> = seen.iter().map(|i| lines[*i].sd).collect();
    noise.sort_unstable_by(f32::total_cmp);
    let noise = f64::from(*noise.get(noise.len() / 2)?) / CLIPPED_SD;
    let mut levels: Vec<(f64, f64)> =
        seen.iter().map(|i| (f64::from(lines[*i].mean), lines[*i].mean_err * lines[*i].scatter.max(1.0))).collect();
    // By index among the lines that were seen.
    let mut jumps: Vec<(usize, f64)> = Vec::new();
    while jumps.len() < MOST_JUMPS {
        let by_lines = |i: usize, apart: usize| {
            let (before, after) = (&levels[..i - apart], &levels[i + apart..i + apart + JUMP_SIDE]);
            let (before, err_1) = level_before(before.iter().rev().take(JUMP_SIDE), apart);
            let (after, err_2) = level_before(after.iter(), apart);
            (after - before, err_1.hypot(err_2))
        };
        let reach = APART + JUMP_SIDE;
        let is_jump = |i: usize| {
            let ((near, err), (far, far_err)) = (by_lines(i, 0), by_lines(i, APART));
            let significant = near.abs() > (LEAST_OFFSET * noise).max(SIGNIFICANT * err);
            // By one error less than it is: what the sky's bend makes of it far away is not known better.
            (significant && far * near.signum() > LASTING * near.abs() + far_err).then_some((i, near))
        };
        let found = (reach..(levels.len() + 1).saturating_sub(reach)).filter_map(is_jump);
        let Some((i, jump)) = found.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) else { break };
        levels[i..].iter_mut().for_each(|(level, _)| *level -= jump);
        jumps.push((i, jump));
    }
    let jumps: Vec<(usize, f64)> = jumps.into_iter().map(|(i, jump)| (seen[i], jump)).collect();
    let offset = |line: usize| jumps.iter().filter(|(first, _)| *first <= line).map(|(_, jump)| *jump as f32).sum();
    (!jumps.is_empty()).then(|| (0..lines.len()).map(offset).collect())
}

/// The level half a line before some that begin so many lines later, by a straight line through them, and its error.
fn level_before<'a>(levels: impl Iterator<Item = &'a (f64, f64)> + Clone, apart: usize) -> (f64, f64) {
    let n = levels.clone().count() as f64;
    let places = || levels.clone().enumerate().map(|(i, (level, _))| ((i + apart) as f64 + 0.5, *level));
    let (middle, mean) = (0.5 * n + apart as f64, levels.clone().map(|(level, _)| level).sum::<f64>() / n);
    let spread: f64 = places().map(|(x, _)| (x - middle).powi(2)).sum();
    let slope = places().map(|(x, level)| (x - middle) * (level - mean)).sum::<f64>() / spread;
    let rest = places().map(|(x, level)| (level - mean - slope * (x - middle)).powi(2)).sum::<f64>() / (n - 2.0);
    let of_noise = levels.map(|(_, err)| err * err).sum::<f64>() / n;
    (mean - slope * middle, ((1.0 / n + middle * middle / spread) * rest.max(of_noise)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of these levels, each known to a hundredth of a noise of 10.
    fn lines(n: usize, level: impl Fn(usize) -> f32) -> Vec<Line> {
        let error = |i: usize| 0.1 * (((i * 7919) % 13) as f32 / 6.5 - 1.0);
        let line = |i: usize| Line {
            n_clipped: 5000,
            mean: level(i) + error(i),
            mean_err: 0.1,
            scatter: 1.0,
            median: level(i),
            sd: 9.85,
        };
        (0..n).map(line).collect()
    }

    #[test]
    fn jumps_are_found_where_they_are() {
        // On a sky that bends as a map does which a step has bent.
        let bent = |i: usize| 4.0 * ((i as f32 - 130.0) / 20.0).tanh();
        let step = |i: usize| if i < 130 { 0.0 } else { 12.0 } - if i < 260 { 0.0 } else { 5.0 };
        let offsets = jump_offsets(&lines(400, |i| step(i) - bent(i))).unwrap();
        for (i, offset) in offsets.iter().enumerate() {
            assert!((offset - step(i)).abs() < 1.0, "{i}: {offset}");
        }
        assert!(offsets[..130].iter().all(|o| *o == 0.0) && offsets[130] > 11.0);
    }

    #[test]
    fn slopes_and_streaks_are_no_jumps() {
        assert_eq!(jump_offsets(&lines(400, |i| 0.05 * i as f32)), None);
        assert_eq!(jump_offsets(&lines(400, |i| if (200..207).contains(&i) { 15.0 } else { 0.0 })), None);
        for (sigma, ridge, at) in [1.5, 2.5, 4.0, 5.0]
            .into_iter()
            .flat_map(|sigma| [2.0, 10.0, 80.0].map(|ridge| (sigma, ridge)))
            .flat_map(|(sigma, ridge)| [8, 14, 22, 30, 200].map(|at| (sigma, ridge, at)))
        {
            let streak = |i: usize| ridge * (-0.5 * ((i as f32 - at as f32) / sigma).powi(2)).exp();
            let found = jump_offsets(&lines(400, streak));
            assert_eq!(found, None, "sigma {sigma}, ridge {ridge}, at {at}");
        }
        assert_eq!(jump_offsets(&lines(20, |_| 0.0)), None, "too few");
        let unseen = Line { n_clipped: 0, ..lines(1, |_| 0.0)[0] };
        assert_eq!(jump_offsets(&vec![unseen; 100]), None);
    }

    #[test]
    fn lines_that_were_not_seen_are_passed_over() {
        let mut some = lines(300, |i| if i < 150 { 0.0 } else { 6.0 });
        some[140..160].iter_mut().for_each(|line| line.n_clipped = 0);
        let offsets = jump_offsets(&some).unwrap();
        assert!(offsets[139] == 0.0 && (offsets[160] - 6.0).abs() < 0.3, "{offsets:?}");
    }
}
