//! Measures how well streaks are found and measured: a benchmark of blind streak detection.
//!
//! Everything follows from `--seed`. Tables go to the standard output as Markdown.
//!
//!     cargo run --release --example evaluate -- completeness --length 30 --frames 100
//!     cargo run --release --example evaluate -- false-alarms --asked 1,0.1 --frames 500
//!     cargo run --release --example evaluate -- calibrate --frames 500
//!     cargo run --release --example evaluate -- kept --length 100
//!     cargo run --release --example evaluate -- bias --length 30
//!     cargo run --release --example evaluate -- measurement --length 30 --snr 10,20,40
//!     cargo run --release --example evaluate -- star-field --size 1024 --stars 300,3000
//!     cargo run --release --example evaluate -- pairs --length 100 --snr 20,20 --crossing-deg 10,30,90
//!     cargo run --release --example evaluate -- rate-tracked --trail-length 35 --size 1024 --frames 10
//!     cargo run --release --example evaluate -- uneven-sky --size 768 --frames 8
//!     cargo run --release --example evaluate -- galaxies --size 1024 --frames 24

mod bias;
mod completeness;
mod disk;
mod false_alarms;
mod field;
mod galaxies;
mod kept;
mod matching;
mod measurement;
mod options;
mod pairs;
mod plot;
mod rate_tracked;
mod scenes;
mod star_field;
mod statistics;
mod table;
mod trailed;
mod trials;
mod uneven_sky;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

type AnyResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measure how well streaks are found and measured, in simulated frames.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// S/N at which half, and nine in ten, of the streaks are found.
    Completeness(completeness::Options),
    /// Detections in frames of noise, against what was asked.
    FalseAlarms(false_alarms::Options),
    /// Constants of the false-alarm law, one for each octave of lengths.
    Calibrate(false_alarms::CalibrateOptions),
    /// Share of the S/N that the coarse step and the whole search keep.
    Kept(kept::Options),
    /// Reported S/N over the true one.
    Bias(bias::Options),
    /// Errors of position, length, angle and flux against the Cramér-Rao bounds.
    Measurement(measurement::Options),
    /// Completeness and false detections in star fields.
    StarField(star_field::Options),
    /// Two streaks that cross or run side by side: are both found?
    Pairs(pairs::Options),
    /// Frames whose stars are trails: points, differing streaks, false detections, the star vector.
    RateTracked(rate_tracked::Options),
    /// Areas without data, steps around amplifiers, edges of light: false detections, and streaks lost.
    UnevenSky(uneven_sky::Options),
    /// Galaxies among stars: lines on them that pass for streaks.
    Galaxies(galaxies::Options),
}

fn main() -> ExitCode {
    let begin = Instant::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = Options::parse().command;
    println!("    cargo run --release --example evaluate -- {}\n", words.join(" "));
    let result = match &command {
        Command::Completeness(options) => completeness::run(options),
        Command::FalseAlarms(options) => false_alarms::run(options),
        Command::Calibrate(options) => false_alarms::calibrate(options),
        Command::Kept(options) => kept::run(options),
        Command::Bias(options) => bias::run(options),
        Command::Measurement(options) => measurement::run(options),
        Command::StarField(options) => star_field::run(options),
        Command::Pairs(options) => pairs::run(options),
        Command::RateTracked(options) => rate_tracked::run(options),
        Command::UnevenSky(options) => uneven_sky::run(options),
        Command::Galaxies(options) => galaxies::run(options),
    };
    if let Err(error) = result {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    println!("\nskystreak {}, {:.0} s.", env!("CARGO_PKG_VERSION"), begin.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
