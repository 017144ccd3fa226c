//! Trails that share light are fitted in turns: all at once, three of them would pass it on for ever.

use crate::Result;
use crate::backend::Backend;
use crate::geometry::Segment;
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};
use crate::pipeline::search::Middles;

/// For each of some segments, in their order, those before it that it meets. None meet that are further apart than
/// `reach_px`; of the others `meet` tells, asked for one and one before it.
pub(crate) fn met_before(segments: &[Segment], reach_px: f64, meet: impl Fn(usize, usize) -> bool) -> Vec<Vec<usize>> {
    let mut before = Middles::default();
    let met_by = |(i, segment): (usize, &Segment)| {
        let met = before.near(segment, reach_px as f32).filter(|&j| meet(i, j)).collect();
        before.push(segment);
        met
    };
    segments.iter().enumerate().map(met_by).collect()
}

/// Each in the first group in which it meets none, by those before it that it meets.
pub(crate) fn in_turns(met: &[Vec<usize>]) -> Vec<Vec<usize>> {
    in_groups(met, |before| before.iter().zip(0..).take_while(|(turn, n)| *turn == n).count())
}

/// Each as soon as all before it are done that it meets: turn by turn it is as if done one by one.
pub(crate) fn in_order(met: &[Vec<usize>]) -> Vec<Vec<usize>> {
    in_groups(met, |before| before.last().map_or(0, |last| last + 1))
}

/// Each in the group that those of the ones it has met say, each of these once and in ascending order.
fn in_groups(met: &[Vec<usize>], group: impl Fn(&[usize]) -> usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut group_of: Vec<usize> = Vec::with_capacity(met.len());
    for (i, met) in met.iter().enumerate() {
        let mut before: Vec<usize> = met.iter().map(|&j| group_of[j]).collect();
        before.sort_unstable();
        before.dedup();
        let own = group(&before);
        groups.resize_with(groups.len().max(own + 1), Vec::new);
        groups[own].push(i);
        group_of.push(own);
    }
    groups
}

/// Fits trails again from where they are, each with all others taken out. Before and after, all are out of the residual
/// image. None share light further apart than `reach_px`. A fit that does not `hold`, given the one before and it, is not
/// taken.
pub(crate) fn fit_in_turns(
    backend: &mut dyn Backend,
    fits: &mut [TrailFit],
    settings: &FitSettings,
    reach_px: f64,
    share_light: impl Fn(&Segment, &Segment) -> bool,
    holds: impl Fn(&TrailFit, &TrailFit) -> bool,
) -> Result<()> {
    let places: Vec<Segment> = fits.iter().map(|f| f.trail.segment).collect();
    let met = met_before(&places, reach_px, |i, j| share_light(&places[i], &places[j]));
    for turn in in_turns(&met) {
        let requests: Vec<FitRequest> = turn.iter().map(|&i| again(&fits[i])).collect();
        let after = turn.into_iter().zip(backend.fit(&requests, settings)?);
        let after: Vec<(usize, TrailFit)> = after.filter(|(i, fit)| holds(&fits[*i], fit)).collect();
        let [before, now]: [Vec<Trail>; 2] =
            [after.iter().map(|(i, _)| fits[*i].trail).collect(), after.iter().map(|(_, f)| f.trail).collect()];
        replace(backend, &before, &now)?;
        after.into_iter().for_each(|(i, fit)| fits[i] = fit);
    }
    Ok(())
}

/// The fit of a trail that has been taken out, from where it is.
pub(crate) fn again(fit: &TrailFit) -> FitRequest {
    FitRequest { start: fit.trail, subtracted: true }
}

/// Puts trails back into the residual image that have been taken out, and takes others out.
pub(crate) fn replace(backend: &mut dyn Backend, before: &[Trail], after: &[Trail]) -> Result<()> {
    backend.add_trails(before, 1.0)?;
    backend.add_trails(after, -1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;

    #[test]
    fn each_waits_for_those_before_it_that_it_meets() {
        assert_eq!(in_order(&[vec![], vec![0], vec![1], vec![]]), [vec![0, 3], vec![1], vec![2]]);
        assert!(in_order(&[]).is_empty());
    }

    #[test]
    fn those_of_one_turn_share_nothing() {
        let chain = [vec![], vec![0], vec![1], vec![2], vec![3]];
        assert_eq!(in_turns(&chain), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(in_turns(&[vec![], vec![0], vec![0, 1]]), [[0], [1], [2]]);
    }

    #[test]
    fn all_pairs_within_reach_are_asked_for_once() {
        let places = crate::simulate::gaussian_frame(4, 60, 3, 1.0);
        let place = |p: &[f32]| {
            let [a, b, c, d] = [p[0], p[1], p[2], p[3]].map(f64::from);
            Segment::around(Point::new(100.0 * a, 60.0 * b), 30.0 * c.abs(), d)
        };
        let segments: Vec<Segment> = places.chunks_exact(4).map(place).collect();
        let distance = |i: usize, j: usize| {
            let (a, b) = (&segments[i], &segments[j]);
            (0..=50).map(|k| a.distance_to(b.at(f64::from(k) / 50.0))).fold(f64::INFINITY, f64::min)
        };
        let asked = std::cell::RefCell::new(Vec::new());
        let near = |i: usize, j: usize| {
            asked.borrow_mut().push((i, j));
            distance(i, j) < 15.0
        };
        let met = met_before(&segments, 15.0, near);
        let expected = |i: usize| (0..i).filter(|&j| distance(i, j) < 15.0).collect::<Vec<_>>();
        let mut n = 0;
        for (i, met) in met.into_iter().enumerate() {
            assert_eq!(met, expected(i), "{i}");
            n += met.len();
        }
        let mut asked = asked.into_inner();
        let n_asked = asked.len();
        asked.sort_unstable();
        asked.dedup();
        assert!(asked.len() == n_asked && asked.iter().all(|(i, j)| i > j));
        assert!(n > 50 && n_asked < 60 * 59 / 4, "{n} of {n_asked}");
    }
}
