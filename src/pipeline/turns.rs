//! Trails that share light are fitted in turns: all at once, three of them would pass it on for ever.

use crate::Result;
use crate::backend::Backend;
use crate::geometry::Segment;
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};

/// Some trails, in their order, each in the first group in which none shares light with it.
pub(crate) fn in_turns(
    trails: impl IntoIterator<Item = usize>,
    share_light: impl Fn(usize, usize) -> bool,
) -> Vec<Vec<usize>> {
    let mut turns: Vec<Vec<usize>> = Vec::new();
    for i in trails {
        match turns.iter_mut().find(|turn| !turn.iter().any(|&j| share_light(i, j))) {
            Some(turn) => turn.push(i),
            None => turns.push(vec![i]),
        }
    }
    turns
}

/// Of some that wait in their order, those that none before them reaches, and the others: done turn by turn they are as
/// if done one by one.
pub(crate) fn next_turn(waiting: &[usize], reach: impl Fn(usize, usize) -> bool) -> (Vec<usize>, Vec<usize>) {
    let is_reached = |n: usize| waiting[..n].iter().any(|&before| reach(before, waiting[n]));
    let reached: Vec<bool> = (0..waiting.len()).map(is_reached).collect();
    let of = |which: bool| waiting.iter().zip(&reached).filter(move |(_, r)| **r == which).map(|(k, _)| *k).collect();
    (of(false), of(true))
}

/// Fits trails again from where they are, each with all others taken out. Before and after, all are out of the residual
/// image. A fit that does not `hold`, given the one before and it, is not taken.
pub(crate) fn fit_in_turns(
    backend: &mut dyn Backend,
    fits: &mut [TrailFit],
    settings: &FitSettings,
    share_light: impl Fn(&Segment, &Segment) -> bool,
    holds: impl Fn(&TrailFit, &TrailFit) -> bool,
) -> Result<()> {
    let places: Vec<Segment> = fits.iter().map(|f| f.trail.segment).collect();
    for turn in in_turns(0..fits.len(), |i, j| share_light(&places[i], &places[j])) {
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

    #[test]
    fn each_waits_for_those_before_it_that_reach_it() {
        let next_to = |i: usize, j: usize| i.abs_diff(j) == 1;
        assert_eq!(next_turn(&[0, 1, 2, 4], next_to), (vec![0, 4], vec![1, 2]), "2 waits for 1, though 1 waits");
        assert_eq!(next_turn(&[1, 2], next_to), (vec![1], vec![2]));
        assert_eq!(next_turn(&[], next_to), (vec![], vec![]));
    }

    #[test]
    fn those_of_one_turn_share_nothing() {
        let next_to = |i: usize, j: usize| i.abs_diff(j) == 1;
        assert_eq!(in_turns(0..5, next_to), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(in_turns([3, 1, 2], |_, _| true), [[3], [1], [2]]);
    }
}
