//! Frames whose stars are trails: points and differing streaks found, false detections, the error of the star vector.

use clap::Args;

use crate::AnyResult;
use crate::matching;
use crate::options::Common;
use crate::scenes::frame_seed;
use crate::table::Table;
use crate::trailed::{F1_SNR, Outcome, f1, observe, scene};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Length of the stars' trails, px.
    #[arg(long, default_value_t = 35.0)]
    trail_length: f64,
    /// Their angle, degrees from +x towards +y.
    #[arg(long, default_value_t = 17.0)]
    trail_angle_deg: f64,
    /// Stars of S/N 3 and more, trailed, per million pixels.
    #[arg(long, default_value_t = 700.0)]
    stars: f64,
    /// Point targets in a frame, and as many streaks.
    #[arg(long, default_value_t = 4)]
    n: usize,
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    common.describe();
    let trail = (options.trail_length, options.trail_angle_deg.to_radians());
    println!(
        "Star trails of {} px at {} degrees, {} a million pixels. A streak is found by this rule: {}.\n",
        options.trail_length,
        options.trail_angle_deg,
        options.stars,
        matching::RULE
    );
    let detector = common.detector(0.01)?;
    let outcomes = common.over_frames(|frame| {
        let seed = frame_seed(common.seed, frame);
        observe(&detector, &scene(common.size, common.sigma, trail, options.stars, options.n, seed))
    })?;
    let mut table = Table::new(["S/N", "points found", "streaks found"]);
    for (low, high) in [(8.0, 10.0), (10.0, 12.0), (12.0, 16.0), (16.0, 22.0), (22.0, 30.0)] {
        let share = |of: &dyn Fn(&Outcome) -> Vec<(f64, bool)>| {
            let all: Vec<(f64, bool)> = outcomes.iter().flat_map(of).filter(|t| (low..high).contains(&t.0)).collect();
            format!("{} of {}", all.iter().filter(|t| t.1).count(), all.len())
        };
        table.row([format!("{low} – {high}"), share(&|o| o.points.clone()), share(&|o| o.streaks.clone())]);
    }
    println!("{table}");
    let n = outcomes.len() as f64;
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>() as f64 / n;
    println!("Points, F1 at S/N {F1_SNR} and more: {:.3}", f1(&outcomes));
    println!("False a frame: {:.3} points, {:.3} streaks", sum(|o| o.false_points), sum(|o| o.false_streaks));
    let vectors: Vec<(f64, f64)> = outcomes.iter().filter_map(|o| o.vector).collect();
    let worst = vectors.iter().fold((0.0_f64, 0.0_f64), |a, b| (a.0.max(b.0), a.1.max(b.1)));
    println!(
        "Star vector known in {} of {n} frames, off by {:.2} px and {:.2} degrees at most",
        vectors.len(),
        worst.0,
        worst.1.to_degrees()
    );
    Ok(())
}
