//! Completeness: the share of streaks found as a function of S/N.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use crate::AnyResult;
use crate::matching::RULE;
use crate::options::Common;
use crate::plot::{self, Series};
use crate::scenes::Placement;
use crate::statistics::{Response, share_interval};
use crate::table::{Table, percent, with_error};
use crate::trials::{Trial, search_frame};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Length of the streaks, px.
    #[arg(long, default_value_t = 30.0)]
    length: f64,
    /// S/N of the streaks.
    #[arg(long, value_delimiter = ',', default_values_t = [3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 9.0, 10.0])]
    snr: Vec<f64>,
    /// False alarms per frame.
    #[arg(long, default_value_t = 0.01)]
    false_alarms: f64,
    /// Streaks in a frame. Default: as many as fit well apart.
    #[arg(long)]
    per_frame: Option<usize>,
    /// Let the border of the frame cut streaks; their S/N is that of the part inside.
    #[arg(long)]
    cut: bool,
    /// Write a plot, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> AnyResult<()> {
    let common = &options.common;
    let conditions = common.conditions()?;
    let placement = Placement { cut: options.cut, ..Placement::new(options.length, options.per_frame, common.size) };
    let detector = common.detector(options.false_alarms)?;
    let outcomes = common
        .over_frames(|frame| search_frame(&detector, &conditions, &placement, &options.snr, common.seed, frame))?;
    let trials: Vec<Trial> = outcomes.iter().flat_map(|o| o.trials.iter().copied()).collect();

    common.describe();
    let cut = if options.cut { ", some cut by the border" } else { "" };
    println!("{} streaks of {} px{cut}, {} in a frame. Found: {RULE}.\n", trials.len(), options.length, placement.n);
    let mut by_snr = Table::new(["S/N", "streaks", "found", "± 1 sigma", "from the truth", "in pieces", "rejected"]);
    for &snr in &options.snr {
        let here: Vec<&Trial> = trials.iter().filter(|t| t.snr == snr).collect();
        if here.is_empty() {
            continue;
        }
        let count = |what: fn(&Trial) -> bool| here.iter().filter(|t| what(t)).count();
        let share = |hits: usize| hits as f64 / here.len() as f64;
        let (low, high) = share_interval(count(|t| t.blind), here.len());
        by_snr.row([
            format!("{snr}"),
            here.len().to_string(),
            percent(share(count(|t| t.blind))),
            format!("{:.1} – {:.1} %", 100.0 * low, 100.0 * high),
            percent(share(count(|t| t.from_truth))),
            percent(share(count(|t| t.broken))),
            percent(share(count(|t| t.rejected.is_some()))),
        ]);
    }
    println!("{by_snr}");

    let blind: Vec<(f64, bool)> = trials.iter().map(|t| (t.snr, t.blind)).collect();
    let from_truth: Vec<(f64, bool)> = trials.iter().map(|t| (t.snr, t.from_truth)).collect();
    let mut fits = Table::new(["sigma", "length", "false alarms asked", "search", "S/N at 50 %", "S/N at 90 %"]);
    for (name, trials) in [("blind", &blind), ("from the truth", &from_truth)] {
        let fit = Response::fit(trials);
        let at = |share: f64| fit.map_or("–".to_owned(), |f| with_error(f.at_share(share)));
        fits.row([
            common.sigma.to_string(),
            options.length.to_string(),
            options.false_alarms.to_string(),
            name.to_owned(),
            at(0.5),
            at(0.9),
        ]);
    }
    println!("{fits}");
    let only = |what: fn(&Trial) -> bool| trials.iter().filter(|t| what(t)).count();
    println!(
        "Found from the truth and not blindly: {}; blindly and not from the truth: {}.",
        only(|t| t.from_truth && !t.blind),
        only(|t| t.blind && !t.from_truth)
    );
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in trials.iter().filter_map(|t| t.rejected) {
        *reasons.entry(reason.name()).or_default() += 1;
    }
    let reasons: Vec<String> = reasons.iter().map(|(name, n)| format!("{n} as {name}")).collect();
    let reasons = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
    println!("Missed streaks that were found and rejected: {reasons}.");
    let false_alarms: usize = outcomes.iter().map(|o| o.false_alarms).sum();
    let touching: usize = outcomes.iter().map(|o| o.touching).sum();
    let n_frames = outcomes.len();
    println!("Detections that belong to no streak: {false_alarms} in {n_frames} frames; {touching} of them touch one.");
    options.plot.as_ref().map_or(Ok(()), |path| save_plot(path, options, &trials, Response::fit(&blind)))
}

fn save_plot(path: &std::path::Path, options: &Options, trials: &[Trial], fit: Option<Response>) -> AnyResult<()> {
    let points = |what: fn(&Trial) -> bool| {
        let of = |&snr: &f64| {
            let here: Vec<&Trial> = trials.iter().filter(|t| t.snr == snr).collect();
            let (low, high) = share_interval(here.iter().filter(|t| what(t)).count(), here.len());
            // Not finite where there is no streak: not drawn.
            (snr, 0.5 * (low + high), 0.5 * (high - low))
        };
        options.snr.iter().map(of).collect::<Vec<_>>()
    };
    let mut series = vec![
        Series::points("blind search", points(|t| t.blind)),
        Series::points("fit from the truth", points(|t| t.from_truth)),
    ];
    if let Some(fit) = fit {
        let curve = (0..=140).map(|k| 3.0 + 0.05 * f64::from(k)).map(|s| (s, fit.share(s))).collect();
        series.push(Series::line("fit", curve));
    }
    let title = format!("Completeness, {} px, {} false alarms asked", options.length, options.false_alarms);
    plot::save_svg(path, &title, "true S/N", "share found", &series)
}
